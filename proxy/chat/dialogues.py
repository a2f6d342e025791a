"""The dialogues of one worker: each begins at a visitor's request and goes on by itself."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from proxy.chat import words
from proxy.chat.broker import BrokerClosed
from proxy.chat.conversation import Turn
from proxy.chat.dialogue import Dialogue
from proxy.chat.prompt import clean_prompt
from proxy.chat.render import render_block
from proxy.chat.speaker import Speaker
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message
from proxy.drain import Drain
from proxy.redis_connection import StoreUnavailable
from proxy.settings import Chat
from proxy.telemetry import get_logger

TURN_SECONDS: Final = 1.0
"""How long a question waits for the one before it to let go: its end is told a moment earlier."""
RESET_SECONDS: Final = 5.0
"""How long a reset waits for the answer that it stops."""
_LOOK_SECONDS: Final = 0.02
_EVERYTHING: Final = "```python\nx = 1\n```\n\n$x$\n"
"""Loads what renders: the first block of code takes 65 ms, which no visitor shall wait for."""

_log: Final = get_logger("chat")


class Dialogues:
    """Begins, stops, repeats and forgets dialogues. Open it as a context: its end is theirs.

    Args:
        chat: The `[chat]` section.
        stores: Where they are heard, who owns a channel, what was said before.
        upstream: The way to the model.
        drain: Whether the service is on its way out.
        heard_elsewhere: Whether other processes hear our channels. Then a dialogue that runs when the
            service drains gets its time, else nobody could see it.
    """

    def __init__(
        self, chat: Chat, stores: Stores, upstream: ChatUpstream, drain: Drain, *, heard_elsewhere: bool
    ) -> None:
        self._chat = chat
        self._broker = stores.broker
        self._channels = stores.channels
        self._conversation = stores.conversation
        self._upstream = upstream
        self._drain = drain
        self._heard_elsewhere = heard_elsewhere
        self._running: set[Dialogue] = set()
        self._group = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(render_block, "left", _EVERYTHING)
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if not (self._heard_elsewhere and self._drain.started):
            self._end_all()
        # Those that go on end by themselves, at the latest when the drain stops their exchanges.
        await self._group.__aexit__(kind, error, trace)

    def drain(self) -> None:
        """The service is on its way out: what nobody will hear any more ends now, and says so."""
        if not self._heard_elsewhere:
            self._end_all()

    def _end_all(self) -> None:
        for dialogue in self._running:
            dialogue.end("closing")

    async def ask(self, channel: str, prompt: str, request_id: str) -> str:
        """Begin a dialogue; empty, or words for why not.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        prompt = clean_prompt(prompt)
        if not prompt:
            return ""
        if len(prompt) > self._chat.max_prompt_chars:
            return words.TOO_LONG.format(limit=self._chat.max_prompt_chars)
        if self._is_closing:
            return words.RESTARTING
        if not await self._begin(channel, TURN_SECONDS):
            return words.BUSY
        speaker = Speaker(self._broker, channel)
        try:
            before = await self._before(channel)
            await speaker.say("right", prompt)
            await speaker.tell("waiting")
        except BaseException:
            await self._channels.end(channel)
            raise
        self._start(Dialogue(channel, prompt, before, request_id, speaker, self._chat.max_seconds))
        return ""

    async def regenerate(self, channel: str, request_id: str) -> str:
        """Answer the last question again; empty, or words for why not.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        if self._is_closing:
            return words.RESTARTING
        if not await self._begin(channel, TURN_SECONDS):
            return words.BUSY
        speaker = Speaker(self._broker, channel)
        try:
            turns = await self._conversation.turns(channel)
            if not turns:
                await self._channels.end(channel)
                return words.NOTHING_TO_ANSWER
            await self._conversation.drop_last(channel)
            before = await self._before(channel)
            await speaker.tell("regenerating")
            await speaker.tell("waiting")
        except BaseException:
            await self._channels.end(channel)
            raise
        self._start(Dialogue(channel, turns[-1].prompt, before, request_id, speaker, self._chat.max_seconds))
        return ""

    async def stop(self, channel: str) -> None:
        """Ask what runs in a channel to stop, in whatever process.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._channels.ask_stop(channel)

    async def reset(self, channel: str) -> str:
        """Stop what runs, and forget what was said and shown; empty, or words for why not.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._channels.ask_stop(channel)
        if not await self._begin(channel, RESET_SECONDS):
            return words.BUSY
        try:
            await self._conversation.clear(channel)
            await self._broker.forget(channel)
            await Speaker(self._broker, channel).tell("reset")
        finally:
            await self._channels.end(channel)
        return ""

    @property
    def _is_closing(self) -> bool:
        return self._closing or self._drain.started

    async def _begin(self, channel: str, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while not await self._channels.begin(channel):
            if loop.time() >= due:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def _before(self, channel: str) -> Sequence[Message]:
        system, turns = self._chat.system, self._chat.turns
        messages = [Message(role="system", content=str(system))] if system else []
        for turn in (await self._conversation.turns(channel))[-turns:] if turns else []:
            if turn.answer:
                messages.append(Message(role="user", content=turn.prompt))
                messages.append(Message(role="assistant", content=turn.answer))
        return messages

    def _start(self, dialogue: Dialogue) -> None:
        group = self._group
        self._running.add(dialogue)
        group.create_task(self._run(dialogue))
        if self._is_closing and not self._heard_elsewhere:
            dialogue.end("closing")

    async def _run(self, dialogue: Dialogue) -> None:
        """Run it to its end. Whatever breaks, breaks this one alone."""
        loop = asyncio.get_running_loop()
        began, channel = loop.time(), dialogue.channel
        try:
            try:
                state = await dialogue.run(self._upstream, self._channels)
                await self._conversation.append(channel, Turn(dialogue.prompt, dialogue.speaker.answer))
                await dialogue.speaker.tell(state, seconds=round(loop.time() - began, 1))
            finally:
                self._running.discard(dialogue)
                await self._channels.end(channel)
        except (StoreUnavailable, BrokerClosed) as error:
            _log.warning("chat_dialogue_unheard", error=type(error).__name__)
        except Exception:
            # A task of the group that fails would end all others, and the service with them.
            _log.exception("chat_dialogue_failed")
            await self._apologize(dialogue)

    async def _apologize(self, dialogue: Dialogue) -> None:
        try:
            await dialogue.speaker.say("error", words.BROKEN)
            await dialogue.speaker.tell("failed")
        except Exception:
            _log.exception("chat_apology_failed")

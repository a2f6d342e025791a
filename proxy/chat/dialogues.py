"""The dialogues of one worker: each begins at a visitor's request and goes on by itself."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from proxy.chat import words
from proxy.chat.broker import BrokerClosed
from proxy.chat.conversation import Turn
from proxy.chat.dialogue import Dialogue
from proxy.chat.places import Places
from proxy.chat.prompt import clean_prompt
from proxy.chat.render import render_block
from proxy.chat.speaker import Speaker, State
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message
from proxy.drain import Drain
from proxy.errors import RateLimited
from proxy.redis_connection import StoreUnavailable
from proxy.settings import Chat
from proxy.telemetry import get_logger

TURN_SECONDS: Final = 1.0
"""How long a question waits for the one before it to let go: its end is told a moment earlier."""
RESET_SECONDS: Final = 5.0
"""How long a reset waits for the answer that it stops."""
ANSWER_CHARS_MAX: Final = 32_000
"""As much of an answer is remembered, and told to the model again."""
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
        self._places = Places(chat.max_dialogues, "dialogues of an address")
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

    async def ask(self, channel: str, prompt: str, request_id: str, address: str = "") -> str:
        """Begin a dialogue; empty, or words for why not.

        Raises:
            RateLimited: so many run for this address already.
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
        return await self._start(_Question(channel, request_id, address, prompt))

    async def regenerate(self, channel: str, request_id: str, address: str = "") -> str:
        """Answer the last question again; empty, or words for why not.

        Raises:
            RateLimited: so many run for this address already.
            StoreUnavailable: Redis could not be asked.
        """
        if self._is_closing:
            return words.RESTARTING
        if not await self._begin(channel, TURN_SECONDS):
            return words.BUSY
        return await self._start(_Question(channel, request_id, address))

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

    async def _start(self, question: "_Question") -> str:
        """Let it run by itself from now on, whoever leaves; empty once it is shown, or words for why not."""
        group, shown = self._group, asyncio.get_running_loop().create_future()
        group.create_task(self._run(question, shown))
        return str(await shown)

    async def _run(self, question: "_Question", shown: "asyncio.Future[str]") -> None:
        """Run it to its end. Whatever breaks, breaks this one alone."""
        channel, speaker = question.channel, Speaker(self._broker, question.channel)
        try:
            try:
                with self._places.one(question.address):
                    await self._converse(question, speaker, shown)
            except (StoreUnavailable, BrokerClosed, RateLimited) as error:
                if not shown.done():
                    shown.set_exception(error)
                _log.warning("chat_dialogue_unheard", error=type(error).__name__)
            except Exception:
                # A task of the group that fails would end all others, and the service with them.
                _log.exception("chat_dialogue_failed")
                await self._apologize(speaker)
            finally:
                if not shown.done():
                    shown.set_result(words.BROKEN)
                await self._channels.end(channel)
        except Exception:  # for the same reason; the lease lapses by itself
            _log.exception("chat_lease_not_let_go")

    async def _converse(self, question: "_Question", speaker: Speaker, shown: "asyncio.Future[str]") -> None:
        loop = asyncio.get_running_loop()
        began, channel = loop.time(), question.channel
        turns = await self._conversation.turns(channel)
        prompt = question.prompt
        if prompt is None:
            if not turns:
                if not shown.done():
                    shown.set_result(words.NOTHING_TO_ANSWER)
                return
            *turns, last = turns
            prompt = last.prompt
            await speaker.tell("regenerating")
        else:
            await speaker.say("right", prompt)
            # Known from now on, so that it can be answered again whatever becomes of its answer.
            await self._conversation.append(channel, Turn(prompt, ""))
        await speaker.tell("waiting")
        if not shown.done():
            shown.set_result("")
        messages = self._messages(turns)
        dialogue = Dialogue(channel, prompt, messages, question.request_id, speaker, self._chat.max_seconds)
        state = await self._watched(dialogue)
        await self._conversation.drop_last(channel)
        await self._conversation.append(channel, Turn(prompt, speaker.answer[:ANSWER_CHARS_MAX]))
        await speaker.tell(state, seconds=round(loop.time() - began, 1))

    async def _watched(self, dialogue: Dialogue) -> State:
        self._running.add(dialogue)
        if self._is_closing and not self._heard_elsewhere:
            dialogue.end("closing")
        try:
            return await dialogue.run(self._upstream, self._channels)
        finally:
            self._running.discard(dialogue)

    def _messages(self, turns: Sequence[Turn]) -> Sequence[Message]:
        """What the model is told before the question."""
        system, most = self._chat.system, self._chat.turns
        messages = [Message(role="system", content=str(system))] if system else []
        for turn in turns[-most:] if most else []:
            if turn.answer:
                messages.append(Message(role="user", content=turn.prompt))
                messages.append(Message(role="assistant", content=turn.answer))
        return messages

    async def _apologize(self, speaker: Speaker) -> None:
        try:
            await speaker.say("error", words.BROKEN)
            await speaker.tell("failed")
        except Exception:  # for the same reason
            _log.exception("chat_apology_failed")


@dataclass(frozen=True, slots=True)
class _Question:
    """What a visitor asks."""

    channel: str
    request_id: str
    address: str
    prompt: str | None = None
    """None asks the last one again."""

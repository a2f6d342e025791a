"""The dialogues of one worker: each is started by a visitor's request and runs in a separate task."""

import asyncio
import contextlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from proxy.chat import messages
from proxy.chat.broker import BrokerClosed
from proxy.chat.conversation import Turn
from proxy.chat.dialogue import Dialogue
from proxy.chat.publisher import Publisher, State
from proxy.chat.render import render_block
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message
from proxy.chat.visitor_limits import ConcurrencyLimit
from proxy.drain import Drain
from proxy.errors import RateLimited
from proxy.redis_connection import StoreUnavailable
from proxy.settings import Chat
from proxy.telemetry import get_logger

TURN_SECONDS: Final = 1.0
"""How long a question waits for the previous dialogue to release its lease after its end was published."""
RESET_SECONDS: Final = 5.0
"""How long a reset waits for the dialogue that it stops."""
ANSWER_CHARS_MAX: Final = 32_000
"""How much of an answer is stored, and sent to the model with later questions."""
_POLL_SECONDS: Final = 0.02
_WARM_UP: Final = "```python\nx = 1\n```\n\n$x$\n"
"""Rendered at the start, because the first code block takes 65 ms to load the libraries."""

_INVISIBLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and line feed
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # changes of the writing direction
    r"\ufeff\ufffe\uffff\U000e0000-\U000e007f"  # byte order mark, noncharacters, tags
    r"\ud800-\udfff]"  # lone surrogates, which JSON can contain
)
_LINE_END: Final = re.compile(r"\r\n?|\u2028|\u2029|\x85|\x0b|\x0c")

_log: Final = get_logger("chat")


class Dialogues:
    """Starts, stops, repeats and resets dialogues. They end with the context of this object.

    Args:
        chat: The `[chat]` section.
        stores: The state of the channels.
        upstream: Sends questions to the model.
        drain: Whether the service is shutting down.
        shared: Whether other processes serve the same channels. If so, a dialogue that is running when the
            service drains may finish; otherwise nobody could see its end.
    """

    def __init__(
        self, chat: Chat, stores: Stores, upstream: ChatUpstream, drain: Drain, *, shared: bool
    ) -> None:
        self._chat = chat
        self._broker = stores.broker
        self._channels = stores.channels
        self._conversation = stores.conversation
        self._upstream = upstream
        self._drain = drain
        self._shared = shared
        self._limit = ConcurrencyLimit(chat.max_dialogues, "dialogues of an address")
        self._running: set[Dialogue] = set()
        self._group = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(render_block, "left", _WARM_UP)
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if not (self._shared and self._drain.started):
            self._end_all()
        # The others finish, at the latest when the drain stops their exchanges.
        await self._group.__aexit__(kind, error, trace)

    def drain(self) -> None:
        """End the dialogues at the start of a drain, unless other processes serve their channels."""
        if not self._shared:
            self._end_all()

    def _end_all(self) -> None:
        for dialogue in self._running:
            dialogue.end("closing")

    async def ask(self, channel: str, prompt: str, request_id: str, address: str = "") -> str:
        """Start a dialogue; return an error message, or "" if it started.

        Raises:
            RateLimited: Too many dialogues are running for this address.
            StoreUnavailable: Redis did not answer.
        """
        prompt = clean_prompt(prompt)
        if not prompt:
            return ""
        if len(prompt) > self._chat.max_prompt_chars:
            return messages.PROMPT_TOO_LONG.format(limit=self._chat.max_prompt_chars)
        if self._is_closing:
            return messages.RESTARTING
        if not await self._begin(channel, TURN_SECONDS):
            return messages.BUSY
        return await self._start(_Question(channel, request_id, address, prompt))

    async def regenerate(self, channel: str, request_id: str, address: str = "") -> str:
        """Answer the last question again; return an error message, or "" if the dialogue started.

        Raises:
            RateLimited: Too many dialogues are running for this address.
            StoreUnavailable: Redis did not answer.
        """
        if self._is_closing:
            return messages.RESTARTING
        if not await self._begin(channel, TURN_SECONDS):
            return messages.BUSY
        return await self._start(_Question(channel, request_id, address))

    async def stop(self, channel: str) -> None:
        """Ask the dialogue in a channel to stop, in any process.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._channels.request_stop(channel)

    async def reset(self, channel: str) -> str:
        """Stop the dialogue, and delete turns and events; return an error message, or "" on success.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._channels.request_stop(channel)
        if not await self._begin(channel, RESET_SECONDS):
            return messages.BUSY
        try:
            await self._conversation.clear(channel)
            await self._broker.forget(channel)
            await Publisher(self._broker, channel).publish_state("reset")
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
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def _start(self, question: "_Question") -> str:
        """Start a task that survives the visitor's request; return once the question is published."""
        group, started = self._group, asyncio.get_running_loop().create_future()
        group.create_task(self._run(question, started))
        return str(await started)

    async def _run(self, question: "_Question", started: "asyncio.Future[str]") -> None:
        """Run a dialogue to its end. An error ends only this dialogue."""
        channel, publisher = question.channel, Publisher(self._broker, question.channel)
        with _errors_logged("chat_lease_not_released"):  # the lease will expire
            try:
                with self._limit.slot(question.address):
                    await self._converse(question, publisher, started)
            except (StoreUnavailable, BrokerClosed, RateLimited) as error:
                if not started.done():
                    started.set_exception(error)
                _log.warning("chat_dialogue_not_published", error=type(error).__name__)
            except Exception:  # as in `_errors_logged`
                _log.exception("chat_dialogue_failed")
                with _errors_logged("chat_error_not_published"):
                    await publisher.publish_block("error", messages.BROKEN)
                    await publisher.publish_state("failed")
            finally:
                if not started.done():
                    started.set_result(messages.BROKEN)
                await self._channels.end(channel)

    async def _converse(
        self, question: "_Question", publisher: Publisher, started: "asyncio.Future[str]"
    ) -> None:
        loop = asyncio.get_running_loop()
        start, channel = loop.time(), question.channel
        turns = await self._conversation.turns(channel)
        prompt = question.prompt
        if prompt is None:
            if not turns:
                if not started.done():
                    started.set_result(messages.NOTHING_TO_ANSWER)
                return
            *turns, last = turns
            prompt = last.prompt
            await publisher.publish_state("regenerating")
        else:
            await publisher.publish_block("right", prompt)
            # Stored before the answer, so that the question can be asked again if it fails.
            await self._conversation.append(channel, Turn(prompt, ""))
        await publisher.publish_state("waiting")
        if not started.done():
            started.set_result("")
        history = self._history(turns)
        dialogue = Dialogue(channel, prompt, history, question.request_id, publisher, self._chat.max_seconds)
        state = await self._run_dialogue(dialogue)
        await self._conversation.drop_last(channel)
        await self._conversation.append(channel, Turn(prompt, publisher.answer[:ANSWER_CHARS_MAX]))
        await publisher.publish_state(state, seconds=round(loop.time() - start, 1))

    async def _run_dialogue(self, dialogue: Dialogue) -> State:
        self._running.add(dialogue)
        if self._is_closing and not self._shared:
            dialogue.end("closing")
        try:
            return await dialogue.run(self._upstream, self._channels)
        finally:
            self._running.discard(dialogue)

    def _history(self, turns: Sequence[Turn]) -> Sequence[Message]:
        """Return the messages that precede the question."""
        system, most = self._chat.system, self._chat.turns
        history = [Message(role="system", content=str(system))] if system else []
        for turn in turns[-most:] if most else []:
            if turn.answer:
                history.append(Message(role="user", content=turn.prompt))
                history.append(Message(role="assistant", content=turn.answer))
        return history


@contextlib.contextmanager
def _errors_logged(event: str) -> Iterator[None]:
    """Log any error of the block: a failed task of the group would end all others and the service."""
    try:
        yield
    except Exception:
        _log.exception(event)


@dataclass(frozen=True, slots=True)
class _Question:
    """A visitor's question."""

    channel: str
    request_id: str
    address: str
    prompt: str | None = None
    """None repeats the last question."""


def clean_prompt(text: str) -> str:
    """Return a visitor's text without invisible characters and surrounding blanks, in NFC, with line feeds.

    Invisible characters can make a text look like another one:
    https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing. HTML is escaped in rendering.
    """
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    return unicodedata.normalize("NFC", text).strip()

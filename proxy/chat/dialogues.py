"""The dialogues of one worker: each is started by a visitor's request and runs in a separate task."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from proxy.chat import notices
from proxy.chat.broker import BrokerClosed, LeaseLost, Mark
from proxy.chat.conversation import Turn
from proxy.chat.dialogue import Dialogue
from proxy.chat.event import Position
from proxy.chat.notices import Notice
from proxy.chat.outbox import Interruption, Outbox
from proxy.chat.publisher import Publisher, block_event, error_event, state_event
from proxy.chat.render import render_block
from proxy.chat.states import DialogueState
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message
from proxy.chat.visitor_limits import ConcurrencyLimit, VisitorBudget
from proxy.drain import Drain
from proxy.errors import RateLimited
from proxy.redis_connection import StoreUnavailable
from proxy.settings import Chat
from proxy.task_groups import task_group
from proxy.telemetry import get_logger
from proxy.wire.normal_forms import normalize

TURN_SECONDS: Final = 1.0
"""How long a question waits for the previous dialogue to release its lease after its end was published."""
RESET_SECONDS: Final = 5.0
"""How long a reset waits for the dialogue that it stops."""
COPIED_BYTES_MAX: Final = 64 << 20
"""Bytes of conversations that edited questions of an address may copy while events are kept: a small request
copies up to `keep_bytes`."""
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
        copies: Limits the bytes that edited questions copy.
        shared: Whether other processes serve the same channels. If so, a dialogue that is running when the
            service drains may finish; otherwise nobody could see its end.
    """

    def __init__(
        self,
        chat: Chat,
        stores: Stores,
        upstream: ChatUpstream,
        drain: Drain,
        *,
        copies: VisitorBudget,
        shared: bool,
    ) -> None:
        self._chat = chat
        self._broker = stores.broker
        self._channels = stores.channels
        self._conversation = stores.conversation
        self._conversations = stores.conversations
        self._upstream = upstream
        self._drain = drain
        self._copies = copies
        self._shared = shared
        self._limit = ConcurrencyLimit(chat.max_dialogues, "dialogues of an address")
        self._running: set[Dialogue] = set()
        self._outboxes: set[Outbox] = set()
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
        for outbox in self._outboxes:
            outbox.close()
        # The others finish, at the latest when the drain stops their exchanges.
        await self._group.__aexit__(kind, error, trace)

    def drain(self) -> None:
        """End the dialogues at the start of a drain, unless other processes serve their channels."""
        if not self._shared:
            self._end_all()

    def _end_all(self) -> None:
        for dialogue in self._running:
            dialogue.end("closing")

    async def ask(
        self,
        channel: str,
        prompt: str,
        request_id: str,
        address: str = "",
        session: str = "",
        *,
        model: str | None = None,
        branch: "Branch | None" = None,
    ) -> Notice | None:
        """Start a dialogue; return why it did not start, or None.

        Args:
            request_id: The id of the visitor's request, for the log.
            address: The visitor's address.
            session: The visitor's session.
            model: The model that answers; by default that of `[chat]`.
            branch: The beginning of another conversation, which this one continues.

        Raises:
            RateLimited: Too many dialogues are running for this address.
            StoreUnavailable: Redis did not answer.
        """
        prompt = clean_prompt(prompt)
        if not prompt:
            return None
        if len(prompt) > self._chat.max_prompt_chars:
            return notices.PROMPT_TOO_LONG.with_number(self._chat.max_prompt_chars)
        if self._is_closing:
            return notices.RESTARTING
        holder = await self._begin(channel, TURN_SECONDS)
        if holder is None:
            return notices.BUSY
        return await self._start(
            _Question(channel, holder, request_id, address, session, model, prompt, branch)
        )

    async def regenerate(
        self, channel: str, request_id: str, address: str = "", *, model: str | None = None
    ) -> Notice | None:
        """Answer the last question again; return why that did not start, or None.

        Raises:
            RateLimited: Too many dialogues are running for this address.
            StoreUnavailable: Redis did not answer.
        """
        if self._is_closing:
            return notices.RESTARTING
        holder = await self._begin(channel, TURN_SECONDS)
        if holder is None:
            return notices.BUSY
        return await self._start(_Question(channel, holder, request_id, address, model=model))

    async def stop(self, channel: str) -> None:
        """Ask the dialogue in a channel to stop, in any process.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._channels.request_stop(channel)

    async def reset(self, channel: str, session: str = "") -> Notice | None:
        """Stop the dialogue, and delete turns, events and title; return why that failed, or None.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._channels.request_stop(channel)
        if await self._begin(channel, RESET_SECONDS) is None:
            return notices.BUSY
        try:
            await self._conversations.remove(session, channel)
            await self._conversation.clear(channel)
            await self._broker.forget(channel)
            await self._broker.publish(channel, state_event("reset"))
        finally:
            await self._channels.end(channel)
        return None

    @property
    def _is_closing(self) -> bool:
        return self._closing or self._drain.started

    async def _begin(self, channel: str, seconds: float) -> str | None:
        """Take the lease of a channel, and return its holder."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while (holder := await self._channels.begin(channel)) is None:
            if loop.time() >= due:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return holder

    async def _start(self, question: "_Question") -> Notice | None:
        """Start a task that survives the visitor's request; return once the question is published."""
        group = self._group
        started: asyncio.Future[Notice | None] = asyncio.get_running_loop().create_future()
        group.create_task(self._run(question, started))
        return await started

    async def _run(self, question: "_Question", started: "asyncio.Future[Notice | None]") -> None:
        """Run a dialogue to its end. An error ends only this dialogue."""
        with _errors_logged("chat_lease_not_released"):  # the lease will lapse
            try:
                with self._limit.slot(question.address):
                    await self._converse(question, started)
            except (StoreUnavailable, BrokerClosed, LeaseLost, RateLimited) as error:
                if not started.done():
                    started.set_exception(error)
                _log.warning(
                    "chat_dialogue_not_published", error=type(error).__name__, reason=str(error) or None
                )
            except Exception:  # as in `_errors_logged`
                _log.exception("chat_dialogue_failed")
                with _errors_logged("chat_error_not_published"):
                    await self._publish_failure(question.channel, question.holder)
            finally:
                if not started.done():
                    started.set_result(notices.BROKEN)
                await self._channels.end(question.channel)

    async def _converse(self, question: "_Question", started: "asyncio.Future[Notice | None]") -> None:
        channel, prompt = question.channel, question.prompt
        mark: Mark | None = None
        if question.branch is not None and not await self._copy(question, question.branch):
            if not started.done():
                started.set_result(notices.BAD_REQUEST)
            return
        turns = await self._conversation.turns(channel)
        if prompt is None:
            if not turns:
                if not started.done():
                    started.set_result(notices.NOTHING_TO_ANSWER)
                return
            *turns, last = turns
            prompt = last.prompt
            opening = state_event("regenerating")
        else:
            # Stored before the answer, so that the question can be asked again if it fails.
            await self._conversation.append(channel, Turn(prompt, ""))
            await self._conversations.note(question.session, channel, prompt)
            branched = {} if question.branch is None else {"branch_of": question.branch.source}
            opening, mark = await block_event("right", prompt, **branched), "turn"
        await self._broker.publish(channel, opening, holder=question.holder, mark=mark)
        if not started.done():
            started.set_result(None)
        await self._answer(question, prompt, self._history(turns))

    async def _copy(self, question: "_Question", branch: "Branch") -> bool:
        """Copy the beginning of another conversation; False if the channel is not new."""
        await self._copies.check(question.address)
        copied = await self._broker.copy(branch.source, question.channel, branch.before)
        if copied is None:
            return False
        await self._copies.add(question.address, copied.bytes)
        turns = await self._conversation.turns(branch.source)
        for turn in turns[: max(len(turns) - copied.later, 0)]:
            await self._conversation.append(question.channel, turn)
        listed = await self._conversations.read(question.session)
        title = next((entry.title for entry in listed if entry.channel == branch.source), None)
        # The first question has been copied if there are events.
        if title is not None and await self._broker.has_events(question.channel):
            await self._conversations.note(question.session, question.channel, title)
        return True

    async def _answer(self, question: "_Question", prompt: str, history: Sequence[Message]) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()

        def end(reason: Interruption) -> None:
            dialogue.end(reason)

        model = question.model or self._chat.model
        outbox = Outbox(self._broker, question.channel, question.holder, end)
        publisher = Publisher(outbox)
        dialogue = Dialogue(
            question.channel, prompt, history, question.request_id, publisher, self._chat.max_seconds, model
        )
        async with self._open_outbox(outbox):
            await publisher.publish_state("waiting")
            state = await self._run_dialogue(dialogue)
            await outbox.sent()
            await self._store_answer(question.channel, Turn(prompt, publisher.answer))
            await publisher.publish_state(
                state, mark="end", seconds=round(loop.time() - start, 1), model=model
            )
            await outbox.sent()

    @contextlib.asynccontextmanager
    async def _open_outbox(self, outbox: Outbox) -> AsyncIterator[None]:
        """Publish the events of an outbox, in a task that ends with the block."""
        self._outboxes.add(outbox)
        if self._closing:
            outbox.close()
        try:
            async with task_group() as group:
                sending = group.create_task(outbox.run())
                try:
                    yield
                finally:
                    sending.cancel()
        finally:
            self._outboxes.discard(outbox)

    async def _store_answer(self, channel: str, turn: Turn) -> None:
        """Store the answer for the next question. A failure does not change this answer."""
        try:
            await self._conversation.replace_last(channel, turn)
        except StoreUnavailable:
            _log.warning("chat_turn_not_stored")

    async def _run_dialogue(self, dialogue: Dialogue) -> DialogueState:
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

    async def _publish_failure(self, channel: str, holder: str) -> None:
        await self._broker.publish(channel, error_event(notices.BROKEN), holder=holder)
        await self._broker.publish(channel, state_event("failed"), holder=holder, mark="end")


@contextlib.contextmanager
def _errors_logged(event: str) -> Iterator[None]:
    """Log any error of the block: a failed task of the group would end all others and the service."""
    try:
        yield
    except Exception:  # A failure of one dialogue must not end the others.
        _log.exception(event)


class Branch(msgspec.Struct, frozen=True):
    """The beginning of a conversation, from which another one continues.

    Args:
        source: The channel of the conversation.
        before: The position of the first event that does not belong to the beginning.
    """

    source: str
    before: Position


class _Question(msgspec.Struct, frozen=True):
    """A visitor's question."""

    channel: str
    holder: str
    """The holder of the channel's lease."""
    request_id: str
    address: str
    session: str = ""
    """The session whose conversation it is."""
    model: str | None = None
    prompt: str | None = None
    """The question; None repeats the last one."""
    branch: "Branch | None" = None


def clean_prompt(text: str) -> str:
    """Return a visitor's text without invisible characters and surrounding blanks, in NFC, with line feeds.

    Invisible characters can make a text look like another one:
    https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing. HTML is escaped in rendering.
    """
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    return normalize("NFC", text).strip()

"""One turn of a dialogue: the question is sent to the model, and the answer is published on the channel.

It runs in a separate task, so that closing the page does not end it. It ends when the model has finished,
when a stop is requested, when it takes too long, or when the service shuts down. Text received by then is
shown.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from proxy.chat import notices
from proxy.chat.channels import Channels
from proxy.chat.deltas import Delta, DeltaReader, EventSplitter, Finish
from proxy.chat.notices import Failure, Notice
from proxy.chat.publisher import Publisher
from proxy.chat.states import DialogueState
from proxy.chat.upstream import ChatUpstream, Message, ModelAnswer
from proxy.errors import ProxyError
from proxy.redis_connection import StoreUnavailable
from proxy.task_groups import task_group
from proxy.telemetry import get_logger
from proxy.wire.event_stream import HEARTBEAT

WHOLE_BYTES_MAX: Final = 1 << 20
"""Limit for an answer that is not streamed, and for one event."""

Ending = Literal["requested", "lost", "outage", "closing", "late"]
"""A stop was requested; the lease was lost; Redis has been away for too long; the service shuts down; the
time is over."""
_ENDING_NOTICES: Final[dict[Ending, Notice | None]] = {
    "requested": None,
    "lost": notices.CUT_OFF,
    "outage": notices.CUT_OFF,
    "closing": notices.RESTARTING,
    "late": notices.TIMED_OUT,
}

_log: Final = get_logger("chat")


@dataclass(slots=True, eq=False)
class Dialogue:
    """A question and its answer.

    Args:
        history: The messages that precede the question.
        request_id: The id of the visitor's request, for the log.
        publisher: Publishes the answer.
        seconds: How long the answer may take.
    """

    channel: str
    prompt: str
    history: Sequence[Message]
    request_id: str
    publisher: Publisher
    seconds: float
    model: str
    _timeout: asyncio.Timeout = field(init=False)
    _ending: Ending | None = None

    def __post_init__(self) -> None:
        self._timeout = asyncio.timeout(None)

    def end(self, reason: Ending) -> None:
        """End it now, or as soon as it starts. Only the first reason counts."""
        if self._ending is None:
            self._ending = reason
            with contextlib.suppress(RuntimeError):  # it has not started, or it is over
                self._timeout.reschedule(0)

    async def run(self, upstream: ChatUpstream, channels: Channels) -> DialogueState:
        """Ask the model and publish its answer; return the final state, which is not published yet.

        Raises:
            StoreUnavailable, BrokerClosed, LeaseLost: Nothing can be published any more.
        """
        error = await self._run_until_stopped(upstream, channels)
        await self.publisher.flush()
        if error is not None:
            await self.publisher.publish_error(error)
            return "failed"
        return "done" if self._ending is None else "stopped"

    async def _run_until_stopped(self, upstream: ChatUpstream, channels: Channels) -> Notice | None:
        async with task_group() as group:
            watch = group.create_task(self._watch_for_stop(channels))
            try:
                return await self._run_in_time(upstream)
            finally:
                watch.cancel()

    async def _watch_for_stop(self, channels: Channels) -> None:
        """End the dialogue when a stop is requested."""
        try:
            self.end(await channels.wait_for_stop(self.channel))
        except StoreUnavailable:
            _log.warning("chat_stop_watch_failed")

    async def _run_in_time(self, upstream: ChatUpstream) -> Notice | None:
        """Return why it failed, or None if there was no error or a stop was requested."""
        loop = asyncio.get_running_loop()
        try:
            async with self._timeout as timeout:
                timeout.reschedule(loop.time() + (self.seconds if self._ending is None else 0))
                return await self._ask(upstream)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            self._ending = self._ending or "late"
            return _ENDING_NOTICES[self._ending]
        except ProxyError as error:
            return notices.explain(error)

    async def _ask(self, upstream: ChatUpstream) -> Notice | None:
        question = Message(role="user", content=self.prompt)
        async with upstream.ask([*self.history, question], self.request_id, self.model) as answer:
            if answer.streamed and answer.status == HTTPStatus.OK:
                failure = await self._read_stream(answer)
            else:
                failure = await self._read_whole(answer)
            if failure is not None:
                if answer.status == HTTPStatus.OK:
                    answer.note_error(failure.code)
                return failure.notice
        return None if self.publisher.has_output else notices.NO_ANSWER

    async def _read_stream(self, answer: ModelAnswer) -> Failure | None:
        splitter, reader = EventSplitter(), DeltaReader()
        async with contextlib.aclosing(answer.body):
            async for chunk in answer.body:
                if chunk == HEARTBEAT:
                    await self.publisher.pause()
                    continue
                for payload in splitter.feed(chunk):
                    if (failure := await self._read(reader, payload)) is not None:
                        return failure
        for payload in splitter.flush():
            if (failure := await self._read(reader, payload)) is not None:
                return failure
        return await self._publish([*reader.finish()])

    async def _read_whole(self, answer: ModelAnswer) -> Failure | None:
        body = bytearray()
        async with contextlib.aclosing(answer.body):
            async for chunk in answer.body:
                body += chunk
                if len(body) > WHOLE_BYTES_MAX:
                    return Failure(notices.CUT_OFF, "too_large")
        reader = DeltaReader()
        failure = await self._read(reader, bytes(body))
        if failure is None and answer.status != HTTPStatus.OK:
            return Failure(notices.REJECTED.with_number(answer.status), str(answer.status))
        return failure or await self._publish([*reader.finish()])

    async def _read(self, reader: DeltaReader, payload: bytes) -> Failure | None:
        if len(payload) > WHOLE_BYTES_MAX:
            return Failure(notices.CUT_OFF, "too_large")
        try:
            items = reader.read(payload)
        except ValueError:
            _log.warning("chat_chunk_skipped", bytes=len(payload))
            return None
        return await self._publish(items)

    async def _publish(self, items: Sequence[Delta | Failure | Finish]) -> Failure | None:
        for item in items:
            if isinstance(item, Failure):
                return item
            if isinstance(item, Delta):
                await self.publisher.add(item)
        return None

"""One turn of a dialogue: the question goes to the model, the answer comes out on the channel.

It runs in a task of its own, so that a closed page ends nothing. It ends when the model has finished, when
somebody asks it to stop, when it takes too long, or when the service goes; what was said by then is shown.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from proxy.chat import words
from proxy.chat.channels import Channels
from proxy.chat.deltas import Delta, DeltaReader, EventSplitter, Finish
from proxy.chat.failures import Failure
from proxy.chat.speaker import Speaker, State
from proxy.chat.upstream import ChatUpstream, Message, ModelAnswer
from proxy.errors import ProxyError
from proxy.redis_connection import StoreUnavailable
from proxy.task_groups import task_group
from proxy.telemetry import get_logger
from proxy.wire.event_stream import HEARTBEAT

WHOLE_BYTES_MAX: Final = 1 << 20
"""Of an answer that is not streamed, and of one event; more is not read."""

Ending = Literal["asked", "lost", "closing", "late"]
"""Somebody asked; another dialogue may have taken the channel; the service goes; it took too long."""
_TOLD: Final[dict[Ending, str | None]] = {
    "asked": None,
    "lost": words.CUT,
    "closing": words.RESTARTING,
    "late": words.SLOW,
}

_log: Final = get_logger("chat")


@dataclass(slots=True, eq=False)
class Dialogue:
    """A question on its way to its answer.

    Args:
        channel: Where it is asked and answered.
        prompt: The question.
        before: The messages that stand before it.
        request_id: Of the request that asked, for the log.
        speaker: Its voice.
        seconds: How long the answer may take.
    """

    channel: str
    prompt: str
    before: Sequence[Message]
    request_id: str
    speaker: Speaker
    seconds: float
    _life: asyncio.Timeout = field(init=False)
    _ending: Ending | None = None

    def __post_init__(self) -> None:
        self._life = asyncio.timeout(None)

    def end(self, reason: Ending) -> None:
        """End it now, or as soon as it begins; the first reason counts."""
        if self._ending is None:
            self._ending = reason
            with contextlib.suppress(RuntimeError):  # it has not begun, or it is over
                self._life.reschedule(0)

    async def run(self, upstream: ChatUpstream, channels: Channels) -> State:
        """Ask, and show what comes; how it ended, which is still to be told.

        Raises:
            StoreUnavailable, BrokerClosed: nothing can be shown any more.
        """
        trouble = await self._watched(upstream, channels)
        await self.speaker.flush()
        if trouble is not None:
            await self.speaker.say("error", trouble)
            return "failed"
        return "done" if self._ending is None else "stopped"

    async def _watched(self, upstream: ChatUpstream, channels: Channels) -> str | None:
        async with task_group() as group:
            watch = group.create_task(self._watch(channels))
            try:
                return await self._bounded(upstream)
            finally:
                watch.cancel()

    async def _watch(self, channels: Channels) -> None:
        """Hear when somebody asks to stop."""
        try:
            self.end(await channels.stop_asked(self.channel))
        except StoreUnavailable:
            _log.warning("chat_stop_unheard")

    async def _bounded(self, upstream: ChatUpstream) -> str | None:
        """What went wrong, in words; None where nothing did, or somebody asked to stop."""
        loop = asyncio.get_running_loop()
        try:
            async with self._life as life:
                life.reschedule(loop.time() + (self.seconds if self._ending is None else 0))
                return await self._converse(upstream)
        except TimeoutError:
            if not self._life.expired():
                raise
            self._ending = self._ending or "late"
            return _TOLD[self._ending]
        except ProxyError as error:
            return words.explain(error)

    async def _converse(self, upstream: ChatUpstream) -> str | None:
        messages = [*self.before, Message(role="user", content=self.prompt)]
        async with upstream.ask(messages, self.request_id) as answer:
            if answer.streamed and answer.status == HTTPStatus.OK:
                failure = await self._hear_stream(answer)
            else:
                failure = await self._hear_whole(answer)
            if failure is not None:
                if answer.status == HTTPStatus.OK:
                    answer.record.end("error_inside", failure.code)
                return failure.message
        return None if self.speaker.spoke else words.SILENT

    async def _hear_stream(self, answer: ModelAnswer) -> Failure | None:
        splitter, reader = EventSplitter(), DeltaReader()
        async with contextlib.aclosing(answer.body):
            async for chunk in answer.body:
                if chunk == HEARTBEAT:
                    await self.speaker.pause()
                    continue
                for payload in splitter.feed(chunk):
                    if (failure := await self._hear(reader, payload)) is not None:
                        return failure
        for payload in splitter.flush():
            if (failure := await self._hear(reader, payload)) is not None:
                return failure
        return await self._tell([*reader.finish()])

    async def _hear_whole(self, answer: ModelAnswer) -> Failure | None:
        body = bytearray()
        async with contextlib.aclosing(answer.body):
            async for chunk in answer.body:
                body += chunk
                if len(body) > WHOLE_BYTES_MAX:
                    return Failure(words.CUT, "too_large")
        reader = DeltaReader()
        failure = await self._hear(reader, bytes(body))
        if failure is None and answer.status != HTTPStatus.OK:
            return Failure(words.REFUSED.format(status=answer.status), str(answer.status))
        return failure or await self._tell([*reader.finish()])

    async def _hear(self, reader: DeltaReader, payload: bytes) -> Failure | None:
        if len(payload) > WHOLE_BYTES_MAX:
            return Failure(words.CUT, "too_large")
        try:
            told = reader.read(payload)
        except ValueError:
            _log.warning("chat_chunk_skipped", bytes=len(payload))
            return None
        return await self._tell(told)

    async def _tell(self, told: Sequence[Delta | Failure | Finish]) -> Failure | None:
        for item in told:
            if isinstance(item, Failure):
                return item
            if isinstance(item, Delta):
                await self.speaker.hear(item)
        return None

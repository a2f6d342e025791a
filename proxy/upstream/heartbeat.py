"""Let a caller hear something while the upstream still thinks about its first byte.

The first heartbeat commits the status 200 and the headers of an event stream: what fails afterwards can only
be told by an event. So this is for callers that would rather have that than silence.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from http import HTTPStatus
from typing import Final

from proxy.errors import BadResponse, ErrorEnvelope, InternalError, ProxyError
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.upstream.relay import Answer
from proxy.wire.endpoints import Endpoint, StreamEnd
from proxy.wire.error_envelope import error_event, read_error
from proxy.wire.event_stream import EVENT_STREAM, HEARTBEAT
from proxy.wire.headers import Headers, find_header, media_type, response_headers

_WHOLE_BYTES_MAX: Final = 64 * 1024
"""As much of an error's body as is looked at."""
_HEADERS: Final[Headers] = [(b"content-type", EVENT_STREAM + b"; charset=utf-8")]


class Heartbeat:
    """Wait for an answer, and beat if that takes long.

    Args:
        seconds: Of silence before each beat.
        endpoint: Of the request; it decides what an error event looks like.
        record: Of the request.
    """

    def __init__(self, seconds: float, endpoint: Endpoint, record: ExchangeRecord) -> None:
        self._seconds = seconds
        self._endpoint = endpoint
        self._record = record

    async def open(
        self,
        opening: Coroutine[None, None, Answer],
        group: asyncio.TaskGroup,
        closing: contextlib.AsyncExitStack,
    ) -> Answer:
        """The answer, if it comes before the first beat is due; else a stream that beats until it does.

        Args:
            opening: What waits for the answer.
            group: Runs it beside the stream.
            closing: Of the exchange; ends it.

        Raises:
            ProxyError: it failed before the first beat was due.
        """
        task = group.create_task(_outcome(opening))
        closing.push_async_callback(_cancelled, task)
        done, _ = await asyncio.wait({task}, timeout=self._seconds)
        if done:
            outcome = task.result()
            if isinstance(outcome, ProxyError):
                raise outcome
            return outcome
        headers = response_headers(_HEADERS, event_stream=True)
        return Answer(HTTPStatus.OK, headers, self._beat(task))

    async def _beat(self, task: "asyncio.Task[Answer | ProxyError]") -> AsyncGenerator[bytes]:
        done: set[asyncio.Task[Answer | ProxyError]] = set()
        while not done:
            self._record.count_heartbeat(HEARTBEAT)
            yield HEARTBEAT
            done, _ = await asyncio.wait({task}, timeout=self._seconds)
        outcome = task.result()
        if isinstance(outcome, ProxyError):
            yield self._failed(outcome)
            return
        content_type = find_header(outcome.headers, b"content-type")
        if outcome.status == HTTPStatus.OK and media_type(content_type) == EVENT_STREAM:
            async with contextlib.aclosing(_pieces(outcome)) as pieces:
                async for chunk in pieces:
                    yield chunk
            return
        yield await self._told(outcome)

    async def _told(self, answer: Answer) -> bytes:
        """An answer that is no stream, as an event: its own error where it holds one."""
        body = b""
        with contextlib.suppress(ProxyError):
            async with contextlib.aclosing(_pieces(answer)) as pieces:
                async for chunk in pieces:
                    body += chunk
                    if len(body) > _WHOLE_BYTES_MAX:
                        break
        self._record.discard_attempt()
        error = BadResponse(reason=f"no stream but a {answer.status}, after a heartbeat")
        return self._failed(error, read_error(body))

    def _failed(self, error: ProxyError, envelope: ErrorEnvelope | None = None) -> bytes:
        self._record.fail(error)
        event = error_event(envelope or error.envelope(), named=self._endpoint.stream is StreamEnd.RESPONSE)
        self._record.count_bytes_sent(event)
        return event


async def _outcome(opening: Coroutine[None, None, Answer]) -> Answer | ProxyError:
    """Errors as values: out of a task group they would come wrapped, and would end what runs beside it."""
    try:
        return await opening
    except ProxyError as error:
        return error
    except Exception as error:
        get_logger("proxy").exception("defect")
        return InternalError(reason=type(error).__name__)


async def _cancelled(task: "asyncio.Task[Answer | ProxyError]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _pieces(answer: Answer) -> AsyncGenerator[bytes]:
    if isinstance(answer.body, bytes):
        yield answer.body
        return
    async with contextlib.aclosing(answer.body) as body:
        async for chunk in body:
            yield chunk

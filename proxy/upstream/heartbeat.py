"""Send a caller heartbeats while the upstream has not sent its first byte.

The first heartbeat commits status 200 and the headers of an event stream; a later failure can only be
reported by an event. Use it for callers that need an early byte more than a true status.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from http import HTTPStatus
from typing import Final

from proxy.errors import BadResponse, ErrorEnvelope, InternalError, ProxyError
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.upstream.relay import RelayedResponse
from proxy.wire.endpoints import Endpoint, StreamEnd
from proxy.wire.error_envelope import error_event, read_error
from proxy.wire.event_stream import EVENT_STREAM, HEARTBEAT, is_event_stream
from proxy.wire.headers import Headers, content_coding, response_headers

_WHOLE_BYTES_MAX: Final = 64 * 1024
"""An error's body is read up to this length."""
_HEADERS: Final[Headers] = [(b"content-type", EVENT_STREAM + b"; charset=utf-8")]


class Heartbeat:
    """Waits for a response, and sends heartbeats meanwhile.

    Args:
        seconds: The silence before each heartbeat, in seconds.
        endpoint: The endpoint, which decides the format of an error event.
        record: The record of the exchange.
    """

    def __init__(self, seconds: float, endpoint: Endpoint, record: ExchangeRecord) -> None:
        self._seconds = seconds
        self._endpoint = endpoint
        self._record = record

    async def open(
        self,
        opening: Coroutine[None, None, RelayedResponse],
        group: asyncio.TaskGroup,
        closing: contextlib.AsyncExitStack,
    ) -> RelayedResponse:
        """Return the response if it begins soon enough, else a stream of heartbeats followed by the response.

        Args:
            opening: Waits for the response.
            group: Owns the task of `opening`.
            closing: Cancels that task at the end of the exchange.

        Raises:
            ProxyError: The request failed before the first heartbeat was due.
        """
        opened: asyncio.Future[RelayedResponse] = asyncio.get_running_loop().create_future()
        task = group.create_task(_open(opening, opened))
        closing.push_async_callback(_cancel, task, opened)
        await asyncio.wait({opened}, timeout=self._seconds)
        if opened.done():
            return opened.result()
        headers = response_headers(_HEADERS, event_stream=True)
        return RelayedResponse(HTTPStatus.OK, headers, self._beat(opened))

    async def _beat(self, opened: "asyncio.Future[RelayedResponse]") -> AsyncGenerator[bytes]:
        while not opened.done():
            self._record.count_heartbeat(HEARTBEAT)
            yield HEARTBEAT
            await asyncio.wait({opened}, timeout=self._seconds)
        try:
            response = opened.result()
        except ProxyError as error:
            yield self._failed(error)
            return
        if response.status != HTTPStatus.OK or not is_event_stream(response.headers):
            yield await self._as_event(response)
        elif content_coding(response.headers):  # The headers are already sent, and announce no compression.
            self._record.discard_attempt()
            yield self._failed(BadResponse(reason="a compressed stream, after a heartbeat"))
        else:
            async with contextlib.aclosing(_pieces(response)) as pieces:
                async for chunk in pieces:
                    yield chunk

    async def _as_event(self, response: RelayedResponse) -> bytes:
        """Return a response that is not a stream as an error event, with its own error if it has one."""
        body = bytearray()
        with contextlib.suppress(ProxyError):
            async with contextlib.aclosing(_pieces(response)) as pieces:
                async for chunk in pieces:
                    body += chunk
                    if len(body) > _WHOLE_BYTES_MAX:
                        break
        self._record.discard_attempt()
        error = BadResponse(reason=f"no stream but a {response.status}, after a heartbeat")
        return self._failed(error, read_error(response.redact(bytes(body))))

    def _failed(self, error: ProxyError, envelope: ErrorEnvelope | None = None) -> bytes:
        self._record.fail(error)
        event = error_event(envelope or error.envelope(), named=self._endpoint.stream is StreamEnd.RESPONSE)
        self._record.count_bytes_sent(event)
        return event


async def _open(
    opening: Coroutine[None, None, RelayedResponse], opened: "asyncio.Future[RelayedResponse]"
) -> None:
    """Pass the response or the error to a future: an error in the task group would end the whole request."""
    try:
        opened.set_result(await opening)
    except ProxyError as error:
        opened.set_exception(error)
    except Exception as error:  # In the task group it would end the whole request.
        get_logger("proxy").exception("defect")
        opened.set_exception(InternalError(reason=type(error).__name__))


async def _cancel(task: "asyncio.Task[None]", opened: "asyncio.Future[RelayedResponse]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if opened.done():
        opened.exception()  # A caller who has left reads no error.


async def _pieces(response: RelayedResponse) -> AsyncGenerator[bytes]:
    if isinstance(response.body, bytes):
        yield response.body
        return
    async with contextlib.aclosing(response.body) as body:
        async for chunk in body:
            yield chunk

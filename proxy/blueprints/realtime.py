"""The WebSocket connection between server and application: `/v1/realtime`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart.asgi import ASGIWebsocketConnection

from proxy.app_parts import app_parts
from proxy.errors import Aborted, BadResponse, InternalError, NotFound, ProxyError
from proxy.lifecycle import ExchangeScope, admit_caller, admit_request
from proxy.request_body import Holding
from proxy.services import Services
from proxy.task_groups import task_group
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.duplex import Duplex
from proxy.upstream.requests import CallerRequest, UpstreamRequest
from proxy.upstream.transport import UpstreamResponse
from proxy.upstream.websocket import REJECTION_BYTES_MAX
from proxy.wire.error_envelope import error_body, error_headers
from proxy.wire.headers import Headers, choose_request_id, find_header, request_headers, response_headers
from proxy.wire.paths import Target, check_target, find_target, loggable_path
from proxy.wire.websocket import (
    INTERNAL,
    LOST,
    Close,
    PartialMessage,
    find_model,
    message_size,
    rename_model,
    split_subprotocols,
    without_handshake,
)


class CallerSocket:
    """The caller's side of a WebSocket, over ASGI."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive = receive
        # ASGI lets events omit keys that hypercorn's types require.
        self._send = cast(Callable[[Mapping[str, object]], Awaitable[None]], send)
        self._gone: Close | None = None
        self._accepted = self._ended = False

    async def receive(self, hold: Callable[[int], None]) -> str | bytes | Close:
        """Return the next message, or the caller's close; further calls return the close again.

        Args:
            hold: Counts the bytes of the message as they arrive. If it raises, the message is lost, and only
                `wait_closed` may follow.
        """
        partial = PartialMessage()
        while not isinstance(event := await self._next_event(), Close):
            if event["type"] == "websocket.receive":
                text: str | None = event.get("text")
                piece = cast(bytes, event["bytes"]) if text is None else text
                hold(message_size(piece))
                # `more` is a key of our server; others wait for the whole message.
                message = partial.add(piece, more=event.get("more", False))
                if message is not None:
                    return message
        return event

    async def wait_closed(self) -> Close:
        """Drop all further messages, and return the caller's close."""
        while not isinstance(event := await self._next_event(), Close):
            pass
        return event

    async def _next_event(self) -> Mapping[str, Any] | Close:
        """Return the next event, or the caller's close.

        A caller that disconnects without a close frame has code 1006 (RFC 6455 7.1.5).
        """
        if self._gone is None:
            event = cast(Mapping[str, Any], await self._receive())
            if event["type"] != "websocket.disconnect":
                return event
            self._gone = Close(event.get("code") or LOST, event.get("reason") or "")
        return self._gone

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Complete the handshake (RFC 6455 4.2.2).

        Args:
            subprotocol: The one that the upstream chose; None if it chose none.
            headers: Further headers of the 101.
        """
        self._accepted = True
        await self._write({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    async def send(self, message: str | bytes) -> None:
        """Send a message after the caller has taken the previous ones."""
        kind = "text" if isinstance(message, str) else "bytes"
        await self._write({"type": "websocket.send", kind: message})

    async def close(self, close: Close) -> None:
        """Close the WebSocket; further calls do nothing."""
        if not self._ended:
            self._ended = True
            await self._write({"type": "websocket.close", "code": close.code, "reason": close.reason})

    async def reject(self, status: int, headers: Headers, body: bytes) -> None:
        """Reject the handshake with an HTTP response, or close an accepted WebSocket with 1011."""
        if self._accepted:
            await self.close(Close(INTERNAL))
            return
        dropped = {b"content-length", b"content-encoding"} if not body else {b"content-length"}
        kept = [pair for pair in headers if pair[0] not in dropped]
        kept += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await self._write({"type": "websocket.http.response.start", "status": status, "headers": kept})
        await self._write({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def _write(self, event: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # The caller has left; `receive` reports it.
            await self._send(event)


class RealtimeConnection(ASGIWebsocketConnection):
    """Serves one WebSocket in the server's task, because Quart's own connection queues without a bound."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Accept or reject the handshake, and relay messages until one side closes.

        An error before the upstream's response rejects the handshake with its status and the error envelope.
        """
        path = loggable_path(self.scope["raw_path"])
        record = ExchangeRecord(choose_request_id(self.scope["headers"]), "GET", path)
        caller = CallerSocket(receive, send)
        async with ExchangeScope(record, self._current_services, list(self.scope["headers"])) as exchange:
            try:
                # An upstream's connection must not wait until the caller has read a rejection.
                async with exchange.closing:
                    await self._serve(caller, exchange)
            except ProxyError as error:
                exchange.begin_response()
                await _reject(caller, record, error)
            except Exception as error:  # Our own fault: the log gets the traceback, the caller a plain 500.
                get_logger("proxy").exception("defect")
                await _reject(caller, record, InternalError(reason=type(error).__name__))

    def _current_services(self) -> Services:
        return app_parts(self.app).snapshots.current

    async def _serve(self, caller: CallerSocket, exchange: ExchangeScope) -> None:
        services, record, closing = exchange.services, exchange.record, exchange.closing
        request, subprotocols = await self._admit(exchange)
        route = services.routing.choose(request.endpoint, request.model, request.caller)
        record.upstream = route.upstream
        clock = ExchangeClock(route.timeouts)
        closing.enter_context(services.worker.drain.watch(clock))
        headers = request_headers(self.scope["headers"], request_id=record.request_id)
        if record.span is not None:
            names = (route.upstream, request.endpoint.name, request.model)
            headers = closing.enter_context(record.span.attempt(*names, record.fields)).propagate(headers)
        query = request.query
        outgoing = UpstreamRequest(
            method=request.method,
            path=request.path,
            query=query if route.rename is None else rename_model(query, route.rename),
            headers=without_handshake(headers),
            body=b"",
            clock=clock,
            subprotocols=subprotocols,
            caller=request.caller.name,
            endpoint=request.endpoint,
            model=request.model,
        )
        opening = _open(route.client.open(outgoing, record), clock, closing)
        handshake = await _await_response(caller, opening)
        if handshake is None:
            record.end("client_gone")
            return
        exchange.begin_response()
        record.headers_at = record.first_byte_at = record.now()
        record.status = handshake.response.status
        count_usage = partial(services.worker.limits.count_usage_so_far, request.caller, record)
        holding = exchange.hold_bytes(request.caller)
        await _answer(caller, handshake, clock, record, holding, request.caller.check_message, count_usage)

    async def _admit(self, exchange: ExchangeScope) -> tuple[CallerRequest, Sequence[str]]:
        """Check key, limits and permissions; return the request and the subprotocols for the upstream.

        Browsers cannot set headers, so a key may be given as a subprotocol.

        Raises:
            NotFound: The path has no WebSocket.
            CallerError: The key, its rate, or its permissions do not allow the request.
        """
        scope, record = self.scope, exchange.record
        target = self._target()
        record.endpoint = target.endpoint.name
        keys, subprotocols = split_subprotocols(scope["subprotocols"])
        presented = [*scope["headers"], *((b"x-api-key", key) for key in keys)]
        peer = (scope.get("client") or (None,))[0]
        local = (scope.get("server") or (None,))[0]
        caller = exchange.services.access.identify(presented, peer, local)
        await admit_caller(exchange, caller)
        model = find_model(scope["query_string"])
        request = CallerRequest(
            request_id=record.request_id,
            method="GET",
            path=target.path,
            query=scope["query_string"],
            headers=[*scope["headers"]],
            caller=caller,
            endpoint=target.endpoint,
            model=model,
            outer_model=model,
        )
        await admit_request(exchange, request)
        return request, subprotocols

    def _target(self) -> Target:
        check_target(self.scope["raw_path"], self.scope["query_string"])
        target = find_target("GET", self.scope["raw_path"])
        if not target.endpoint.websocket:
            raise NotFound
        return target


class _Handshake(NamedTuple):
    """The upstream's response to the handshake, and the whole body of a rejection."""

    response: UpstreamResponse
    body: bytes


async def _open(
    opening: Awaitable[UpstreamResponse], clock: ExchangeClock, closing: contextlib.AsyncExitStack
) -> _Handshake:
    async with clock.first_byte():
        response = await opening
        closing.push_async_callback(response.aclose)
        return _Handshake(response, await _read_rejection(response))


async def _read_rejection(response: UpstreamResponse) -> bytes:
    body = bytearray()
    try:
        while chunk := await response.read():
            body += chunk
            if len(body) > REJECTION_BYTES_MAX:
                raise BadResponse(reason="the body of the rejection is too large")
    except Aborted as error:
        raise BadResponse(reason=error.reason) from error
    return bytes(body)


async def _await_response(caller: CallerSocket, opening: Awaitable[_Handshake]) -> _Handshake | None:
    """Return the upstream's response; None if the caller disconnects before it."""
    presence = asyncio.timeout(None)  # used as a scope that can be cancelled from the listener

    async def listen() -> None:
        await caller.wait_closed()  # Before the handshake is answered only a disconnect can arrive.
        presence.reschedule(0)

    async with task_group() as group:
        listener = group.create_task(listen())
        try:
            async with presence:
                return await opening
        except TimeoutError:
            return None
        finally:
            listener.cancel()


async def _answer(
    caller: CallerSocket,
    handshake: _Handshake,
    clock: ExchangeClock,
    record: ExchangeRecord,
    holding: Holding,
    check: Callable[[str | bytes], Awaitable[None]],
    count_usage: Callable[[], Awaitable[None]],
) -> None:
    response = handshake.response
    upstream_id = find_header(response.headers, b"x-request-id")
    record.upstream_request_id = None if upstream_id is None else upstream_id.decode("latin-1")[:128]
    headers = without_handshake(response_headers(response.headers, event_stream=False))
    headers.append((b"x-request-id", record.request_id.encode()))
    if response.socket is None:
        record.count_bytes_sent(handshake.body)
        await caller.reject(response.status, headers, handshake.body)
        return
    record.status = HTTPStatus.SWITCHING_PROTOCOLS
    record.succeeded = True
    headers = [pair for pair in headers if pair[0] not in {b"content-length", b"content-type"}]
    await caller.accept(response.socket.subprotocol, headers)
    duplex = Duplex(
        caller,
        response.socket,
        clock,
        record,
        holding,
        mask=response.mask,
        check=check,
        count_usage=count_usage,
    )
    await duplex.relay()


async def _reject(caller: CallerSocket, record: ExchangeRecord, error: ProxyError) -> None:
    record.status = record.status or error.status
    record.fail(error)
    headers = [*error_headers(error.headers), (b"x-request-id", record.request_id.encode())]
    await caller.reject(error.status, headers, error_body(error.envelope()))

"""The WebSocket between server and application: `/v1/realtime`, authenticated here, relayed both ways."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart.asgi import ASGIWebsocketConnection

from proxy.access import Caller
from proxy.errors import InternalError, NotFound, ProxyError
from proxy.generations import Generations
from proxy.services import Services
from proxy.telemetry import ExchangeRecord, get_logger, request_context
from proxy.upstream.client import UpstreamRequest, UpstreamResponse
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.duplex import Duplex
from proxy.wire.endpoints import Endpoint
from proxy.wire.headers import Headers, choose_request_id, find_header, request_headers, response_headers
from proxy.wire.paths import Target, check_target, find_target
from proxy.wire.request_model import SeenRequest
from proxy.wire.websocket import (
    INTERNAL,
    LOST,
    Close,
    find_model,
    rename_model,
    split_subprotocols,
    without_handshake,
)

_log: Final = get_logger("exchange")


class CallerSocket:
    """The caller's side of a WebSocket, as ASGI has it."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive, self._send = receive, cast(Any, send)
        self._gone: Close | None = None
        self._accepted = self._ended = False

    async def receive(self) -> str | bytes | Close:
        """The next message, or how the caller closed, then and ever after."""
        while self._gone is None:
            event: Any = await self._receive()
            if event["type"] == "websocket.receive":
                text: str | None = event.get("text")
                return cast(bytes, event["bytes"]) if text is None else text
            if event["type"] == "websocket.disconnect":
                self._gone = Close(event.get("code") or LOST, event.get("reason") or "")
        return self._gone

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer the handshake."""
        self._accepted = True
        await self._write({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    async def send(self, message: str | bytes) -> None:
        """Send a message, once the caller has taken those before."""
        kind = "text" if isinstance(message, str) else "bytes"
        await self._write({"type": "websocket.send", kind: message})

    async def close(self, close: Close) -> None:
        """Close it; after the first time nothing happens."""
        if not self._ended:
            self._ended = True
            await self._write({"type": "websocket.close", "code": close.code, "reason": close.reason})

    async def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the handshake with an HTTP answer, or close what was accepted."""
        if self._accepted:
            await self.close(Close(INTERNAL))
            return
        dropped = {b"content-length", b"content-encoding"} if not body else {b"content-length"}
        kept = [pair for pair in headers if pair[0] not in dropped]
        kept += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await self._write({"type": "websocket.http.response.start", "status": status, "headers": kept})
        await self._write({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def _write(self, event: object) -> None:
        with contextlib.suppress(OSError):  # gone; `receive` says so as well
            await self._send(event)


class RealtimeConnection(ASGIWebsocketConnection):
    """Serve one WebSocket in the task that the server gave it; Quart's own queues without a bound."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the handshake, relay, close whatever was opened, write the log line."""
        record = ExchangeRecord(choose_request_id(self.scope["headers"]), "GET", self.scope["path"])
        caller = CallerSocket(receive, send)
        with request_context(record.request_id):
            try:
                async with contextlib.AsyncExitStack() as closing:
                    await self._serve(caller, record, closing)
                record.outcome = record.outcome or "ok"
            except ProxyError as error:
                await _refuse(caller, record, error)
            except Exception as error:  # our own fault: the log gets the traceback, the caller a plain 500
                get_logger("proxy").exception("defect")
                await _refuse(caller, record, InternalError(reason=type(error).__name__))
            finally:
                record.outcome = record.outcome or "client_gone"
                _log.info("exchange", **record.fields())

    async def _serve(
        self, caller: CallerSocket, record: ExchangeRecord, closing: contextlib.AsyncExitStack
    ) -> None:
        generations: Generations = self.app.extensions["proxy"]
        own = generations.current
        closing.enter_context(own.users.one())
        target = self._target()
        record.endpoint = target.endpoint.name
        admitted, subprotocols = await self._admit(own, record, target, closing)
        route = own.routing.choose(target.endpoint, record.model, record.caller)
        record.upstream = route.upstream
        clock = ExchangeClock(route.timeouts)
        closing.enter_context(own.drain.watch(clock))
        query = self.scope["query_string"]
        headers = request_headers(self.scope["headers"], request_id=record.request_id)
        request = UpstreamRequest(
            method="GET",
            path=target.path,
            query=query if route.rename is None else rename_model(query, route.rename),
            headers=without_handshake(headers),
            body=b"",
            clock=clock,
            subprotocols=subprotocols,
            endpoint=target.endpoint,
            model=record.model,
        )
        opening = clock.first_byte(_open(route.client.open(request, record), closing))
        response = await _unless_gone(caller, opening)
        if response is None:
            record.outcome = "client_gone"
            return
        record.headers_at = record.first_byte_at = record.now()
        record.status = response.status
        check = partial(own.limits.check_message, admitted)
        await _answer(caller, response, clock, record, check)

    async def _admit(
        self, own: Services, record: ExchangeRecord, target: Target, closing: contextlib.AsyncExitStack
    ) -> tuple[Caller, Sequence[str]]:
        """Check key and limits as those of every request; return the caller and the subprotocols to send."""
        scope = self.scope
        keys, subprotocols = split_subprotocols(scope["subprotocols"])
        presented = [*scope["headers"], *((b"x-api-key", key) for key in keys)]
        peer = (scope.get("client") or (None,))[0]
        local = (scope.get("server") or (None,))[0]
        caller = own.access.identify(presented, peer, local)
        record.caller = caller.name
        await own.limits.count_request(caller)
        own.limits.check_endpoint(caller, target.endpoint)
        record.model = find_model(scope["query_string"])
        seen = SeenRequest(
            endpoint=target.endpoint,
            outer_model=record.model,
            query=scope["query_string"],
            headers=without_handshake([*scope["headers"]]),
        )
        own.limits.check_models(caller, seen)
        closing.enter_context(own.limits.stream(caller))
        closing.push_async_callback(_count_usage, own, caller, record, target.endpoint)
        return caller, subprotocols

    def _target(self) -> Target:
        check_target(self.scope["raw_path"], self.scope["query_string"])
        target = find_target("GET", self.scope["raw_path"])
        if not target.endpoint.websocket:
            raise NotFound
        return target


async def _count_usage(own: Services, caller: Caller, record: ExchangeRecord, endpoint: Endpoint) -> None:
    if record.prompt_tokens is not None:
        names = (caller.name, record.model or "", record.upstream or "")
        own.usage.add(*names, record.prompt_tokens, record.completion_tokens or 0)
    await own.limits.count_usage(caller, record, endpoint)


async def _open(opening: Any, closing: contextlib.AsyncExitStack) -> UpstreamResponse:
    response: UpstreamResponse = await opening
    closing.push_async_callback(response.aclose)
    return response


async def _unless_gone(caller: CallerSocket, opening: Any) -> UpstreamResponse | None:
    """What the upstream answers; nothing if the caller leaves before."""
    presence = asyncio.timeout(None)  # used as a scope that can be cancelled from the listener
    response: UpstreamResponse | None = None
    error: ProxyError | None = None

    async def listen() -> None:
        await caller.receive()  # before the handshake is answered only a disconnect can come
        presence.reschedule(0)

    async with asyncio.TaskGroup() as group:
        listener = group.create_task(listen())
        try:
            async with presence:
                response = await opening
        except TimeoutError:
            return None
        except ProxyError as failure:  # out of the group it would be wrapped
            error = failure
        finally:
            listener.cancel()
    if error is not None:
        raise error
    return response


async def _answer(
    caller: CallerSocket,
    response: UpstreamResponse,
    clock: ExchangeClock,
    record: ExchangeRecord,
    check: Callable[[str | bytes], None],
) -> None:
    upstream_id = find_header(response.headers, b"x-request-id")
    record.upstream_request_id = None if upstream_id is None else upstream_id.decode("latin-1")[:128]
    headers = without_handshake(response_headers(response.headers, event_stream=False))
    headers.append((b"x-request-id", record.request_id.encode()))
    if response.socket is None:
        body = b""
        while chunk := await response.read():
            body += chunk
        record.went_down(body)
        await caller.refuse(response.status, headers, body)
        return
    record.status = HTTPStatus.SWITCHING_PROTOCOLS
    record.answered = True
    headers = [pair for pair in headers if pair[0] not in {b"content-length", b"content-type"}]
    await caller.accept(response.socket.subprotocol, headers)
    duplex = Duplex(caller, response.socket, clock, record, redact=response.redact, check=check)
    await duplex.relay()


async def _refuse(caller: CallerSocket, record: ExchangeRecord, error: ProxyError) -> None:
    record.status = record.status or error.status
    record.fail(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", record.request_id.encode()),
        *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await caller.refuse(error.status, headers, msgspec.json.encode(error.envelope()))

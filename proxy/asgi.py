"""The HTTP connection between server and application, where it must differ from Quart's.

It runs each request inside its `ExchangeScope`, so that everything opened for it is closed when its task
ends, also when the caller leaves before the body began. A body that breaks aborts the connection.
"""

import asyncio
import contextlib
from typing import Any, Final, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Quart, Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes
from quart.wrappers import BaseRequestWebsocket
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter

from proxy.config_snapshots import ConfigSnapshots
from proxy.errors import InternalError
from proxy.lifecycle import CallerGone, ExchangeScope
from proxy.request_body import BoundedBody
from proxy.services import Services
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.wire.error_envelope import error_body
from proxy.wire.headers import choose_request_id

_log: Final = get_logger("exchange")


class ProxyRequest(Request):
    """A request with the bytes that arrived, and the scope of its exchange."""

    body_class = BoundedBody  # type: ignore[assignment]  # the same public interface, but no subclass of Quart's
    body: BoundedBody  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scope: HTTPScope = self.scope  # type: ignore[assignment]  # a request's scope is never a WebSocket's
        self.raw_headers = list(scope["headers"])
        self.raw_path = scope["raw_path"]
        self.peer = (scope.get("client") or (None,))[0]
        self.local_address = (scope.get("server") or (None,))[0]
        self.body.timeout = self.body_timeout
        self.body.withheld = any(name == b"expect" for name, _ in self.raw_headers)
        self.is_public = False
        """Whether its view needs no key; set when the request is checked."""
        self.answered = False
        """Whether all of the answer has been handed to the server."""
        self.group: asyncio.TaskGroup
        """Runs further tasks of this request; set before the request is handled."""
        self.exchange: ExchangeScope
        """Set by the connection before the request is handled."""


class ProxyConnection(ASGIHTTPConnection):
    """Serve one request in the task of the server, next to one task that listens for the caller.

    Quart's connection runs two tasks and ends when the first of them ends, or, from 0.23 on, when both have;
    neither can abort a response.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        request = self._request()
        async with asyncio.TaskGroup() as group:
            request.group = group
            presence = asyncio.timeout(None)  # used as a scope that can be cancelled from the listener
            listener = group.create_task(_listen(request, receive, presence))
            try:
                async with presence:
                    await self.handle_request(request, send)
            except TimeoutError:
                pass  # the caller has left
            finally:
                listener.cancel()

    def _request(self) -> ProxyRequest:
        """Build the request from any target and any header bytes; malformed ones are refused later."""
        scope, config = self.scope, self.app.config
        headers = Headers(
            [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in scope["headers"]]
        )
        path = scope["path"]
        request = ProxyRequest(
            scope["method"],
            scope["scheme"],
            path if path.startswith("/") else "/",  # such a target is refused by its raw path
            scope["query_string"],
            headers,
            scope.get("root_path", ""),
            scope["http_version"],
            scope,
            max_content_length=config["MAX_CONTENT_LENGTH"],
            body_timeout=config["BODY_TIMEOUT"],
            send_push_promise=_no_push,
        )
        record = ExchangeRecord(choose_request_id(request.raw_headers), scope["method"], path)
        request.exchange = ExchangeScope(record, self._current_services)
        return request

    def _current_services(self) -> Services:
        snapshots: ConfigSnapshots = self.app.extensions["proxy"]
        return snapshots.current

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """Answer the request inside its scope."""
        request = cast(ProxyRequest, request)
        # An error here has been logged, and the status has been sent: only a body without an end can still
        # show that something failed.
        with contextlib.suppress(Exception):
            async with request.exchange:
                await super().handle_request(request, _to_caller(request, send))
                request.answered = True


def _to_caller(request: ProxyRequest, send: ASGISendCallable) -> ASGISendCallable:
    """Send headers as received, and raise `CallerGone` where the connection breaks during a write.

    The kernel cuts a caller who reads nothing, and the write fails with a TimeoutError, which Quart would
    take for one of its own and ignore.
    """

    async def write(message: Any) -> None:
        if message["type"] == "http.response.start":
            request.body.wanted.set()  # An answer has begun: whatever arrives now asks for no 100.
            message["headers"] = [(name, _as_received(value)) for name, value in message["headers"]]
        try:
            await send(message)
        except OSError as error:
            raise CallerGone from error

    return write


def _as_received(value: bytes) -> bytes:
    """Return the bytes of a header that is held as Latin-1 text; Quart would write UTF-8."""
    return value if value.isascii() else value.decode().encode("latin-1")


async def _listen(request: ProxyRequest, receive: ASGIReceiveCallable, presence: asyncio.Timeout) -> None:
    """Feed the body with backpressure; when the caller leaves, cancel the request."""
    if request.body.withheld:
        await request.body.wanted.wait()  # The server asks the caller for the body when it is received.
    while True:
        message: Any = await receive()
        if message["type"] == "http.request":
            await request.body.put(message.get("body", b""), last=not message.get("more_body", False))
        elif message["type"] == "http.disconnect":
            exchange = request.exchange
            reason = message.get("reason", exchange.interrupted)
            # After the last byte, only our own bookkeeping remains, so do not cancel it.
            if not request.answered and reason != "complete":
                exchange.interrupted = reason
                presence.reschedule(0)
            return


async def _no_push(_path: str, _headers: Headers) -> None:
    """Ignore server push: HTTP/1.1 has none."""


class Application(Quart):
    """Quart with these classes, and with routes that do not depend on the Host header."""

    request_class = ProxyRequest
    asgi_http_class = ProxyConnection

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Match by path and method alone. Quart parses the Host header here, outside its error handling."""
        if request is None:
            return None
        return self.url_map.bind(
            "localhost",
            request.root_path,
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
        )

    async def handle_request(self, request: Request) -> ResponseTypes:
        """Answer a request, also when Quart fails where its error handlers do not reach."""
        try:
            return await super().handle_request(request)
        except Exception as error:
            _log.exception("defect")
            failure = InternalError(reason=type(error).__name__)
            cast(ProxyRequest, request).exchange.record.fail(failure)
            body = error_body(failure.envelope())
            return Response(body, status=failure.status, content_type="application/json")

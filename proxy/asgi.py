"""The HTTP connection between server and application, where it must differ from Quart's.

It runs each request inside its `ExchangeScope`, so that everything opened for it is closed when its task
ends, even if the caller disconnects before the body starts. A body that breaks aborts the connection.

A relayed request bypasses Quart, whose request, response and context would cost more than the relay: only
its route is looked up in Quart's map. Its view is called, and the response sent, from here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, ParamSpec, TypeGuard, cast

import msgspec
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
)
from msgspec.structs import replace
from quart import Quart, Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes
from quart.wrappers import BaseRequestWebsocket
from quart.wrappers.response import IterableBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from proxy.app_parts import app_parts
from proxy.errors import InternalError
from proxy.lifecycle import CallerGone, ExchangeScope
from proxy.request_body import BoundedBody
from proxy.services import Services
from proxy.shared_tasks import OwnedTasks
from proxy.telemetry import ExchangeRecord, get_logger
from proxy.upstream.relay import RelayedResponse
from proxy.wire.disconnect import EXTENSION, DisconnectExtension, OnDisconnect, Subscribe
from proxy.wire.error_envelope import error_body
from proxy.wire.headers import choose_request_id
from proxy.wire.paths import loggable_path

LISTEN_AFTER_SECONDS: Final = 0.1
"""The age of a request from which on a task waits for its caller to leave, with servers other than ours."""

_LENGTH_DIGITS_MAX: Final = 18
_log: Final = get_logger("exchange")


class HttpRequest:
    """One HTTP request as the server received it, and the scope of its exchange.

    Args:
        scope: The scope of ASGI.
        max_body_bytes: The limit for its body; None for no limit.
        body_timeout: Seconds that a reader waits for the next bytes of the body; None for no limit.
        services: Returns the services of the current configuration.
    """

    def __init__(
        self,
        scope: HTTPScope,
        max_body_bytes: int | None,
        body_timeout: float | None,
        services: Callable[[], Services],
    ) -> None:
        headers = list(scope["headers"])
        self.scope = scope
        self.method: str = scope["method"]
        path = scope["path"]
        self.path = path if path.startswith("/") else "/"  # such a target is rejected by its raw path
        self.raw_path = scope["raw_path"]
        self.query_string = scope["query_string"]
        self.raw_headers = headers
        self.peer = (scope.get("client") or (None,))[0]
        self.local_address = (scope.get("server") or (None,))[0]
        first = dict(reversed(headers))
        self.content_length = _content_length(first)
        self.body = BoundedBody(self.content_length, max_body_bytes)
        self.body.timeout = body_timeout
        self.body.withheld = b"expect" in first
        self.has_two_framings = b"transfer-encoding" in first and b"content-length" in first
        self.is_over = False
        """Whether the whole response has been handed to the server, or will never be."""
        record = ExchangeRecord(choose_request_id(headers), self.method, loggable_path(self.raw_path))
        self.exchange = ExchangeScope(record, services, headers)


def _content_length(headers: Mapping[bytes, bytes]) -> int | None:
    length = headers.get(b"content-length", b"")
    is_length = length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX
    return int(length) if is_length and headers.get(b"transfer-encoding") != b"chunked" else None


_current: Final = ContextVar[HttpRequest]("http_request")


def http_request() -> HttpRequest:
    """Return the request that the current task serves."""
    return _current.get()


class QuartRequest(Request):
    """Quart's request, for the views that Quart calls; it has the bytes and the scope of an `HttpRequest`."""

    body_class = BoundedBody  # type: ignore[assignment]  # the same public interface, but no subclass of Quart's
    body: BoundedBody  # type: ignore[assignment]  # see above

    def __init__(self, *args: Any, http: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.raw_headers = http.raw_headers
        self.raw_path = http.raw_path
        self.peer = http.peer
        self.local_address = http.local_address
        self.body = http.body
        self.exchange = http.exchange


RelayedView = Callable[[], Awaitable[RelayedResponse]]
_Arguments = ParamSpec("_Arguments")


def relayed(
    view: Callable[_Arguments, Awaitable[RelayedResponse]],
) -> Callable[_Arguments, Awaitable[Response]]:
    """Mark a view whose response is that of an upstream; `make_response` creates Quart's if needed."""
    view.is_relayed = True  # type: ignore[attr-defined]  # a function accepts any attribute
    return cast(Callable[_Arguments, Awaitable[Response]], view)


def is_relayed(view: Callable[..., object]) -> TypeGuard[Callable[..., Awaitable[RelayedResponse]]]:
    """Whether a view is marked by `relayed`."""
    return getattr(view, "is_relayed", False)


class RelaySteps(msgspec.Struct, frozen=True):
    """What happens before and instead of the view of a relayed request.

    Args:
        admit: Checks the request and identifies its caller.
        reject: Returns the response for an error.
    """

    admit: Callable[[HttpRequest], Awaitable[None]]
    reject: Callable[[HttpRequest, Exception], Awaitable[RelayedResponse]]


class ProxyConnection(ASGIHTTPConnection):
    """Serve one request in the task of the server.

    Quart's connection runs two tasks and ends when the first of them ends, or, from 0.23 on, when both have;
    neither can abort a response.
    """

    app: "Application"

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        config = self.app.config
        request = HttpRequest(
            self.scope, config["MAX_CONTENT_LENGTH"], config["BODY_TIMEOUT"], self.app.current_services
        )
        _current.set(request)
        extensions = self.scope.get("extensions") or {}
        extension = cast(DisconnectExtension | None, extensions.get(EXTENSION))
        if extension is not None:
            request.body.read_from(receive, extension["has_body"])
            try:
                await self._serve(request, send, extension["subscribe"])
            finally:
                # `receive` refers to the task, and its context to the request: break the cycle.
                request.body.read_from(None)
            return
        listener = _Listener(request.body, receive, self.app.listeners)
        request.body.read_from(listener.receive)
        try:
            await self._serve(request, send, listener.subscribe)
        finally:
            listener.stop()

    async def _serve(self, request: HttpRequest, send: ASGISendCallable, subscribe: Subscribe) -> None:
        """Answer the request; cancel this when the caller disconnects."""
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
        cancels_before, cancelling, is_cancelled = task.cancelling(), None, False

        def left(reason: str) -> None:
            nonlocal cancelling
            exchange = request.exchange
            if not request.is_over and reason != "complete" and cancelling is None:
                exchange.interrupted = reason or exchange.interrupted
                cancelling = loop.call_soon(cancel)

        def cancel() -> None:
            nonlocal is_cancelled
            if not request.is_over:  # Otherwise only our own bookkeeping remains.
                is_cancelled = True
                task.cancel()

        subscribe(left)
        try:
            await self._answer(request, send)
        except asyncio.CancelledError:
            # If nobody else has cancelled the task, too, the end of the request is reached.
            if not is_cancelled or task.uncancel() > cancels_before:
                raise
        finally:
            if cancelling is not None:
                cancelling.cancel()

    async def _answer(self, request: HttpRequest, send: ASGISendCallable) -> None:
        """Answer the request inside its scope."""
        try:
            async with request.exchange:
                try:
                    view = self.app.find_relayed(request)
                    if view is None:
                        await self.handle_request(self._for_quart(request), _send_for_quart(request, send))
                    else:
                        await _send_relayed(request, await self.app.relay(request, view), send)
                finally:
                    request.is_over = True
        except Exception:
            # The scope has logged the error, and the status has been sent: only a body without an end can
            # still show that something failed. If the scope has not logged, the scope itself failed.
            if not request.exchange.is_logged:
                raise

    def _for_quart(self, request: HttpRequest) -> QuartRequest:
        """Build Quart's request from any target and any header bytes; malformed ones are rejected later."""
        scope, config = self.scope, self.app.config
        headers = Headers(
            [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in scope["headers"]]
        )
        return QuartRequest(
            request.method,
            scope["scheme"],
            request.path,
            request.query_string,
            headers,
            scope.get("root_path", ""),
            scope["http_version"],
            scope,
            max_content_length=config["MAX_CONTENT_LENGTH"],
            body_timeout=config["BODY_TIMEOUT"],
            send_push_promise=_no_push,
            http=request,
        )


def to_quart(relayed: RelayedResponse) -> Response:
    """Return the response for Quart, without Quart's headers and without a timeout on the body."""
    body = relayed.body if isinstance(relayed.body, bytes) else IterableBody(relayed.body)
    response = Response(body, status=relayed.status)
    response.headers = Headers(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in relayed.headers]
    )
    response.timeout = None
    return response


async def _send_relayed(request: HttpRequest, response: RelayedResponse, send: ASGISendCallable) -> None:
    """Send a response as it is.

    Raises:
        CallerGone: The connection broke during a write.
    """
    body = response.body
    request.body.wanted.set()  # A response has begun: what arrives now needs no `100 Continue`.
    request.exchange.begin_response()
    if isinstance(body, bytes):
        try:
            await send(
                {"type": "http.response.start", "status": response.status, "headers": response.headers}
            )
            await send({"type": "http.response.body", "body": body, "more_body": False})
        except OSError as error:
            raise CallerGone from error
        return
    write = _to_caller(send)
    await write({"type": "http.response.start", "status": response.status, "headers": response.headers})
    last = b""
    async with contextlib.aclosing(body):
        async for piece in body:
            if last:
                await write({"type": "http.response.body", "body": last, "more_body": True})
            if response.has_arrived():
                last = piece  # If the end follows, which is at once, it leaves in the same write.
            else:
                await write({"type": "http.response.body", "body": piece, "more_body": True})
    await write({"type": "http.response.body", "body": last, "more_body": False})


def _to_caller(send: ASGISendCallable) -> ASGISendCallable:
    """Raise `CallerGone` where the connection breaks during a write.

    If the caller reads nothing, the kernel closes the connection and the write raises TimeoutError. Quart
    would treat that as its own response timeout and ignore it.
    """

    async def write(message: ASGISendEvent) -> None:
        try:
            await send(message)
        except OSError as error:
            raise CallerGone from error

    return write


def _send_for_quart(request: HttpRequest, send: ASGISendCallable) -> ASGISendCallable:
    """Write the headers of Quart's responses as they were received."""
    write = _to_caller(send)

    async def write_for_quart(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            request.body.wanted.set()  # A response has begun: what arrives now needs no `100 Continue`.
            request.exchange.begin_response()
            message["headers"] = [(name, _as_received(value)) for name, value in message["headers"]]
        await write(message)

    return write_for_quart


def _as_received(value: bytes) -> bytes:
    """Return the bytes of a header that is held as Latin-1 text; Quart would write UTF-8."""
    return value if value.isascii() else value.decode().encode("latin-1")


class _Listener:
    """Reports when the caller leaves, for a server that has no `DisconnectExtension`.

    At first the request reads its own body. If it takes longer than `LISTEN_AFTER_SECONDS`, a second task
    reads the body and then waits for the disconnect. Short requests do not need that task, which costs CPU.

    Args:
        body: The body of the request.
        receive: The `receive` of the server.
        tasks: Owns the task.
    """

    def __init__(self, body: BoundedBody, receive: ASGIReceiveCallable, tasks: OwnedTasks) -> None:
        self._body = body
        self._receive = receive
        self._tasks = tasks
        self._receivers = 0
        self._left: OnDisconnect | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, left: OnDisconnect) -> None:
        """Call back when the caller leaves."""
        self._left = left
        self._wait()

    async def receive(self) -> ASGIReceiveEvent:
        """Receive for the request, and notice a disconnect."""
        self._receivers += 1
        try:
            message = await self._receive()
        finally:
            self._receivers -= 1
        self._notice(message)
        return message

    def stop(self) -> None:
        """Stop at the end of the request."""
        self._body.read_from(None)
        self._left = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            OwnedTasks.drop(self._task)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LISTEN_AFTER_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._receivers:  # The request waits for its body, and notices a disconnect itself.
            self._wait()
        else:
            self._body.read_from(None)
            self._task = self._tasks.start(self._listen(), name="listener")

    async def _listen(self) -> None:
        body = self._body
        if body.withheld:
            await body.wanted.wait()  # The server asks the caller for the body when it is received.
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.request":
                    await body.put(message.get("body", b""), last=not message.get("more_body", False))
                elif message["type"] == "http.disconnect":
                    self._notice(message)
                    return
        except Exception:  # A defect of the server: from now on, a disconnect would go unnoticed.
            _log.exception("defect")
            self._notice({"type": "http.disconnect"})

    def _notice(self, message: ASGIReceiveEvent) -> None:
        if message["type"] == "http.disconnect" and self._left is not None:
            left, self._left = self._left, None
            left(cast(Mapping[str, str], message).get("reason", ""))  # a key of our server


async def _no_push(_path: str, _headers: Headers) -> None:
    """Ignore server push: HTTP/1.1 has none."""


class Application(Quart):
    """Quart with these classes, and with routes that do not depend on the Host header."""

    request_class = QuartRequest  # type: ignore[assignment]  # only `ProxyConnection` constructs requests
    asgi_http_class = ProxyConnection

    relay_steps: RelaySteps | None = None
    """If None, relayed requests use Quart's normal path."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listeners = OwnedTasks()
        """The tasks that wait for callers to leave, with servers other than ours."""
        self.serving = asyncio.Event()
        """Set once the parts of the application have been opened."""
        self._routes = self.url_map.bind("localhost")
        self._fixed: dict[tuple[str, str], RelayedView | None] = {}
        """The views of paths without variable parts, by method and path."""

    def current_services(self) -> Services:
        """Return the services of the current configuration."""
        return app_parts(self).snapshots.current

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

    def find_relayed(self, request: HttpRequest) -> RelayedView | None:
        """Return the view of a relayed route, with its arguments; None for any other request."""
        if self.relay_steps is None:
            return None
        target = (request.method, request.path)
        if target in self._fixed:
            return self._fixed[target]
        try:
            rule, arguments = self._routes.match(request.path, request.method, return_rule=True)
        except HTTPException:
            return None
        found = self.view_functions[rule.endpoint]
        view = partial(found, **arguments) if is_relayed(found) else None
        if not arguments:
            self._fixed[target] = view
        return view

    async def relay(self, request: HttpRequest, view: RelayedView) -> RelayedResponse:
        """Call the view of a relayed route between the steps of every request."""
        steps = self.relay_steps
        assert steps is not None, "without them, `find_relayed` returns no view"  # noqa: S101
        try:
            await steps.admit(request)
            response = await view()
        except Exception as error:  # A defect gets a response too: `reject` turns it into a 500.
            response = await steps.reject(request, error)
        record = request.exchange.record
        record.status = response.status
        headers = [*response.headers, (b"x-request-id", record.request_id.encode())]
        return replace(response, headers=headers)

    async def make_response(self, result: Any) -> ResponseTypes:
        """Make Quart's response, also from that of a relayed route."""
        return await super().make_response(
            to_quart(result) if isinstance(result, RelayedResponse) else result
        )

    async def handle_request(self, request: Request) -> ResponseTypes:
        """Answer a request, even if Quart fails where its error handlers do not reach."""
        try:
            return await super().handle_request(request)
        except Exception as error:  # A defect: the caller gets a plain 500.
            _log.exception("defect")
            failure = InternalError(reason=type(error).__name__)
            cast(QuartRequest, request).exchange.record.fail(failure)
            return Response(
                error_body(failure.envelope()), status=failure.status, content_type="application/json"
            )

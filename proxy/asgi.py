"""The HTTP connection between server and application, where it must differ from Quart's own.

It owns the exchange: whatever was opened for a request is closed when its task ends, also when the caller leaves
before the body began; then the one log line is written. A body that breaks aborts the connection.
"""

import contextlib
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Quart, Request
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes

from proxy.errors import InternalError, ProxyError
from proxy.request_body import BoundedBody
from proxy.telemetry import ExchangeRecord, get_logger, request_context
from proxy.wire.headers import choose_request_id


class ProxyRequest(Request):
    """A request with its record, and a stack that closes whatever its exchange opened."""

    body_class = BoundedBody
    body: BoundedBody

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scope: HTTPScope = self.scope  # type: ignore[assignment]  # a request's scope is never a WebSocket's
        self.raw_headers = list(scope["headers"])
        self.raw_path = scope["raw_path"]
        self.peer = (scope.get("client") or (None,))[0]
        self.body.timeout = self.body_timeout
        self.closing = contextlib.AsyncExitStack()
        self.record = ExchangeRecord(choose_request_id(self.raw_headers), scope["method"], scope["path"])


class ProxyConnection(ASGIHTTPConnection):
    """Serve one request."""

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Feed the body with backpressure; return when the caller has left."""
        assert isinstance(request, ProxyRequest)  # noqa: S101 - request_class says so
        while True:
            message = await receive()
            if message["type"] == "http.request":
                await request.body.put(message.get("body", b""), last=not message.get("more_body", False))
            elif message["type"] == "http.disconnect":
                return

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """Answer, close whatever was opened, write the log line."""
        assert isinstance(request, ProxyRequest)  # noqa: S101 - request_class says so
        record = request.record
        with request_context(record.request_id):
            try:
                async with request.closing:
                    await super().handle_request(request, send)
                record.outcome = record.outcome or "ok"
            except ProxyError as error:
                # The status is spent: to end without a last chunk is the only way left to say so.
                record.fail(error)
            finally:
                # Neither answered nor failed: this task was cancelled, which is how a caller's leaving looks.
                record.outcome = record.outcome or "client_gone"
                _write_line(record)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        try:
            await super()._send_response(send, response)
        except ProxyError:
            raise
        except Exception as error:
            get_logger("proxy").exception("response_failed")
            raise InternalError(reason=type(error).__name__) from error


def install(app: Quart) -> None:
    """Make an application use these classes."""
    app.request_class = ProxyRequest
    app.asgi_http_class = ProxyConnection


def _write_line(record: ExchangeRecord) -> None:
    log = get_logger("exchange")
    write = log.debug if record.quiet else log.info
    write("exchange", **record.fields())

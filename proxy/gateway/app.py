"""The gateway's application: wiring, authentication under `/v1`, and the views that are not OpenAI's."""

import asyncio
import hmac
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from quart import Quart, Response, request
from quart.asgi import ASGIHTTPConnection
from werkzeug.exceptions import HTTPException

from proxy.gateway import completions, models, tokens
from proxy.gateway.answers import StreamCut
from proxy.gateway.http import GatewayError, handle_gateway_error, handle_http_exception, json_response
from proxy.gateway.state import DemoGateway, GatewayOptions, current_gateway

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

LINGER_SECONDS = 5.0
"""How long a response waits for the unread rest of the request body; nginx's `lingering_timeout`."""
MIRRORED_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # GET includes HEAD


def create_gateway(options: GatewayOptions, *, clock: Callable[[], float] = time.monotonic) -> Quart:
    """Build a gateway; `app.extensions["gateway"]` is its `DemoGateway`.

    Args:
        options: Its initial behaviour.
        clock: Monotonic seconds, by which tokens expire.
    """
    app = Quart(__name__, static_folder=None)
    app.asgi_http_class = GatewayConnection
    # Tests send large and slow bodies, and streams last long: disable Quart's limits.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.url_map.merge_slashes = False  # serve the path as it is, without a redirect
    app.extensions["gateway"] = DemoGateway(options, clock)
    app.before_request(authenticate)
    app.after_request(drain_body)
    app.register_error_handler(GatewayError, handle_gateway_error)
    app.register_error_handler(HTTPException, handle_http_exception)
    for module in (tokens, completions, models):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/stats", view_func=stats)
    for path in ("/v1/echo", "/v1/echo/", "/v1/echo/<path:rest>"):
        app.add_url_rule(path, view_func=mirror, methods=MIRRORED_METHODS)
    return app


class GatewayConnection(ASGIHTTPConnection):
    """Quart's connection, which ends silently where a stream is to be cut.

    The server sees an unfinished response and closes the connection. Quart 0.22 raises the body's exception
    itself, 0.23 an exception group. `StreamCut` must not be a TimeoutError: both versions take that for
    their response timeout, and 0.23 would wait for the caller to disconnect.
    """

    async def __call__(self, receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        """Serve one request."""
        try:
            await super().__call__(receive, send)
        except* StreamCut:
            pass


async def authenticate() -> None:
    """Check the credentials of a request under `/v1`, and apply the first byte delay in either case.

    A hook of the whole application, so that it also protects unknown paths.
    """
    if not request.path.startswith("/v1/"):
        return
    gateway = current_gateway()
    rejection = _rejection(gateway, request.headers.get("Authorization", ""))
    if gateway.options.first_byte_delay:
        await asyncio.sleep(gateway.options.first_byte_delay)
    if rejection is not None:
        raise rejection


async def drain_body(response: Response) -> Response:
    """Read the rest of the request body before an early response.

    A server that closes a connection with unread bytes resets it, and the caller may lose the response.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            async for _ in request.body:
                pass
    return response


def bearer_token(authorization: str) -> str:
    """Return the token of an Authorization header (RFC 6750 2.1), or "" for any other scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _rejection(gateway: DemoGateway, authorization: str) -> GatewayError | None:
    options = gateway.options
    if options.status != 200:
        return GatewayError(options.status, f"the gateway was told to answer with {options.status}")
    token = bearer_token(authorization)
    if options.api_key is not None:
        accepted, message, code = _is_key(token, options.api_key), "Invalid API key", "invalid_api_key"
    else:
        accepted = gateway.tokens.accepts(token) and not options.reject_tokens
        message, code = "token expired or unknown", "invalid_token"
    if accepted:
        return None
    gateway.stats.tokens_rejected += 1
    return GatewayError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def _is_key(token: str, key: str) -> bool:
    """Compare in constant time. Header bytes were decoded as Latin-1."""
    return hmac.compare_digest(token.encode("latin-1"), key.encode())


async def index() -> Response:
    """Describe the gateway in one line."""
    text = "A demonstration gateway: an OpenAI-compatible echo behind short-lived tokens.\n"
    return Response(text, content_type="text/plain; charset=utf-8")


async def stats() -> Response:
    """Return the counters."""
    return json_response(current_gateway().stats)


async def mirror(rest: str = "") -> Response:  # noqa: ARG001  the raw target is more exact
    """Describe the request, so that a relay can be tested; the body is hashed as it arrives, not held."""
    digest, size = sha256(), 0
    async for part in request.body:
        digest.update(part)
        size += len(part)
    return json_response(
        {
            "method": request.method,
            "target": _raw_target(),
            "headers": _raw_headers(),
            "body_sha256": digest.hexdigest(),
            "body_bytes": size,
        }
    )


def _raw_headers() -> list[tuple[str, str]]:
    """Return the headers from the ASGI scope; Quart's mapping adds `Remote-Addr` and changes the case."""
    return [
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.scope["headers"]
    ]


def _raw_target() -> str:
    """Return path and query of the request line, with escapes such as `%2F` unchanged."""
    path, query = request.scope["raw_path"], request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")

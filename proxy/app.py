"""The application: wiring, error handlers, lifespan. Importing this module has no effect."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final

from quart import Quart, Response, current_app
from werkzeug.exceptions import HTTPException

from proxy.access import is_public
from proxy.asgi import Application
from proxy.blueprints import index, llm_proxy, offload, ops
from proxy.blueprints.exchange import current_request
from proxy.blueprints.realtime import RealtimeConnection
from proxy.config_snapshots import ConfigSnapshots, merge_settings, open_snapshots
from proxy.cors import allow_pages
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.errors import BodyTimeout, InternalError, InvalidRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.lifecycle import admit_caller
from proxy.settings import Settings
from proxy.telemetry import get_logger
from proxy.telemetry.worker_metrics import WorkerMetrics
from proxy.wire.error_envelope import error_body
from proxy.wire.paths import ORIGINAL_MOUNT, check_target

DISCARD_SECONDS: Final = 1.0
"""How long the rest of a refused request is read and dropped, so that its caller can read the answer."""


def create_app(
    settings: Settings,
    drain: Drain | None = None,
    token_folder: TokenFolder | None = None,
    worker_metrics: WorkerMetrics | None = None,
) -> Quart:
    """Build the application.

    Args:
        settings: Loaded and checked.
        drain: Shared with the code that stops the server, so that each stream gets its error event.
        token_folder: Where the workers of the service share tokens, if there are several.
        worker_metrics: How `/metrics` includes the other workers.
    """
    app = Application(__name__, static_folder=None)
    app.asgi_websocket_class = RealtimeConnection
    # Every exchange has its own timeouts; Quart's would cut streams silently.
    app.config["RESPONSE_TIMEOUT"] = None
    _bound_bodies(app, settings)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.register_blueprint(ops.blueprint)
    app.register_blueprint(index.blueprint)
    app.register_blueprint(offload.blueprint)
    if settings.chat is not None:
        # Imported here because the chat's libraries take 5 MB.
        from proxy.blueprints import chat
        from proxy.blueprints.chat_session import install_sessions

        install_sessions(app, settings)
        app.register_blueprint(chat.blueprint)
    app.register_blueprint(llm_proxy.blueprint, url_prefix=ORIGINAL_MOUNT)
    app.register_blueprint(llm_proxy.blueprint, name="api_llm_proxy_at_root")
    app.before_request(check_request)
    if settings.cors is not None:  # Preflights are well-formed, and have no key.
        allow_pages(app, settings.cors)
    app.before_request(identify)
    app.after_request(finish_headers)
    app.register_error_handler(ProxyError, answer_proxy_error)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(Exception, answer_defect)

    app.extensions["worker_metrics"] = worker_metrics
    serving = app.extensions["serving"] = asyncio.Event()

    @app.while_serving
    async def lifespan() -> AsyncGenerator[None]:
        async with (
            open_snapshots(settings, drain or Drain(), token_folder) as snapshots,
            contextlib.AsyncExitStack() as stack,
        ):
            app.extensions["proxy"] = snapshots
            if worker_metrics is not None:
                offered = worker_metrics.offered(lambda: snapshots.current.metrics.render()[0])
                await stack.enter_async_context(offered)
            serving.set()
            yield

    return app


async def reload(app: Quart, settings: Settings) -> None:
    """Serve new requests by other settings; running requests keep theirs.

    It waits until the service has started.

    Raises:
        Exception: the settings cannot be used; then nothing has changed.
    """
    await app.extensions["serving"].wait()
    snapshots: ConfigSnapshots = app.extensions["proxy"]
    settings = merge_settings(snapshots.current.settings, settings)
    await snapshots.replace(settings)
    _bound_bodies(app, settings)


def _bound_bodies(app: Quart, settings: Settings) -> None:
    app.config["BODY_TIMEOUT"] = settings.limits.body_timeout or None
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes


async def check_request() -> None:
    """Refuse a malformed request before anything else reads it."""
    request = current_request()
    endpoint = request.endpoint
    request.is_public = endpoint is not None and is_public(current_app.view_functions[endpoint])
    request.exchange.record.quiet = request.is_public
    names = {name for name, _ in request.raw_headers}
    if b"transfer-encoding" in names and b"content-length" in names:
        # RFC 9112 6.1: two framings may be an attempt to smuggle a request past one of two servers.
        raise InvalidRequest(
            "both Content-Length and Transfer-Encoding are given", headers={"Connection": "close"}
        )
    check_target(request.raw_path, request.query_string)


async def identify() -> None:
    """Refuse unknown callers, and callers who send too many requests."""
    request = current_request()
    if not request.is_public and request.routing_exception is None:
        access = request.exchange.services.access
        caller = access.identify(request.raw_headers, request.peer, request.local_address)
        await admit_caller(request.exchange, caller)


async def finish_headers(response: Response) -> Response:
    """Name the request in every response, and the status in every record."""
    record = current_request().exchange.record
    record.status = response.status_code
    response.headers["X-Request-Id"] = record.request_id
    return response


async def answer_proxy_error(error: ProxyError) -> Response:
    """Answer an error in OpenAI's envelope."""
    request = current_request()
    request.exchange.record.fail(error)
    if not isinstance(error, BodyTimeout):
        await request.body.discard(DISCARD_SECONDS)
    headers = {"Cache-Control": "no-store", **error.headers}
    body = error_body(error.envelope())
    return Response(body, status=error.status, headers=headers, content_type="application/json")


async def answer_http_exception(error: HTTPException) -> Response:
    """Answer an error of Quart in the envelope."""
    if error.code == HTTPStatus.NOT_FOUND:
        return await answer_proxy_error(NotFound())
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return await answer_proxy_error(MethodNotAllowed(headers={"Allow": allowed}))
    if error.code is not None and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return await answer_proxy_error(InvalidRequest(reason=type(error).__name__))
    # Quart wraps exceptions that were raised outside a view.
    return await answer_defect(getattr(error, "original_exception", None) or error)


async def answer_defect(error: Exception) -> Response:
    """Answer a defect: the log gets the traceback, the caller a plain 500."""
    get_logger("proxy").error("defect", exc_info=error)
    return await answer_proxy_error(InternalError(reason=type(error).__name__))

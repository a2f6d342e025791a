"""The application: wiring, error handlers, lifespan. Importing this module has no effect."""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from quart import Quart, Response, current_app
from quart import request as quart_request
from werkzeug.exceptions import HTTPException

from proxy.access import is_public
from proxy.app_parts import EXTENSION, app_parts, open_app_parts
from proxy.asgi import Application, HttpRequest, RelaySteps, http_request, to_quart
from proxy.blueprints import api_docs, index, llm_proxy, offload, ops, status
from proxy.blueprints.realtime import RealtimeConnection
from proxy.cors import allow_pages, is_api_options
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.errors import BodyTimeout, InternalError, InvalidRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.lifecycle import admit_caller
from proxy.settings import Settings
from proxy.settings.restart import changes_that_need_restart, merge_settings
from proxy.telemetry import get_logger
from proxy.telemetry.readings import HttpServerReading
from proxy.telemetry.worker_reports import WorkerReports
from proxy.upstream.relay import RelayedResponse
from proxy.wire.error_envelope import error_body, error_headers
from proxy.wire.paths import ORIGINAL_MOUNT, check_target

"""How long the rest of a rejected request is read and dropped, so that its caller can read the response."""


def create_app(
    settings: Settings,
    drain: Drain | None = None,
    token_folder: TokenFolder | None = None,
    worker_reports: WorkerReports | None = None,
    server: HttpServerReading | None = None,
) -> Application:
    """Build the application.

    Args:
        settings: Loaded and checked.
        drain: Shared with the code that stops the server, so that each stream gets its error event.
        token_folder: Where the workers of the service share tokens, if there are several.
        worker_reports: How `/metrics` and `/status` include the other workers.
        server: What the HTTP server lets the application see.
    """
    app = Application(__name__, static_folder=None)
    app.asgi_websocket_class = RealtimeConnection
    # Every exchange has its own timeouts; Quart's would cut streams silently.
    app.config["RESPONSE_TIMEOUT"] = None
    _bound_bodies(app, settings)
    _register_views(app, settings)
    _register_checks(app, settings)
    style = api_docs.load_style()

    @app.while_serving
    async def lifespan() -> AsyncGenerator[None]:
        opened = open_app_parts(settings, drain or Drain(), style, token_folder, worker_reports, server)
        async with opened as parts:
            app.extensions[EXTENSION] = parts
            app.serving.set()
            yield
        await app.listeners.close()

    return app


def _register_views(app: Quart, settings: Settings) -> None:
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    for module in (ops, index, offload, status, api_docs):
        app.register_blueprint(module.blueprint)
    if settings.chat is not None:
        # Imported here because the chat's libraries take 5 MB.
        from proxy.blueprints import chat
        from proxy.blueprints.chat_session import install_sessions

        install_sessions(app, settings)
        app.register_blueprint(chat.blueprint)
    app.register_blueprint(llm_proxy.blueprint, url_prefix=ORIGINAL_MOUNT)
    app.register_blueprint(llm_proxy.blueprint, name="api_llm_proxy_at_root")


def _register_checks(app: Application, settings: Settings) -> None:
    app.before_request(check_request)
    if settings.cors is None:
        app.relay_steps = RelaySteps(admit, reject)
    else:  # Its library adds headers to the responses of Quart.
        allow_pages(app, settings.cors)
    app.after_request(finish_headers)
    for kind in (ProxyError, HTTPException, Exception):
        app.register_error_handler(kind, answer_error)


async def reload(app: Application, settings: Settings) -> None:
    """Serve new requests by other settings; running requests keep theirs.

    It waits until the service has started.

    Raises:
        Exception: The settings cannot be used; then nothing has changed.
    """
    await app.serving.wait()
    snapshots = app_parts(app).snapshots
    running = snapshots.current.settings
    changed = sorted(changes_that_need_restart(running, settings))
    settings = merge_settings(running, settings)
    await snapshots.replace(settings)
    _bound_bodies(app, settings)
    if changed:
        get_logger("proxy").warning(
            "restart_needed", sections=changed, meaning="the rest of the settings is in force"
        )


def _bound_bodies(app: Quart, settings: Settings) -> None:
    app.config["BODY_TIMEOUT"] = settings.limits.body_timeout or None
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes


async def check_request() -> None:
    """Check a request that Quart handles; `[cors]` answers preflights, which have no key."""
    request, endpoint = http_request(), quart_request.endpoint
    public = endpoint is not None and is_public(current_app.view_functions[endpoint])
    request.exchange.record.quiet = public
    needs_key = endpoint is not None and not public  # without an endpoint, the response is a 404 or 405
    if needs_key and is_api_options():
        # Read only here: the exchange then holds the services, which a stream of the status page must not do.
        needs_key = request.exchange.services.settings.cors is None
    await admit(request, needs_key=needs_key)


async def admit(request: HttpRequest, *, needs_key: bool = True) -> None:
    """Check a request, find its caller, and count it.

    Raises:
        InvalidRequest: Two servers could read the request in two ways.
        CallerError: The caller is unknown, or sends too many requests.
        ServerOverloaded: The process is overloaded.
    """
    if request.has_two_framings:
        # RFC 9112 6.1: two framings may be an attempt to smuggle a request past one of two servers.
        raise InvalidRequest(
            "both Content-Length and Transfer-Encoding are given", headers={"Connection": "close"}
        )
    check_target(request.raw_path, request.query_string)
    if needs_key:
        access = request.exchange.services.access
        caller = access.identify(request.raw_headers, request.peer, request.local_address)
        await admit_caller(request.exchange, caller)


async def finish_headers(response: Response) -> Response:
    """Name the request in every response, and the status in every record."""
    record = http_request().exchange.record
    record.status = response.status_code
    response.headers["X-Request-Id"] = record.request_id
    return response


async def reject(request: HttpRequest, error: Exception) -> RelayedResponse:
    """Return the response for any error, in OpenAI's envelope."""
    if not isinstance(error, ProxyError):
        return await reject(request, _proxy_error(error))
    request.exchange.record.fail(error)
    if not isinstance(error, BodyTimeout):
        await request.body.discard()
    body = error_body(error.envelope())
    length = (b"content-length", b"%d" % len(body))
    return RelayedResponse(error.status, [*error_headers(error.headers), length], body)


def _proxy_error(error: Exception) -> ProxyError:
    """Return our own error for an error of Quart or a defect; the log gets the traceback of the latter."""
    if isinstance(error, HTTPException):
        if error.code == HTTPStatus.NOT_FOUND:
            return NotFound()
        if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            return MethodNotAllowed(headers={"Allow": allowed})
        if error.code is not None and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidRequest(reason=type(error).__name__)
        # Quart wraps exceptions that were raised outside a view.
        error = getattr(error, "original_exception", None) or error
    get_logger("proxy").error("defect", exc_info=error)
    return InternalError(reason=type(error).__name__)


async def answer_error(error: Exception) -> Response:
    """Answer any error of a request that Quart handles."""
    return to_quart(await reject(http_request(), error))

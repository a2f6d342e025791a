"""The gateway's factory: all wiring in one place."""

import time
from collections.abc import Callable

from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from proxy.gateway import completions, embeddings, mirror, models, rerank, token_endpoints
from proxy.gateway.access import admit, drain_body
from proxy.gateway.connection import GatewayConnection
from proxy.gateway.errors import GatewayError, answer_gateway_error, answer_http_exception, json_response
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway, current_gateway


def create_gateway(options: GatewayOptions, *, clock: Callable[[], float] = time.monotonic) -> Quart:
    """Build a gateway; `app.extensions["gateway"]` is its `Gateway`.

    Args:
        options: Its behaviour at the start.
        clock: Seconds by which tokens expire.
    """
    app = Quart(__name__, static_folder=None)
    app.asgi_http_class = GatewayConnection
    # Relay tests send large and slow bodies, and streams take their time: no limit of Quart's holds here.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.url_map.merge_slashes = False  # a path is answered as it came, never redirected
    app.extensions["gateway"] = Gateway(options, clock)
    app.before_request(admit)
    app.after_request(drain_body)
    app.register_error_handler(GatewayError, answer_gateway_error)
    app.register_error_handler(HTTPException, answer_http_exception)
    for module in (token_endpoints, completions, embeddings, rerank, models, mirror):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/stats", view_func=stats)
    return app


async def index() -> Response:
    """Say what this is."""
    text = "A demonstration gateway: an OpenAI-compatible echo behind short-lived tokens.\n"
    return Response(text, content_type="text/plain; charset=utf-8")


async def stats() -> Response:
    """Show the counters."""
    return json_response(current_gateway().stats.counters())

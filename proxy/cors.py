"""Callers in browsers: which pages of other origins may call the API (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from http import HTTPMethod, HTTPStatus
from typing import Any, Final, cast

from quart import Quart, Response, request
from quart_cors import cors, cors_exempt

from proxy.blueprints import llm_proxy
from proxy.settings import Cors

EXPOSED: Final = (
    "X-Request-Id",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "X-Should-Retry",
)
"""What a page may read of an answer beside its body."""


def allow_pages(app: Quart, settings: Cors) -> None:
    """Let pages call the API, and nothing else that is served here: call it when every route is there.

    OPTIONS is answered here then instead of being relayed: a browser's question comes without a key.
    """
    for endpoint, view in app.view_functions.items():
        if not _is_api(endpoint):
            cors_exempt(cast(Any, view))
    app.after_request(_for_the_api_alone)  # runs after those that stand below
    cors(
        app,
        allow_origin=settings.origins,
        allow_headers=["*"],  # the headers that were asked for
        allow_methods=llm_proxy.METHODS,
        expose_headers=EXPOSED,
        max_age=settings.max_age,
    )
    app.before_request(_answer_preflight)
    app.after_request(_drop_upstreams_own)  # runs before those that stand above


async def _answer_preflight() -> Response | None:
    if request.method != HTTPMethod.OPTIONS or not _is_api(request.endpoint):
        return None
    return Response(status=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(llm_proxy.METHODS)})


async def _for_the_api_alone(response: Response) -> Response:
    """What has no view of its own, a 405 say, would be open to pages."""
    return response if _is_api(request.endpoint) else await _drop_upstreams_own(response)


async def _drop_upstreams_own(response: Response) -> Response:
    """Who may read the answer is said here alone."""
    for name in [name for name in response.headers.keys() if name.lower().startswith("access-control-")]:  # noqa: SIM118  they have no `in`
        del response.headers[name]
    return response


def _is_api(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith(llm_proxy.blueprint.name)

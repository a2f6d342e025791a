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
"""Headers of a response that a page may read."""


def allow_pages(app: Quart, settings: Cors) -> None:
    """Let web pages call the API, but no other route. Call this when all routes are registered.

    OPTIONS is then answered here instead of being relayed, because browsers send preflights without a key.
    """
    for endpoint, view in app.view_functions.items():
        if not _is_api(endpoint):
            cors_exempt(cast(Any, view))
    app.after_request(_drop_without_view)  # runs after the function that `cors` registers
    cors(
        app,
        allow_origin=settings.origins,
        allow_headers=["*"],  # whatever headers the preflight names
        allow_methods=llm_proxy.METHODS,
        expose_headers=EXPOSED,
        max_age=settings.max_age,
    )
    app.before_request(_answer_preflight)


def is_api_options() -> bool:
    """Whether the current request is an OPTIONS of the API, which this module answers."""
    return request.method == HTTPMethod.OPTIONS and _is_api(request.endpoint)


async def _answer_preflight() -> Response | None:
    if not is_api_options():
        return None
    return Response(status=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(llm_proxy.METHODS)})


async def _drop_without_view(response: Response) -> Response:
    """Drop CORS headers of responses without a view (such as 405), which cannot be exempt."""
    if request.endpoint is not None:
        return response
    for name in [name for name in response.headers.keys() if name.lower().startswith("access-control-")]:  # noqa: SIM118  they have no `in`
        del response.headers[name]
    return response


def _is_api(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith(llm_proxy.blueprint.name)

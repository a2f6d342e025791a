"""Operations: liveness, readiness and metrics. None of them needs a key."""

from http import HTTPStatus

from quart import Blueprint, Response

from proxy.access import public
from proxy.app_parts import app_parts
from proxy.blueprints.exchange import current_request, current_services
from proxy.telemetry.worker_metrics import merge

blueprint = Blueprint("ops", __name__)


@blueprint.get("/livez")
@public
async def livez() -> Response:
    """Answer 200 while the event loop runs; nothing else is checked."""
    return _plain("ok", HTTPStatus.OK)


@blueprint.get("/readyz")
@blueprint.get("/healthz")
@public
async def readyz() -> Response:
    """Answer 503 while draining, or while the default credential has no token and its last fetch failed."""
    if current_services().ready:
        return _plain("ok", HTTPStatus.OK)
    return _plain(
        "draining" if current_services().worker.drain.announced else "no token",
        HTTPStatus.SERVICE_UNAVAILABLE,
    )


@blueprint.get("/metrics")
@public
async def metrics() -> Response:
    """Return metrics for Prometheus. They name credentials, and contain no key and no token.

    Raises:
        SiteForbidden: A page of another site has rebound its host name to this machine.
    """
    request = current_request()
    current_services().access.sites.check_host(request.raw_headers, request.local_address)
    text, content_type = current_services().metrics.render()
    workers = app_parts().worker_reports
    if workers is not None:
        text = merge(await workers.collect("metrics", text))
    return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})


def _plain(word: str, status: HTTPStatus) -> Response:
    return Response(f"{word}\n", status=status, mimetype="text/plain", headers={"Cache-Control": "no-store"})

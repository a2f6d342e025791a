"""Tell nginx which requests it may relay itself, and with which token: config/nginx/offload.conf."""

import hmac
from http import HTTPStatus
from urllib.parse import quote

from quart import Blueprint, Response

from proxy.access import Caller, public
from proxy.blueprints.exchange import current_request
from proxy.errors import CredentialError, EndpointForbidden, NotFound, ProxyError, Unauthenticated
from proxy.services import Services
from proxy.settings import Offload
from proxy.telemetry import OffloadKey
from proxy.upstream.offload import cache_control, find_obstacle, grant
from proxy.wire.headers import find_header
from proxy.wire.paths import check_target, find_target

blueprint = Blueprint("offload", __name__)


@blueprint.get("/internal/credential")
@public
async def credential() -> Response:
    """Answer 204 with the token that nginx has to write, or an error if the proxy has to relay the request.

    nginx presents the secret of `[offload]`, the caller's key, and the path of the caller's POST request.

    Raises:
        NotFound: There is no `[offload]`.
        Unauthenticated: The secret or the key is wrong.
        EndpointForbidden: The proxy has to relay the request.
        CredentialError: No token is available.
    """
    http = current_request()
    services, headers = http.exchange.services, http.raw_headers
    offload = services.settings.offload
    if offload is None:
        raise NotFound
    secret = find_header(headers, b"x-offload-secret") or b""
    if not hmac.compare_digest(secret, offload.secret.reveal().encode()):
        raise Unauthenticated(reason="wrong secret of [offload]")
    caller = services.access.identify(headers, http.peer, http.local_address)
    answers = services.worker.exchanges.offload_answers
    try:
        response = await _answer(services, offload, caller, find_header(headers, b"x-offload-path") or b"")
    except ProxyError as error:
        answers[OffloadKey(caller.name, "failed" if isinstance(error, CredentialError) else "refused")] += 1
        raise
    answers[OffloadKey(caller.name, "granted")] += 1
    return response


async def _answer(services: Services, offload: Offload, caller: Caller, path: bytes) -> Response:
    settings = services.settings
    check_target(path, b"")
    target = find_target("POST", path)
    caller.check_endpoint(target.endpoint)
    plan = services.routing.plan(target.endpoint, None, caller)
    is_draining = services.worker.drain.announced
    obstacle = "draining" if is_draining else find_obstacle(settings, offload, plan, caller)
    if obstacle:
        kept = {"Cache-Control": cache_control(offload.cache_seconds)}
        raise EndpointForbidden(f"the proxy has to relay this request: {obstacle}", headers=kept)
    upstream = settings.upstreams[plan[0].upstream]
    used = None if upstream.credential is None else services.credentials[upstream.credential]
    granted = await grant(plan[0].upstream, upstream.base_url, target.path, used, offload.cache_seconds)
    return Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            **granted.headers,
            "Caller-Offload": quote(caller.name),
            "Endpoint-Offload": target.endpoint.name,
            "Cache-Control": cache_control(granted.seconds, granted.stale_seconds),
        },
    )

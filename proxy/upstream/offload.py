"""Which requests nginx may relay itself, and what it has to know for them (`[offload]`).

nginx sees neither the model of a request nor the content of its response. So it relays only those requests to
which the proxy would add nothing but the token. All others go through the proxy as usual.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from proxy.access import Caller
from proxy.credentials import UpstreamCredential
from proxy.credentials.upstream_credential import write_token
from proxy.settings import Offload, Settings
from proxy.upstream.routing import Route
from proxy.wire.endpoints import ModelPlace

TOKEN_HEADERS: Final = frozenset({"authorization", "api-key", "x-api-key"})
"""The headers in which nginx can write a token. Its configuration has to name each of them."""
STALE_SECONDS_MAX: Final = 60.0
"""How long nginx may use a token while it cannot ask the proxy, if the token is valid for so long."""
HANDED_OVER: Final = frozenset(range(300, 600)) - {408, 444, 499, 504}
"""The statuses with which nginx hands the request to the proxy. Its configuration has to list them."""
RENEWAL_SECONDS: Final = 1
"""How long other requests may use a response while nginx asks for the next one, at the end of its cache time.
Without it, all of them would ask."""


class Grant(msgspec.Struct, frozen=True):
    """What nginx has to know to relay the requests of one caller to one path.

    Args:
        headers: The headers with the upstream's address and the token.
        seconds: How long nginx may use them.
        stale_seconds: How much longer nginx may use them while it cannot ask the proxy.
    """

    headers: dict[str, str]
    seconds: int
    stale_seconds: int


def find_obstacle(settings: Settings, offload: Offload, plan: Sequence[Route], caller: Caller) -> str:
    """Return why nginx may not relay a request; empty if it may.

    Args:
        settings: The whole configuration.
        offload: Its `[offload]` section.
        plan: The upstreams that can take the request.
        caller: The caller of the request.
    """
    return next(_obstacles(settings, offload, plan, caller), "")


async def grant(
    upstream: str, base_url: str, path: bytes, used: UpstreamCredential | None, cache_seconds: float
) -> Grant:
    """Return what nginx has to know to relay a request.

    nginx compares every header with every name that its configuration reads, letter by letter, so the names
    begin with different letters.

    Args:
        upstream: The name of the upstream, and of its block in nginx's configuration.
        base_url: The address of the upstream.
        path: The path of the request below the version.
        used: The credential of the upstream; None if it needs none.
        cache_seconds: How long nginx may use the response at most.

    Raises:
        CredentialError: No token is available.
    """
    url = urlsplit(base_url)
    headers = {
        "Host-Offload": url.netloc,
        "Upstream-Offload": upstream,
        "Url-Offload": f"{url.scheme}://{upstream}{url.path.rstrip('/')}{path.decode('latin-1')}",
    }
    valid = math.inf
    if used is not None:
        token = await used.source.get()
        written, _ = write_token(used.inject, token, [], b"")
        headers |= {f"{name.decode()}-Offload": value.decode() for name, value in written}
        valid = max(token.expires_at - used.source.clock(), 0.0)
    seconds = math.floor(min(cache_seconds, valid))
    return Grant(headers, seconds, math.floor(min(STALE_SECONDS_MAX, valid - seconds)))


def cache_control(seconds: int, stale_seconds: int = 0) -> str:
    """Return the Cache-Control header (RFC 5861) of a response to nginx.

    Args:
        seconds: How long nginx may use the response; in the last `RENEWAL_SECONDS` of them, only while it
            asks for the next one.
        stale_seconds: How much longer it may use the response while it cannot ask.
    """
    if not seconds:
        return "no-store"
    renewal = RENEWAL_SECONDS if seconds > RENEWAL_SECONDS else 0
    extensions = {
        "stale-while-revalidate": renewal,
        "stale-if-error": stale_seconds and renewal + stale_seconds,
    }
    return ", ".join(
        [f"max-age={seconds - renewal}", *(f"{name}={v}" for name, v in extensions.items() if v)]
    )


def _obstacles(settings: Settings, offload: Offload, plan: Sequence[Route], caller: Caller) -> Iterator[str]:
    route, endpoint = plan[0], plan[0].endpoint
    upstream = settings.upstreams[route.upstream]
    credential = None if upstream.credential is None else settings.credentials[upstream.credential]
    if endpoint.model is not ModelPlace.BODY or endpoint.form or endpoint.nested_models:
        yield "its endpoint needs the proxy"
    if settings.access.mode == "open":
        yield "no key is required, so the proxy has to check which page sent it"
    if caller.is_limited or caller.rate or caller.budget or caller.max_streams is not None:
        yield "its key has limits"
    if settings.routes.models:
        yield "its model decides which upstream it goes to"
    if len(plan) > 1:
        yield "several upstreams can take it"
    if route.upstream not in offload.upstreams:
        yield "[offload] upstreams does not name its upstream"
    if route.health.retry_in:
        yield "the circuit of its upstream is open"
    if upstream.proxy is not None:
        yield "its upstream is reached through an HTTP proxy"
    if upstream.ca_file is not None:
        yield "its upstream has certificates of its own"
    if upstream.timeouts.total:
        yield "its upstream has a total timeout"
    if upstream.retries.attempts:
        yield "its upstream has retries"
    if upstream.renames:
        yield "its upstream renames models"
    if upstream.headers or upstream.forward_openai_account:
        yield "its upstream has configured headers"
    if route.repairs:
        yield "its key or its upstream has repairs"
    if route.heartbeat and endpoint.heartbeats:
        yield "its streams have a heartbeat"
    if settings.logs.bodies:
        yield "its body is logged"
    if credential is not None:
        if (
            credential.inject.query is not None
            or _token_header(credential.inject.header) not in TOKEN_HEADERS
        ):
            yield "nginx cannot write its token"
        if not HANDED_OVER.issuperset(rule.status for rule in credential.invalidate_on):
            yield "its token may be rejected with a status that nginx does not hand to the proxy"


def _token_header(name: str | None) -> str:
    return "" if name is None else name.lower()

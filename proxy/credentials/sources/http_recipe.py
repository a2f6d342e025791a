"""Ask a token endpoint over HTTP, as a recipe describes it: any request, any reply, no code.

There is no retry here: the cached source is the only authority on that. No redirect is followed, since it
would carry the client's secret elsewhere; a reply is read up to a cap; not a byte of it reaches a log.
"""

import asyncio
import http.cookiejar
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx2

from proxy.credentials.credential import Credential, FetchedToken
from proxy.credentials.sources import OtherCredentials, TokenFetchError, TokenInUse
from proxy.credentials.sources.expiry import Reply, is_certain, read_lifetime
from proxy.credentials.sources.reply_body import cookies_of, parse_body
from proxy.credentials.sources.reply_faults import (
    doubt_lifetime,
    life_over,
    status_fault,
    success_fault,
    token_fault,
)
from proxy.credentials.sources.request_values import Moment, credentials_in
from proxy.credentials.sources.token_text import is_token
from proxy.errors import CredentialError
from proxy.secret import Secret
from proxy.telemetry import get_logger
from proxy.transport_failure import explain, origin_of

REPLY_BYTES_MAX: Final = 1 << 20
CLOCK_MARGIN: Final = 0.95
"""Part of the timeout after which a request gives up by itself, before the clock of the whole fetch runs out:
that one cannot say which endpoint was slow."""
CONNECT_FRACTION: Final = 0.9
_OF_PROXIES: Final = frozenset(
    {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED}
)
"""Only something on this machine's own way to the endpoint answers so (RFC 9110 15.5.8, RFC 6585 6)."""
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to ask one token endpoint, and how to read its reply. `request_values` says what leaves may be."""

    url: str
    method: str = "POST"
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, Any] | None = None
    basic: tuple[Any, Any] | None = None
    """User and password as RFC 7617 has them; OAuth 2.0's extra escaping is done by who builds the recipe."""
    success: tuple[str, Any] | None = None
    """A dotted path in the reply and the value that means success."""
    token: str | None = "access_token"  # noqa: S105 - a path
    """Dotted path of the token in the JSON reply."""
    token_header: str | None = None
    """Or the reply header that carries it."""
    token_text: bool = False
    """Or the whole reply is the token."""
    expires: tuple[tuple[str, str], ...] = ()
    """Candidates of (path, unit) for the lifetime."""
    refresh_in: str | None = None
    """Dotted path of the issuer's own hint in seconds."""
    default_ttl: float = 300.0
    max_ttl: float = 31 * 86400.0
    timeout: float = 10.0
    connect_timeout: float = 2.0
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = None


class HttpTokenSource:
    """Runs one recipe on a connection pool of its own, apart from the upstream's.

    Args:
        recipe: What to send, and how to read the reply.
        others: Where the tokens come from that the request itself holds.
    """

    def __init__(self, recipe: Recipe, others: OtherCredentials | None = None) -> None:
        self._recipe = recipe
        self._others = others
        self._needed = {
            *credentials_in((recipe.query, recipe.headers, recipe.json, recipe.form, recipe.basic))
        }
        self._client = httpx2.AsyncClient(
            verify=_tls_context(recipe),
            timeout=httpx2.Timeout(
                recipe.timeout, connect=min(recipe.connect_timeout, CONNECT_FRACTION * recipe.timeout)
            ),
            follow_redirects=False,
            trust_env=False,
            proxy=recipe.proxy,
            # No fetch depends on the one before: a session that has ended would fail the next.
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )
        self._uses: dict[str, TokenInUse] = {}
        self._log = get_logger("credentials")
        self._asked = f"the token endpoint {origin_of(recipe.url)}"

    async def fetch(self) -> FetchedToken:
        """Send the request and read the token from the reply."""
        return self.read(await self.ask())

    async def ask(self) -> Reply:
        """Send the request once, and return the reply unread, whatever its status.

        Raises:
            TokenFetchError: no reply, or one that is too large.
        """
        moment = Moment(await self._tokens())
        try:
            async with (
                asyncio.timeout(CLOCK_MARGIN * self._recipe.timeout),
                self._client.stream(**self._request(moment)) as response,
            ):
                self._note(response.status_code)
                body = await self._read_capped(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                headers |= cookies_of(response.headers.get_list("set-cookie"))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            failure = explain(error, self._recipe.url, self._recipe.proxy)
            raise TokenFetchError(f"the token endpoint {failure}") from error
        text = body.decode("utf-8", "replace")
        return Reply(parse_body(body), headers, time.time(), text, response.status_code)

    async def _read_capped(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > REPLY_BYTES_MAX:
                if response.is_success:
                    raise TokenFetchError(
                        f"the reply of {self._asked} is too large: check the URL", answered=True
                    )
                break  # its status is what counts
        return bytes(body)

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def _tokens(self) -> dict[str, Credential]:
        """The tokens that the request holds. One that was rejected the last time is not sent again."""
        tokens: dict[str, Credential] = {}
        if self._others is None:
            return tokens
        for name in sorted(self._needed):
            use = self._uses.pop(name, None) or self._others.use(name, self._recipe.url)
            try:
                token = await use.token()
            except CredentialError as error:
                raise TokenFetchError("a credential that the request holds has no token") from error
            if token is None:
                raise TokenFetchError(f"{self._asked} rejects the token of the credential {name}")
            self._uses[name], tokens[name] = use, token
        return tokens

    def _note(self, status: int) -> None:
        """A refusal may mean a token that the request held: the next attempt waits for a newer one."""
        for name, use in [*self._uses.items()]:
            if status in _REFUSALS:
                use.rejected(f"a token endpoint answered {status}")
                continue
            if status < HTTPStatus.MULTIPLE_CHOICES:
                use.accepted()
            del self._uses[name]

    def _request(self, moment: Moment) -> dict[str, Any]:
        recipe = self._recipe
        url = httpx2.URL(recipe.url)
        request: dict[str, Any] = {
            "method": recipe.method,
            # Merged only where there is something: it writes the URL's own query anew.
            "url": url.copy_merge_params(moment.fill(recipe.query)) if recipe.query else url,
            "headers": moment.fill(recipe.headers),
        }
        if recipe.json is not None:
            request["json"] = moment.fill_json(recipe.json)
        if recipe.form is not None:
            request["data"] = moment.fill(recipe.form)
        if recipe.basic is not None:
            request["auth"] = moment.fill(recipe.basic)
        return request

    def read(self, reply: Reply) -> FetchedToken:
        """The token in a reply.

        Raises:
            TokenFetchError: the status or the reply is a failure, or no token is where the recipe says.
        """
        recipe = self._recipe
        self._check_status(reply)
        if recipe.success is not None and reply.find(recipe.success[0]) != recipe.success[1]:
            fault = success_fault(reply, *recipe.success)
            raise TokenFetchError(f"the reply of {self._asked} {fault}", answered=True)
        token = self._token_of(reply)
        if not is_token(token):
            place = recipe.token_header or recipe.token or "its text"
            fault = token_fault(reply, place, in_body=recipe.token_header is None and not recipe.token_text)
            raise TokenFetchError(f"the reply of {self._asked} {fault}", answered=True)
        over = life_over(recipe.expires, reply, token, recipe.max_ttl)
        if over is not None:
            raise TokenFetchError(f"the reply of {self._asked} {over}", answered=True)
        lifetime = read_lifetime(recipe.expires, reply, token, recipe.max_ttl)
        doubt = doubt_lifetime(
            recipe.expires, reply, token, default_ttl=recipe.default_ttl, max_ttl=recipe.max_ttl
        )
        if doubt is not None:
            self._log.warning(doubt.event, reason=doubt.reason)
        hint = [(recipe.refresh_in, "seconds")] if recipe.refresh_in else []
        refresh_in = read_lifetime(hint, reply, token, recipe.max_ttl)
        certain = is_certain(recipe.expires, reply, token, recipe.max_ttl)
        return FetchedToken(Secret(token), lifetime or recipe.default_ttl, refresh_in, doubt, certain)

    def _check_status(self, reply: Reply) -> None:
        """Refuse a status that is no success."""
        if HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        # A refusal of a request that holds another token may mean that token: the next try brings a new one.
        # Any other status, 404 too, may come from something in between that is just being replaced.
        permanent = reply.status in _REFUSALS and not self._needed
        raise TokenFetchError(
            f"{self._asked} {status_fault(reply)}",
            permanent=permanent,
            retry_after=None if permanent else _retry_after(reply.headers.get("retry-after")),
            answered=reply.status not in _OF_PROXIES,
        )

    def _token_of(self, reply: Reply) -> Any:
        recipe = self._recipe
        if recipe.token_header is not None:
            return reply.headers.get(recipe.token_header.lower())
        if recipe.token_text:
            return reply.text.strip()
        return reply.find(recipe.token or "")


def _retry_after(value: str | None) -> float | None:
    """RFC 9110 10.2.3: seconds or a date."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0) if value.strip().isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)


def _tls_context(recipe: Recipe) -> ssl.SSLContext | bool:
    if httpx2.URL(recipe.url).scheme == "http":
        return False  # building a context costs tens of milliseconds, and nothing would use it
    if recipe.ca_file is None and recipe.client_cert is None:
        return True
    context = ssl.create_default_context(cafile=None if recipe.ca_file is None else str(recipe.ca_file))
    if recipe.client_cert is not None:
        context.load_cert_chain(recipe.client_cert, recipe.client_key)
    return context

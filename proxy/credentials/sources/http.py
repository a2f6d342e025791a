"""Fetch a token from an HTTP endpoint that the settings describe.

Only the cached source retries. Redirects are not followed, because they could send the client's secret to
another host. Replies are limited in size and never logged.
"""

import asyncio
import http.cookiejar
import ssl
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2

from proxy.credentials.sources import OtherCredentials, TokenFetchError, TokenInUse, TokenSource
from proxy.credentials.sources.reply import (
    Reply,
    codec_of,
    cookies_of,
    is_certain,
    is_token,
    own_expiry,
    parse_body,
    read_lifetime,
)
from proxy.credentials.sources.reply_faults import (
    doubt_lifetime,
    life_over,
    status_fault,
    success_fault,
    token_fault,
)
from proxy.credentials.sources.request_values import Moment, credentials_in
from proxy.credentials.token import FetchedToken, Token
from proxy.errors import CredentialError
from proxy.secret import Secret
from proxy.secret_detection import OAUTH_ERRORS
from proxy.settings import HttpCredential
from proxy.settings.credentials.http import candidates_of
from proxy.settings.credentials.section import RequestSection
from proxy.telemetry import get_logger
from proxy.tls_contexts import TlsFiles, build_context
from proxy.transport_failure import explain, origin_of
from proxy.wire.headers import content_coding
from proxy.wire.http_date import read_http_date
from proxy.wire.redaction import Expansion

REPLY_BYTES_MAX: Final = 1 << 20
PIECES_MAX: Final = 20_000
"""The maximum number of pieces of a reply: even one of a single byte takes as long as several kilobytes."""
PIECES_AT_ONCE: Final = 64
"""After so many pieces, other tasks run: pieces that have arrived together are read without a pause."""
CLOCK_MARGIN: Final = 0.95
"""The part of the timeout that a request may take. It ends before the time limit of the whole fetch, whose
error could not name the endpoint."""
CONNECT_FRACTION: Final = 0.9
PROXY_STATUSES: Final = frozenset(
    {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED}
)
"""Statuses that only a proxy near this machine sends (RFC 9110 15.5.8, RFC 6585 6)."""
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_PERMANENT_ERRORS: Final = OAUTH_ERRORS - {"temporarily_unavailable", "server_error"}


class HttpTokenSource(TokenSource):
    """Sends the request of a section, on a connection pool separate from that of the upstreams.

    Args:
        section: The request, and how to read the reply. For values in the request, see `request_values`.
        others: The tokens of other credentials that the request contains.
        contexts: TLS contexts; those of `tls_needs` that are missing are built here.
    """

    def __init__(
        self,
        section: HttpCredential,
        others: OtherCredentials | None = None,
        contexts: Mapping[TlsFiles, ssl.SSLContext] | None = None,
    ) -> None:
        known = contexts or {}
        of_host, of_proxy = (
            None if files is None else known.get(files) or build_context(files)
            for files in (_tls_of_host(section, section.url), _tls_of_proxy(section))
        )
        self._section = section
        self._others = others
        self._needed = {
            *credentials_in((section.query, section.headers, section.json_body, section.form, section.basic))
        }
        self._client = httpx2.AsyncClient(
            verify=of_host or False,
            timeout=httpx2.Timeout(
                section.timeout, connect=min(section.connect_timeout, CONNECT_FRACTION * section.timeout)
            ),
            follow_redirects=False,
            headers={"accept-encoding": "gzip, deflate"},
            trust_env=False,
            proxy=None if section.proxy is None else httpx2.Proxy(section.proxy, ssl_context=of_proxy),
            # The next fetch is minutes away: until then a kept connection only holds a descriptor, or dies.
            limits=httpx2.Limits(max_keepalive_connections=0),
            # Cookies of one fetch must not affect the next: their session may have ended.
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )
        self._uses: dict[str, TokenInUse] = {}
        self._log = get_logger("credentials")
        self._endpoint = f"the token endpoint {origin_of(section.url)}"

    async def fetch(self) -> FetchedToken:
        """Send the request and read the token from the reply."""
        return self.read(await self.ask())

    async def ask(self) -> Reply:
        """Send the request once, and return the reply with any status.

        Raises:
            TokenFetchError: There is no reply, or it is too large.
        """
        moment = Moment(await self._tokens())
        try:
            async with (
                asyncio.timeout(CLOCK_MARGIN * self._section.timeout),
                self._client.stream(**self._request(moment)) as response,
            ):
                self._record(response.status_code)
                body = await self._read_capped(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                headers |= cookies_of(response.headers.get_list("set-cookie"))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            failure = explain(error, self._section.url, self._section.proxy)
            raise TokenFetchError(f"the token endpoint {failure}") from error
        codec = codec_of(body, headers.get("content-type", ""))
        text = body.decode(codec or "utf-8", "replace")
        return Reply(parse_body(body, codec), headers, time.time(), text, response.status_code)

    async def _read_capped(self, response: httpx2.Response) -> bytes:
        """Return the expanded body; of an error, as much as can be read.

        httpx2 would expand each piece as a whole, and several codings on top of each other, before a limit
        applies: a few hundred bytes could block the event loop for minutes.
        """
        coding = content_coding(response.headers.raw)
        expansion = Expansion.of(coding)
        if coding and expansion is None:
            return self._unreadable(response, b"", "has a Content-Encoding that was not asked for")
        body, received, pieces = bytearray(), 0, 0
        async for chunk in response.aiter_raw():
            received, pieces = received + len(chunk), pieces + 1
            if pieces % PIECES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if expansion is None:
                body += chunk
            else:
                try:
                    body += expansion.expand(chunk)
                    while expansion.has_more and len(body) <= REPLY_BYTES_MAX:
                        body += expansion.expand()
                except ValueError:
                    return self._unreadable(response, bytes(body), "is not in its Content-Encoding")
            if max(len(body), received) > REPLY_BYTES_MAX or pieces > PIECES_MAX:
                return self._unreadable(response, bytes(body), "is too large: check the URL")
        try:
            if expansion is not None:
                expansion.check_end()
        except ValueError:
            return self._unreadable(response, bytes(body), "was cut off within its Content-Encoding")
        return bytes(body)

    def _unreadable(self, response: httpx2.Response, body: bytes, fault: str) -> bytes:
        """Return what was read of an error, whose status is enough; reject any other reply."""
        if response.is_success:
            raise TokenFetchError(f"the reply of {self._endpoint} {fault}", has_reply=True)
        return body

    async def close(self) -> None:
        """Close the connection pool."""
        await self._client.aclose()

    async def _tokens(self) -> dict[str, Token]:
        """Return the tokens that the request contains, but none that was rejected the last time."""
        tokens: dict[str, Token] = {}
        if self._others is None:
            return tokens
        for name in sorted(self._needed):
            use = self._uses.pop(name, None) or self._others.use(name, self._section.url)
            try:
                token = await use.token()
            except CredentialError as error:
                raise TokenFetchError("a credential in the request has no token") from error
            if token is None:
                raise TokenFetchError(f"{self._endpoint} rejects the token of the credential {name}")
            self._uses[name], tokens[name] = use, token
        return tokens

    def _record(self, status: int) -> None:
        """Record whether the tokens in the request were accepted. Rejected ones are replaced next time."""
        for name, use in [*self._uses.items()]:
            if status in _REFUSALS:
                use.rejected(f"a token endpoint answered {status}")
                continue
            if status < HTTPStatus.MULTIPLE_CHOICES:
                use.accepted()
            del self._uses[name]

    def _request(self, moment: Moment) -> dict[str, Any]:
        section = self._section
        url = httpx2.URL(section.url)
        request: dict[str, Any] = {
            "method": section.method,
            "url": url,
            "headers": {name: str(moment.fill(text)).encode() for name, text in section.headers.items()},
        }
        if section.query:  # merging rewrites the query of the URL
            request["url"] = url.copy_merge_params(cast(dict[str, str], moment.fill(section.query)))
        if section.json_body is not None:
            request["json"] = moment.fill_json(section.json_body)
        if section.form is not None:
            request["data"] = moment.fill(section.form)
        if section.basic is not None:
            request["auth"] = moment.fill(section.basic)
        return request

    def read(self, reply: Reply) -> FetchedToken:
        """Read the token from a reply.

        Raises:
            TokenFetchError: The reply is a failure, or contains no valid token.
        """
        section = self._section
        self._check_status(reply)
        success = section.success
        if success is not None and reply.find(success.path) != success.equals:
            fault = success_fault(reply, success.path, success.equals)
            raise TokenFetchError(f"the reply of {self._endpoint} {fault}", has_reply=True)
        token = self._token_of(reply)
        if not is_token(token):
            place = section.token_header or section.token or "its text"
            fault = token_fault(reply, place, in_body=section.token_header is None and not section.token_text)
            raise TokenFetchError(f"the reply of {self._endpoint} {fault}", has_reply=True)
        configured = candidates_of(section.expires)
        over = life_over(configured, reply, token, section.max_ttl)
        if over is not None:
            raise TokenFetchError(f"the reply of {self._endpoint} {over}", has_reply=True)
        expires = [*configured, *own_expiry(token)]
        lifetime = read_lifetime(expires, reply, token, section.max_ttl) or section.default_ttl
        if not configured:  # default_ttl may be the session's, which is shorter than the token's
            lifetime = min(lifetime, section.default_ttl)
        doubt = doubt_lifetime(
            expires if configured else [],
            reply,
            token,
            default_ttl=section.default_ttl,
            max_ttl=section.max_ttl,
        )
        if doubt is not None:
            self._log.warning(doubt.event, reason=doubt.reason)
        hint = [(section.refresh_in, "seconds")] if section.refresh_in else []
        refresh_in = read_lifetime(hint, reply, token, section.max_ttl)
        certain = is_certain(expires, reply, token, section.max_ttl)
        return FetchedToken(Secret(token), lifetime, refresh_in, doubt, certain)

    def _check_status(self, reply: Reply) -> None:
        """Raise an error for any status other than success."""
        if HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        # If the request contains another token, a refusal may be due to that token, and the next attempt uses
        # a new one. Any other status, even 404, may come from an intermediary that is being restarted.
        # So may a refusal that asks for another attempt: rate limits and firewalls answer 403 and 400, too.
        retry_after = read_retry_after(reply.headers.get("retry-after"), reply.server_time)
        is_passing = _is_passing(reply, retry_after)
        permanent = reply.status in _REFUSALS and not self._needed and not is_passing
        more = "; or wait, because it asks for another attempt later" if is_passing else ""
        raise TokenFetchError(
            f"{self._endpoint} {status_fault(reply)}{more}",
            permanent=permanent,
            retry_after=None if permanent else retry_after,
            has_reply=reply.status not in PROXY_STATUSES,
        )

    def _token_of(self, reply: Reply) -> object:
        section = self._section
        if section.token_header is not None:
            return reply.headers.get(section.token_header.lower())
        if section.token_text:
            return reply.text.strip()
        return reply.find(section.token or "")


def _is_passing(reply: Reply, retry_after: float | None) -> bool:
    """Whether a refusal asks for another attempt, and does not say that the client itself is at fault."""
    if reply.status not in _REFUSALS or reply.status == HTTPStatus.UNAUTHORIZED:
        return False
    error = reply.find("error")
    is_named = isinstance(error, str) and error in _PERMANENT_ERRORS
    return retry_after is not None and not is_named


def read_retry_after(value: str | None, server_time: float) -> float | None:
    """Convert a Retry-After header, which contains seconds or a date (RFC 9110 10.2.3), to seconds.

    Args:
        value: The value of the header.
        server_time: The time by the clock of the server that wrote the date, in seconds since the epoch.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    date = read_http_date(value)
    return None if date is None else max(date - server_time, 0.0)


def tls_needs(section: RequestSection, url: str) -> list[TlsFiles]:
    """Return the files of the TLS contexts that requests to a URL need: for its host, and for the proxy."""
    return [files for files in (_tls_of_host(section, url), _tls_of_proxy(section)) if files is not None]


def _tls_of_host(section: RequestSection, url: str) -> TlsFiles | None:
    return TlsFiles(section.ca_file, section.client_cert, section.client_key) if _is_secure(url) else None


def _tls_of_proxy(section: RequestSection) -> TlsFiles | None:
    return TlsFiles() if section.proxy is not None and _is_secure(section.proxy) else None


def _is_secure(url: str) -> bool:
    return urlsplit(url).scheme == "https"

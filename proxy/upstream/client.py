"""Send one request with a live token, and return the unread response. Only this module uses AsyncOpenAI."""

import asyncio
import functools
import ssl
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import httpx2

from proxy.credentials import Token, UpstreamCredential
from proxy.credentials.rejections import Purpose
from proxy.credentials.upstream_credential import BODY_BYTES_MAX, TokenUse, write_token
from proxy.errors import (
    Aborted,
    BadResponse,
    InvalidRequest,
    InvalidResponse,
    Overloaded,
    ProxyError,
    TokenRejected,
    TokenUnavailable,
    Unreachable,
    UpstreamTimeout,
)
from proxy.lean_imports import lazy_packages
from proxy.settings import Upstream
from proxy.telemetry import ExchangeRecord
from proxy.tls_contexts import TlsFiles, build_context
from proxy.transport_failure import explain, origin_of
from proxy.upstream.redacted import SentSecrets
from proxy.upstream.requests import SendClock, UpstreamRequest
from proxy.upstream.transport import UpstreamResponse, UpstreamTransport
from proxy.wire.endpoints import OTHER
from proxy.wire.error_envelope import forbidden_error
from proxy.wire.headers import OPENAI_ACCOUNT, Headers, find_header, media_type, relocate, with_hyphens
from proxy.wire.paths import loggable_path
from proxy.wire.redaction import Redactor
from proxy.wire.statuses import BAD_REQUEST, NOT_FOUND, OK

with lazy_packages("openai.lib", "openai.types"):  # hundreds of modules for JSON, which is relayed
    from openai import AsyncOpenAI

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REJECTION_SECONDS: Final = 1.0
"""The timeout for the body of a rejection, which is needed only if no other token helps."""


class RunningRequests:
    """The requests to each upstream that have not been answered completely.

    The clients of several configurations share the count, because they all load the same upstream.
    """

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str]]()

    def begin(self, upstream: tuple[str, str], limit: int) -> None:
        """Count a request; `end` must follow.

        Args:
            upstream: The name and the base URL of the upstream.
            limit: The number of requests that may run.

        Raises:
            Overloaded: So many requests are running.
        """
        if self.of(upstream) >= limit:
            raise Overloaded
        self._counts[upstream] += 1

    def end(self, upstream: tuple[str, str]) -> None:
        """Forget a request that has ended."""
        self._counts[upstream] -= 1
        if not self._counts[upstream]:
            del self._counts[upstream]

    def of(self, upstream: tuple[str, str]) -> int:
        """Return the number of running requests."""
        return self._counts[upstream]


class UpstreamClient(AsyncOpenAI):
    """The SDK's client for one upstream, without its retries, redirects and error handling.

    The SDK's own request path raises on statuses, reads bodies, adds headers and cannot carry every method
    and path. So the request is built here from raw bytes and sent through the transport of the client.

    Args:
        name: The upstream's name in the configuration.
        settings: Its section.
        credential: The credential whose token is sent; None if the upstream needs none.
        running: Counts its requests together with those of other configurations; by default it has no others.
        tls: The TLS context of `tls_files_of`, if it needs one; by default it is built here.
    """

    def __init__(
        self,
        name: str,
        settings: Upstream,
        credential: UpstreamCredential | None,
        running: RunningRequests | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self._credential = credential
        self._limit = settings.max_connections
        self._running = running or RunningRequests()
        self._counted_as = name, settings.base_url
        self._extra = [(key.lower().encode(), value.encode()) for key, value in settings.headers.items()]
        self._dropped_headers = {with_hyphens(key) for key, _ in self._extra}
        if not settings.forward_openai_account:
            self._dropped_headers |= OPENAI_ACCOUNT
        self._secrets = SentSecrets(settings.headers)
        self._connect_seconds = settings.timeouts.connect or None
        self._explain = functools.partial(explain, url=settings.base_url, proxy=settings.proxy)
        files = tls_files_of(settings)
        context = False if files is None else tls or build_context(files)
        self._transport = UpstreamTransport(tls=context, proxy=settings.proxy)
        super().__init__(
            api_key="unused: the live token is written into each request",
            base_url=settings.base_url,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=self._transport, trust_env=False),
        )
        url = httpx2.URL(settings.base_url)
        self._base_url_text = str(url)
        self._origin = f"{url.scheme}://{url.netloc.decode()}"
        self._base_path = url.raw_path.rstrip(b"/")

    @property
    def running(self) -> int:
        """The number of requests that have not been answered completely, also of earlier configurations."""
        return self._running.of(self._counted_as)

    async def open(self, request: UpstreamRequest, record: ExchangeRecord) -> UpstreamResponse:
        """Send a request, and return the response, whose body is unread. The caller closes it.

        If the upstream rejects the token, a request with a held body is sent again with a newer token.

        Args:
            request: The request without the credential.
            record: Receives the number of the token, and how often the request was sent again.

        Raises:
            CredentialError: There is no token, or the upstream accepts none.
            UpstreamForbidden: The upstream rejects this request with every token.
            Unreachable, BadResponse, UpstreamTimeout: There is no response that can be relayed.
            Overloaded: `max_connections` requests are in progress.
        """
        self._running.begin(self._counted_as, self._limit)
        is_open = False
        try:
            use = self._use_token(request)
            if use is None:
                response, redactor = await self._send(request, None, record)
            else:
                rejection = (0, b"")
                while (token := await _token(use, request.clock)) is not None:
                    record.generation, record.replays = token.generation, use.sends - 1
                    response, redactor = await self._send(request, token, record)
                    if not await self._rejects(response):
                        break
                    rejection = response.status, redactor.redact(await self._read_rejection(response))
                    if not use.rejected(f"the upstream answered {response.status}"):
                        raise self._denied(use, rejection)
                    if not isinstance(request.body, bytes):
                        if await _token(use, request.clock) is None:
                            raise self._denied(use, rejection)
                        # The caller's next try finds the newer token.
                        reason = "the token was rejected, and a streamed upload cannot be sent again"
                        raise TokenUnavailable(reason=reason)
                else:
                    raise self._denied(use, rejection)
                if response.status < BAD_REQUEST:
                    use.accepted()
            record.reason = wrong_base_url(self._base_url_text, response.status, response.headers)
            response.headers = relocate(response.headers, self._base_url_text, request.path)
            response.prepare(redactor, self._cut_off, self._closed)
            is_open = True  # From here on, the request counts until its response is closed.
            return response
        finally:
            if not is_open:
                self._closed()

    def _closed(self) -> None:
        self._running.end(self._counted_as)

    def _cut_off(self, error: httpx2.TransportError) -> Aborted:
        return Aborted(reason=str(self._explain(error)))

    def _use_token(self, request: UpstreamRequest) -> TokenUse | None:
        if self._credential is None:
            return None
        # Unknown endpoints differ by their paths. A rejection is logged with its purpose.
        endpoint = loggable_path(request.path) if request.endpoint is OTHER else request.endpoint.name
        purpose = Purpose.of(request.method, endpoint, request.model, self.name)
        return TokenUse(self._credential.source, request.caller, purpose)

    def _denied(self, use: TokenUse, rejection: tuple[int, bytes]) -> ProxyError:
        """Return the error of a request that is rejected whatever the token."""
        if not use.ever_accepted:
            return TokenRejected(
                reason=f"{origin_of(self._base_url_text)} rejects the token, and its successor as well; "
                "check the credential: its scope, its audience, and which upstreams it is for"
            )
        status, body = rejection
        return forbidden_error(status, body)

    async def _send(
        self, request: UpstreamRequest, token: Token | None, record: ExchangeRecord
    ) -> tuple[UpstreamResponse, Redactor]:
        """Send a request; return the response, and what masks secrets in it."""
        dropped = self._dropped_headers
        headers = [pair for pair in request.headers if pair[0].replace(b"_", b"-") not in dropped]
        headers += self._extra
        query = request.query
        if token is not None and self._credential is not None:
            headers, query = write_token(self._credential.inject, token, headers, query)
        if request.content_length is not None:
            headers.append((b"content-length", str(request.content_length).encode()))
        redactor = self._secrets.add(token)
        target = self._base_path + request.path + (b"?" + query if query else b"")
        transport, connect = self._transport, self._connect_seconds
        try:
            if request.subprotocols is None:
                response = await transport.send(
                    request.method, self._origin, target, headers, request.body,
                    connect=connect, unanswered=record.note_unanswered,
                )  # fmt: skip
            else:
                response = await transport.open_socket(
                    self._origin, target, headers, request.subprotocols, connect=connect
                )
        except (httpx2.TransportError, httpx2.InvalidURL, UnicodeDecodeError) as error:
            raise self._translate(error) from error
        if response.status < OK and response.socket is None:
            await response.aclose()
            raise InvalidResponse("a change of protocol that was not asked for")
        if _is_redirect(response):
            await response.aclose()
            origin = origin_of(self._base_url_text)
            raise InvalidResponse(
                "a redirect, which the proxy does not follow",
                reason=f"{origin} answered {response.status}, a redirect, which is not followed; "
                "write the final address in base_url",
            )
        return response, redactor

    def _translate(self, error: Exception) -> ProxyError:
        """Return our own error for an error of the transport; the log gets the explanation."""
        if isinstance(error, UnicodeDecodeError):
            return InvalidRequest("a request header is not valid UTF-8")
        if isinstance(error, httpx2.PoolTimeout):
            return Overloaded()
        reason = str(self._explain(error))
        if isinstance(error, httpx2.ConnectTimeout):
            return UpstreamTimeout(reason=reason)
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return Unreachable(reason=reason)
        return BadResponse(reason=reason)

    async def _rejects(self, response: UpstreamResponse) -> bool:
        """Whether a response rejects our token."""
        if self._credential is None:
            return False
        status, headers, rules = response.status, response.headers, self._credential.rejection
        if rules.match_head(status, headers):
            return True
        if not rules.need_body(status, headers):
            return False
        beginning: bytes | None = None
        try:
            beginning = await response.peek(BODY_BYTES_MAX)
        except httpx2.TransportError as error:
            raise self._translate(error) from error
        finally:
            if (
                beginning is None
            ):  # even if the caller disconnects meanwhile: nothing else closes this response
                await response.aclose()
        return rules.match_body(status, headers, beginning)

    async def _read_rejection(self, response: UpstreamResponse) -> bytes:
        """Return what arrives in time of the body of a rejection, and close the response."""
        try:
            async with asyncio.timeout(REJECTION_SECONDS):
                return await response.peek(BODY_BYTES_MAX)
        except (httpx2.TransportError, TimeoutError):
            return b""
        finally:
            await response.aclose()


def wrong_base_url(base_url: str, status: int, headers: Headers) -> str | None:
    """Explain a 404 that looks as if `base_url` did not point to the API: a text for the log, or None."""
    if status != NOT_FOUND:
        return None
    page = media_type(find_header(headers, b"content-type")) == b"text/html"
    if not page and urlsplit(base_url).path.strip("/"):
        return None
    kind = "with an HTML page" if page else "and base_url has no path"
    return f"{origin_of(base_url)} answered 404 {kind}; check that base_url has its version, such as /v1"


async def _token(use: TokenUse, clock: SendClock | None) -> Token | None:
    """Get a token; the wait for it has its own timeouts."""
    if clock is None or use.is_ready:
        return await use.token()
    clock.suspend()
    try:
        return await use.token()
    finally:
        clock.restart()


def _is_redirect(response: UpstreamResponse) -> bool:
    return response.status in _REDIRECTS and find_header(response.headers, b"location") is not None


def tls_files_of(settings: Upstream) -> TlsFiles | None:
    """Return the files of the TLS context that an upstream or its proxy needs; None if neither needs one."""
    is_secure = any(urlsplit(url).scheme == "https" for url in (settings.base_url, settings.proxy or ""))
    return TlsFiles(settings.ca_file) if is_secure else None

"""The only room that knows AsyncOpenAI: send one request with a live token, hand back an unread response."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI

from proxy.credentials import Credential, UpstreamCredential
from proxy.credentials.refusal import BODY_BYTES_MAX
from proxy.credentials.suspicion import Purpose
from proxy.credentials.token_use import TokenUse
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
from proxy.settings import Upstream
from proxy.telemetry import ExchangeRecord
from proxy.transport_failure import TransportFailure, explain, origin_of
from proxy.upstream.redacted import RedactedBody, SentSecrets, without_coding
from proxy.upstream.requests import SendClock, UpstreamRequest
from proxy.upstream.transport import AiohttpTransport, ArrivingBody, ArrivingMessages
from proxy.wire.endpoints import OTHER
from proxy.wire.error_envelope import forbidden_error
from proxy.wire.headers import OPENAI_ACCOUNT, Headers, find_header, media_type, relocate, with_hyphens
from proxy.wire.redaction import Redactor

Explain = Callable[[Exception], TransportFailure]

REJECTION_SECONDS: Final = 1.0
"""For the body of an answer that rejects our token, which is needed only if no other token helps."""


class UpstreamClient(AsyncOpenAI):
    """The SDK's client for one upstream, without its retries, redirects and error handling.

    The SDK's own request path raises on statuses, reads bodies, adds headers and cannot carry every method
    and path; so a request is built here from raw bytes and goes out through the client's own HTTP client.

    Args:
        name: The upstream's name in the configuration.
        settings: Its section.
        credential: Whose token is sent; None for an upstream without one.
    """

    def __init__(self, name: str, settings: Upstream, credential: UpstreamCredential | None) -> None:
        self.name = name
        self._credential = credential
        self._limit = settings.max_connections
        self._open = 0
        self._extra = [(key.lower().encode(), value.encode()) for key, value in settings.headers.items()]
        self._never_up = {with_hyphens(key) for key, _ in self._extra}
        if not settings.forward_openai_account:
            self._never_up |= OPENAI_ACCOUNT
        self._secrets = SentSecrets(settings.headers)
        self._timeout = {"connect": settings.timeouts.connect or None}
        self._explain = functools.partial(explain, url=settings.base_url, proxy=settings.proxy)
        transport = AiohttpTransport(tls=_tls_context(settings), proxy=settings.proxy)
        self._http = httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)
        super().__init__(
            api_key="unused: the live token is written into each request",
            base_url=settings.base_url,
            max_retries=0,
            http_client=self._http,
        )
        self._url = httpx2.URL(settings.base_url)
        self._base_path = self._url.raw_path.rstrip(b"/")

    async def open(self, request: UpstreamRequest, record: ExchangeRecord) -> "UpstreamResponse":
        """Send a request; the response is unread, and must be closed.

        A 401 against our own token is repaired unseen: the token is refreshed and a held body sent once more.

        Raises:
            CredentialError: no token, or none that the upstream accepts.
            UpstreamForbidden: the upstream rejects this request whatever the token.
            Unreachable, BadResponse, UpstreamTimeout, Overloaded: no answer that could be relayed.
        """
        if self._open >= self._limit:
            raise Overloaded
        self._open += 1
        try:
            response = await self._send_with_credential(request, record)
            record.reason = wrong_base_url(str(self._url), response.status_code, response.headers.raw)
            headers = relocate(response.headers.raw, str(self._url), request.path)
            return UpstreamResponse(response, headers, self._secrets.redactor, self._closed, self._explain)
        except BaseException:
            self._closed()
            raise

    def _closed(self) -> None:
        self._open -= 1

    async def _send_with_credential(
        self, request: UpstreamRequest, record: ExchangeRecord
    ) -> httpx2.Response:
        if self._credential is None:
            return await self._send(request, None)
        # Unknown endpoints are told apart by their paths.
        endpoint = request.path.decode("latin-1") if request.endpoint is OTHER else request.endpoint.name
        purpose = Purpose.of(request.method, endpoint, request.model)
        use, answer = TokenUse(self._credential.source, request.caller, purpose), (0, b"")
        while (token := await _token(use, request.clock)) is not None:
            record.generation, record.replays = token.generation, use.sends - 1
            response = await self._send(request, token)
            if not await self._rejects(response):
                if response.status_code < HTTPStatus.BAD_REQUEST:
                    use.accepted()
                return response
            answer = response.status_code, await self._read_rejection(response)
            if not use.rejected(f"the upstream answered {response.status_code}"):
                break
            if not isinstance(request.body, bytes):
                await _token(use, request.clock)  # the caller's next try finds a newer one, if there is one
                reason = "the token was rejected, and a streamed upload cannot be sent again"
                raise TokenUnavailable(reason=reason)
        if not use.ever_accepted:
            raise TokenRejected(
                reason=f"{origin_of(str(self._url))} refuses the token, and its successor as well; "
                "check the credential: its scope, its audience, and which upstreams it is for"
            )
        status, body = answer
        raise forbidden_error(status, self._secrets.redactor.redact(body))

    async def _send(self, request: UpstreamRequest, credential: Credential | None) -> httpx2.Response:
        headers = [pair for pair in request.headers if with_hyphens(pair[0]) not in self._never_up]
        headers += self._extra
        query = request.query
        if credential is not None and self._credential is not None:
            headers, query = self._credential.injection.apply(credential, headers, query)
            self._secrets.add(credential)
        if request.content_length is not None:
            headers.append((b"content-length", str(request.content_length).encode()))
        target = self._base_path + request.path + (b"?" + query if query else b"")
        extensions: dict[str, Any] = {"target": target, "timeout": self._timeout}
        if request.subprotocols is not None:
            extensions["subprotocols"] = request.subprotocols
        with _translated_errors(self._explain):
            response = await self._http.send(
                httpx2.Request(
                    request.method, self._url, headers=headers, content=request.body, extensions=extensions
                ),
                stream=True,
            )
        if response.status_code < HTTPStatus.OK and "socket" not in response.extensions:
            await response.aclose()
            raise InvalidResponse("a change of protocol that was not asked for")
        if response.has_redirect_location:
            await response.aclose()
            asked = origin_of(str(self._url))
            raise InvalidResponse(
                "a redirect, which the proxy does not follow",
                reason=f"{asked} answered {response.status_code}, a redirect, which is not followed; "
                "write the final address in base_url",
            )
        return response

    async def _rejects(self, response: httpx2.Response) -> bool:
        """Whether an answer rejects our token."""
        if self._credential is None:
            return False
        status, headers, rules = response.status_code, response.headers.raw, self._credential.refusal
        if rules.fit_head(status, headers):
            return True
        if not rules.ask_for_body(status, headers):
            return False
        body: ArrivingBody = response.extensions["body"]
        try:
            with _translated_errors(self._explain):
                return rules.fit_body(status, headers, await body.peek(BODY_BYTES_MAX))
        except BaseException:  # a caller who leaves meanwhile, too: nobody else knows of this answer yet
            await response.aclose()
            raise

    async def _read_rejection(self, response: httpx2.Response) -> bytes:
        """Read the answer that rejects our token, as far as it comes soon, and close it."""
        body: ArrivingBody = response.extensions["body"]
        try:
            async with asyncio.timeout(REJECTION_SECONDS):
                return await body.peek(BODY_BYTES_MAX)
        except (httpx2.TransportError, TimeoutError):
            return b""
        finally:
            await response.aclose()


def wrong_base_url(base_url: str, status: int, headers: Headers) -> str | None:
    """Explain a 404 that looks as if `base_url` leads past the API: words for the log, or None."""
    if status != HTTPStatus.NOT_FOUND:
        return None
    page = media_type(find_header(headers, b"content-type")) == b"text/html"
    if not page and urlsplit(base_url).path.strip("/"):
        return None
    kind = "with an HTML page" if page else "and base_url has no path"
    return f"{origin_of(base_url)} answered 404 {kind}; check that base_url has its version, such as /v1"


async def _token(use: TokenUse, clock: SendClock | None) -> Credential | None:
    """A token; the wait for it has bounds of its own."""
    if clock is None:
        return await use.token()
    clock.hold()
    try:
        return await use.token()
    finally:
        clock.sent()


class UpstreamResponse:
    """An answer whose body is read as it arrives, without the secrets that the upstream was sent."""

    def __init__(
        self,
        response: httpx2.Response,
        headers: Headers,
        redactor: Redactor,
        closed: Callable[[], None],
        explain: Explain,
    ) -> None:
        self.status = response.status_code
        self.headers = redactor.redact_values(headers)
        self.redact = redactor.redact
        """Masks the secrets in bytes of this answer."""
        self._redacted: RedactedBody | None = None
        if redactor and self.status >= HTTPStatus.BAD_REQUEST:
            self._redacted = RedactedBody(self._read, redactor, headers)
            self.headers = without_coding(self.headers)
        self._response = response
        self._body: ArrivingBody = response.extensions["body"]
        self.socket: ArrivingMessages | None = response.extensions.get("socket")
        """What a handshake opened, where it did."""
        self._closed = closed
        self._explain = explain

    async def read(self) -> bytes:
        """All that has arrived, after a wait for the first of it; nothing at the proper end.

        Raises:
            Aborted: the connection broke, or the answer ended before its announced length.
        """
        return await (self._read() if self._redacted is None else self._redacted.read())

    async def _read(self) -> bytes:
        try:
            return await self._body.read()
        except httpx2.TransportError as error:
            raise Aborted(reason=str(self._explain(error))) from error

    def fail(self, error: ProxyError) -> None:
        """Make the read that waits, or the next one, raise this error."""
        self._body.fail(error)

    async def aclose(self) -> None:
        """Let go of the connection; one whose answer was not read to its end is closed."""
        self._closed()
        await self._response.aclose()


@contextlib.contextmanager
def _translated_errors(explain: Explain) -> Iterator[None]:
    """Turn the HTTP library's errors, before there is an answer, into ours; the log gets the explanation."""
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise UpstreamTimeout(reason=str(explain(error))) from error
    except httpx2.PoolTimeout as error:
        raise Overloaded from error
    except (httpx2.ConnectError, httpx2.ProxyError) as error:
        raise Unreachable(reason=str(explain(error))) from error
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise BadResponse(reason=str(explain(error))) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("a request header is not valid UTF-8") from error


def _tls_context(settings: Upstream) -> ssl.SSLContext | bool:
    if not settings.base_url.startswith("https:"):
        return False  # building a context costs tens of milliseconds, and nothing would use it
    if settings.ca_file is not None:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    return ssl.create_default_context()

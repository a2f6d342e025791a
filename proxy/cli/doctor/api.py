"""Send requests to an OpenAI-compatible API, and note when each part of a response arrives.

The requests go through the client of the relay, so that the service would meet the same errors.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Self

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.network import of_failure
from proxy.credentials import UpstreamCredential
from proxy.errors import Aborted, ProxyError, TokenRejected
from proxy.settings import Upstream
from proxy.telemetry import ExchangeRecord
from proxy.transport_failure import FailureKind, TransportFailure, explain, origin_of
from proxy.upstream.client import UpstreamClient
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.transport import UpstreamResponse
from proxy.wire.endpoints import OTHER, Endpoint
from proxy.wire.event_stream import EVENT_END, is_event_stream
from proxy.wire.headers import Headers, content_coding, find_header, media_type
from proxy.wire.redaction import Expansion, Redactor

RESPONSE_BYTES_MAX: Final = 2 * 1024 * 1024
CHECK_SECONDS: Final = 60.0
_HEADERS: Final[Headers] = [
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),  # as clients send it, so that compression shows
    (b"content-type", b"application/json"),
    (b"user-agent", b"llm-token-proxy-doctor"),
]


class ReadOutcome(StrEnum):
    """How a body ended."""

    WHOLE = "whole"
    ENOUGH = "enough"
    """We stopped reading."""
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    """The content coding of the response is unknown, or the body is not in it."""


@dataclass(slots=True)
class TimedResponse:
    """A response. Times are in seconds since the request was sent."""

    status: int
    headers: Headers
    version: str
    body: bytes = b""
    """Decompressed, with secrets masked."""
    pieces: list[tuple[float, int]] = field(default_factory=list)
    """When each part of the body arrived, and the length of the body then."""
    end: ReadOutcome = ReadOutcome.WHOLE
    seconds: float = 0.0

    @property
    def is_event_stream(self) -> bool:
        """Whether the response says that it is an event stream."""
        return is_event_stream(self.headers)

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page."""
        start = self.body[:200].lstrip().lower()
        is_page = media_type(find_header(self.headers, b"content-type")) == b"text/html"
        return is_page or start.startswith((b"<!doctype html", b"<html"))

    def json(self) -> object:
        """Return the parsed body; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> dict[str, object]:
        """Return the parsed body; empty if it is not a JSON object."""
        found = self.json()
        return found if isinstance(found, dict) else {}

    @property
    def error(self) -> str:
        """The message of an error in any of the usual shapes; empty if there is none."""
        return error_in(self.json())

    @property
    def error_code(self) -> str:
        """The code of an error in OpenAI's shape."""
        error = self.json_object().get("error")
        return str(error.get("code") or "") if isinstance(error, dict) else ""

    def events(self) -> list[tuple[float, bytes]]:
        """Return the data of each whole event, and when its end arrived."""
        found, start, pieces = [], 0, iter(self.pieces)
        at, length = 0.0, 0
        for match in EVENT_END.finditer(self.body):
            while length < match.end():
                at, length = next(pieces, (at, match.end()))
            data = b"\n".join(_data_lines(self.body[start : match.start()]))
            start = match.end()
            if data:
                found.append((at, data))
        return found


def _data_lines(block: bytes) -> Iterable[bytes]:
    for line in block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            yield line.removeprefix(b"data:").removeprefix(b" ")


def first_object(value: object, key: str) -> dict[str, object]:
    """Return the first object in a list of an object; empty if there is none."""
    listed = value.get(key) if isinstance(value, dict) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    return first if isinstance(first, dict) else {}


def error_in(value: object) -> str:
    """Return the message of an error in any of the usual shapes; empty if there is none."""
    if not isinstance(value, dict):
        return ""
    error = value.get("error")
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or "error")
    if error:
        return str(error)
    code = value.get("code")
    is_result = "choices" in value or "data" in value
    if not is_result and code not in (None, 0, "0", 200, "200"):
        return str(value.get("message") or value.get("msg") or code)
    return ""


class CheckFailed(Exception):
    """There is no response to judge.

    Args:
        finding: The reason.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.id)
        self.finding = finding


class Api:
    """An API as one client sees it. Use it as a context manager, which closes its connections.

    Args:
        subject: Its name in findings.
        section: Where it is, and how it is reached.
        credential: The credential whose token is sent; None if the section has all headers.
        secrets: Masked in everything that is read.
        seconds: The time limit for one request with its response.
    """

    def __init__(
        self,
        subject: str,
        section: Upstream,
        credential: UpstreamCredential | None = None,
        *,
        secrets: Iterable[str] = (),
        seconds: float = CHECK_SECONDS,
    ) -> None:
        self.subject = subject
        self.base_url = section.base_url
        self.origin = origin_of(section.base_url)
        self.client = UpstreamClient(subject, section, credential)
        self.http_versions: set[str] = set()
        """The HTTP versions of the responses so far."""
        self._section = section
        self._credential = credential
        self._secrets = tuple(secrets)
        self._redactor = Redactor(self._secrets)
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()

    def with_base_url(self, base_url: str) -> "Api":
        """Return the same API at another base URL."""
        section = self._section.model_copy(update={"base_url": base_url})
        return Api(self.subject, section, self._credential, secrets=self._secrets, seconds=self._seconds)

    def found(self, identity: str, detail: str = "", **values: object) -> Finding:
        """Return a finding about this API."""
        return Finding(identity, self.subject, {"origin": self.origin, **values}, detail)

    async def ask(
        self,
        path: str,
        body: object = None,
        *,
        enough: Callable[[bytearray], bool] | None = None,
        endpoint: Endpoint = OTHER,
        model: str | None = None,
    ) -> TimedResponse:
        """Send a request, and read the response within the limits of time and size.

        Args:
            path: The path below the base URL, with its leading slash.
            body: Sent as JSON in a POST; without one the request is a GET.
            enough: Whether the body so far is enough, so that reading stops.
            endpoint, model: What the request is for.

        Raises:
            CheckFailed: There is no response.
        """
        method = "GET" if body is None else "POST"
        request = UpstreamRequest(
            method=method,
            path=path.encode(),
            query=b"",
            headers=[*_HEADERS],
            body=b"" if body is None else json.dumps(body).encode(),
            endpoint=endpoint,
            model=model,
        )
        record = ExchangeRecord(request_id="doctor", method=method, path=path)
        clock = asyncio.get_running_loop().time
        sent, timed, received = clock(), None, bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                response = await self.client.open(request, record)
                self.http_versions.add(response.http_version)
                timed = TimedResponse(response.status, response.headers, response.http_version)
                try:
                    await _read(response, timed, received, lambda: clock() - sent, enough)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            if timed is None:
                raise CheckFailed(
                    self._of_failure(explain(error, self.base_url, self._section.proxy))
                ) from error
            timed.end = ReadOutcome.TIMEOUT
        except Aborted:
            if timed is None:
                raise
            timed.end = ReadOutcome.BROKEN
        except ProxyError as error:
            raise CheckFailed(self._of_error(error)) from error
        timed.seconds = clock() - sent
        timed.body = self._redactor.redact(bytes(received))
        return timed

    def _of_failure(self, failure: TransportFailure) -> Finding:
        return of_failure(failure, self.subject)

    def _of_error(self, error: ProxyError) -> Finding:
        """Return the finding for an error of the client, by its cause if the connection failed."""
        detail = error.reason or str(error)
        if isinstance(error, TokenRejected):
            return self.found("token_rejected", detail)
        if error.__cause__ is not None:
            failure = explain(error.__cause__, self.base_url, self._section.proxy)
            if failure.kind is not FailureKind.OTHER:
                return self._of_failure(failure)
        if "redirect" in detail:
            return self.found("redirected", detail)
        return self.found("request_failed", detail)

    def rejected(self, timed: TimedResponse, model: str | None = None) -> Finding | None:
        """Return the finding for an error status; None for a success."""
        if HTTPStatus.OK <= timed.status < HTTPStatus.MULTIPLE_CHOICES:
            return None
        identity = _of_our_code(timed.error_code) or _of_status(
            timed, has_credential=self._credential is not None
        )
        if timed.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND} and _is_about_the_model(timed):
            identity = "model_unknown"
        return self.found(identity, timed.error, status=timed.status, model=model or "")


async def _read(
    response: UpstreamResponse,
    timed: TimedResponse,
    received: bytearray,
    now: Callable[[], float],
    enough: Callable[[bytearray], bool] | None,
) -> None:
    coding = content_coding(timed.headers)
    expansion = Expansion.of(coding)
    if coding and expansion is None:
        timed.end = ReadOutcome.UNREADABLE
        return
    while piece := await response.read():
        try:
            received += piece if expansion is None else _expand(expansion, piece)
        except ValueError:
            timed.end = ReadOutcome.UNREADABLE
            return
        timed.pieces.append((now(), len(received)))
        if len(received) > RESPONSE_BYTES_MAX:
            timed.end = ReadOutcome.TOO_LARGE
            return
        if enough is not None and enough(received):
            timed.end = ReadOutcome.ENOUGH
            return
    try:
        if expansion is not None:
            expansion.check_end()
    except ValueError:
        timed.end = ReadOutcome.BROKEN


def _expand(expansion: Expansion, piece: bytes) -> bytes:
    expanded = expansion.expand(piece)
    while expansion.has_more and len(expanded) <= RESPONSE_BYTES_MAX:
        expanded += expansion.expand()
    return expanded


_OUR_CODES: Final = {
    "invalid_api_key": "key_rejected",
    "model_forbidden": "key_forbids",
    "endpoint_forbidden": "key_forbids",
    "site_forbidden": "key_forbids",
    "rate_limit_exceeded": "rate_limited",
    "upstream_auth_failed": "behind_token_rejected",
    "upstream_unreachable": "behind_unreachable",
    "upstream_bad_response": "behind_bad_response",
    "upstream_timeout": "behind_timeout",
    "upstream_unavailable": "behind_unavailable",
    "model_not_found": "model_unknown",
}
"""Codes of `proxy.errors`, and OpenAI's for an unknown model. `behind`: a proxy answers for its gateway."""


def _of_our_code(code: str) -> str:
    return _OUR_CODES.get(code, "")


def _of_status(timed: TimedResponse, *, has_credential: bool) -> str:
    status = timed.status
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return "token_rejected" if has_credential else "key_rejected"
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return "path_unknown"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "body_too_large"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limited"
    if status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT} and timed.is_html:
        return "front_server_gets_no_response"
    return "server_failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "request_rejected"


def _is_about_the_model(timed: TimedResponse) -> bool:
    return "model" in timed.error.lower()

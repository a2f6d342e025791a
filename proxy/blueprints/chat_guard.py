"""Checks and responses that the routes of the chat share: site, channel, rate, body, and errors as JSON."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from quart import Response

from proxy.app_parts import app_parts
from proxy.blueprints.chat_session import visitor_session
from proxy.blueprints.exchange import current_request
from proxy.chat import notices
from proxy.chat.broker import BrokerClosed
from proxy.chat.channels import Ownership
from proxy.chat.dialogues import Branch
from proxy.chat.event import START, parse_id
from proxy.chat.notices import Notice
from proxy.chat.service import ChatService
from proxy.errors import BodyTooLarge, ProxyError, RateLimited, SiteForbidden
from proxy.redis_connection import StoreCorrupt, StoreUnavailable
from proxy.settings import Chat
from proxy.telemetry import get_logger
from proxy.wire.headers import DEFAULT_PORTS, media_type

DEFAULT_CHANNEL: Final = "sse"
"""flask-sse's channel, if a page names none."""
CHANNEL_CHARS_MAX: Final = 128
_PAUSES_SECONDS: Final = (0.1, 0.5)
BYTES_PER_CHARACTER: Final = 12
"""The maximum: JSON can write a character as two escapes of six bytes."""
_BODY_SPARE_BYTES: Final = 4096

PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # URLs contain the channel
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Only files of this service may be active content, whatever a model writes: https://www.w3.org/TR/CSP3/."""
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: https://www.w3.org/TR/fetch-metadata/."""

_T = TypeVar("_T")


class ChatRequestRejected(Exception):
    """Rejects a request.

    Args:
        message: Explanation for the page.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ChatRequestBody(msgspec.Struct):
    """The body of a request: a question, a new title, or neither.

    Args:
        source: The conversation whose beginning is continued.
        before: The id of its first event that does not belong to the beginning.
    """

    prompt: str | None = None
    title: str | None = None
    model: str | None = None
    source: str | None = None
    before: str | None = None


def chat_service() -> ChatService:
    """Return the chat of this worker."""
    found = app_parts().snapshots.chat
    assert found is not None, "the routes are registered with the section"  # noqa: S101
    return found


async def check_site() -> None:
    """Reject requests with a foreign host name, and POST requests from pages of other sites.

    Raises:
        ChatRequestRejected: 403.
    """
    request = current_request()
    try:
        chat_service().sites.check_host(request.raw_headers, request.local_address)
    except SiteForbidden as error:
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, str(error)) from error
    if request.method != "POST":
        return
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is None:
        allowed = site is None or site in _OWN_SITES
    else:
        hosts = chat_service().proxies.hosts(request.peer, request.raw_headers)
        allowed = origin.lower() in chat_service().settings.origins or not hosts.isdisjoint(_hosts_of(origin))
    if not allowed:
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not from this page")


async def readable_channel() -> tuple[str, Ownership]:
    """Return the channel that the visitor wants to read, and its ownership; a public channel is `free`.

    Raises:
        ChatRequestRejected: 400 for an invalid name, 403 for another session's channel.
        StoreUnavailable: Redis did not answer.
    """
    chat, session, channel = chat_service(), visitor_session(), _channel_name()
    if channel in chat.settings.public_channels:
        return channel, "free"
    ownership = await _with_retries(lambda: chat.channels.ownership(channel, session))
    if ownership == "taken":
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not your channel")
    return channel, ownership


async def writable_channel(*, counted: bool = False) -> tuple[str, Ownership]:
    """Return the channel that the visitor wants to use, and its ownership: the visitor or nobody owns it.

    Args:
        counted: Whether the request counts towards the rate.

    Raises:
        ChatRequestRejected: 400 for an invalid name, 403 for another session's channel or a public one.
        RateLimited: The rate is exceeded.
        StoreUnavailable: Redis did not answer.
    """
    chat, session, channel = chat_service(), visitor_session(), _channel_name()
    if counted:
        await chat.rate.count(session, visitor_address())
    if channel in chat.settings.public_channels:
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "a public channel takes no questions")
    ownership = await _with_retries(lambda: chat.channels.ownership(channel, session))
    if ownership == "taken":
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not your channel")
    return channel, ownership


async def claim_channel(channel: str, ownership: Ownership) -> None:
    """Make the visitor the owner of a channel, once the request is known to be valid.

    Args:
        ownership: Its ownership so far. What is stored in a channel that nobody owns belongs to another
            program on the same Redis, or to a session that Redis has forgotten.

    Raises:
        ChatRequestRejected: 403: it belongs to another session or program.
        StoreUnavailable: Redis did not answer.
    """
    channels, session = chat_service().channels, visitor_session()
    broker = chat_service().broker
    if ownership == "free" and channel != session and await _with_retries(lambda: broker.has_events(channel)):
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not your channel")
    if not await _with_retries(lambda: channels.claim(channel, session, visitor_address())):
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not your channel")


def _channel_name() -> str:
    channel = _requested_channel()
    if len(channel) > CHANNEL_CHARS_MAX or not channel.isprintable():
        raise ChatRequestRejected(HTTPStatus.BAD_REQUEST, "no name of a channel")
    return channel


def visitor_address() -> str:
    """Return the visitor's address, as reported by trusted proxies."""
    request = current_request()
    return chat_service().proxies.visitor(request.peer, request.raw_headers)


async def is_over(after: str | None) -> bool:
    """Return whether a reader reconnects to a channel that has no stored events and no owner any more.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    chat, channel = chat_service(), _requested_channel()
    if parse_id(after) in {None, START} or channel in {*chat.settings.public_channels, visitor_session()}:
        return False
    if await _with_retries(lambda: chat.channels.owned(channel)):
        return False
    return not await _with_retries(lambda: chat.broker.has_events(channel))


def _requested_channel() -> str:
    return current_request().args.get("channel") or DEFAULT_CHANNEL


async def _with_retries(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Retry a request to Redis: a browser does not reopen an event stream that was rejected once."""
    for pause in _PAUSES_SECONDS:
        try:
            return await ask()
        except StoreCorrupt:
            raise
        except StoreUnavailable:
            await asyncio.sleep(pause)
    return await ask()


async def read_body() -> ChatRequestBody:
    """Return the body.

    Raises:
        ChatRequestRejected: 415 or 400: the body is not a JSON object with texts.
        BodyTooLarge, BodyTimeout
    """
    request = current_request()
    if media_type((request.headers.get("Content-Type") or "").encode()) != b"application/json":
        raise ChatRequestRejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON is expected")
    limit = BYTES_PER_CHARACTER * chat_service().settings.max_prompt_chars + _BODY_SPARE_BYTES
    body = await request.body.read(limit)
    if len(body) > limit:
        raise BodyTooLarge(limit)
    try:
        return msgspec.json.decode(body, type=ChatRequestBody)
    except (
        ValueError,
        RecursionError,
    ) as error:  # malformed, not UTF-8, nested too deeply, or of another type
        raise ChatRequestRejected(HTTPStatus.BAD_REQUEST, "JSON with a prompt is expected") from error


def page_settings(settings: Chat) -> dict[str, object]:
    """Return the settings that the page needs, without those that are not set."""
    found: dict[str, object] = {}
    if settings.title:
        found["title"] = str(settings.title)
    if len(settings.models) > 1:
        found |= {"models": settings.models, "model": settings.model}
    return found


def offered_model(name: str | None) -> str | None:
    """Return a model that the visitor has chosen; None for the default.

    Raises:
        ChatRequestRejected: 400: the model is not offered.
    """
    if name is not None and name not in (chat_service().settings.models or (chat_service().settings.model,)):
        raise ChatRequestRejected(HTTPStatus.BAD_REQUEST, "no such model")
    return name


async def requested_branch(body: ChatRequestBody) -> Branch | None:
    """Return the beginning of another conversation that a question continues; None if there is none.

    Raises:
        ChatRequestRejected: 400 for an invalid id, 403 for another session's channel.
        StoreUnavailable: Redis did not answer.
    """
    source, before = body.source, parse_id(body.before)
    if source is None:
        return None
    if before is None:
        raise ChatRequestRejected(HTTPStatus.BAD_REQUEST, "no id of an event")
    channels, session = chat_service().channels, visitor_session()
    if await _with_retries(lambda: channels.ownership(source, session)) != "own":
        raise ChatRequestRejected(HTTPStatus.FORBIDDEN, "not your channel")
    return Branch(source, before)


def reply(notice: Notice | None = None, **body: object) -> Response:
    """Return the article's response, with 1 as `code` and an error as `msg`, or another object.

    Args:
        notice: The reason why nothing was done. Our page translates its code.
        body: The members of a JSON object that replaces the usual one.
    """
    if notice is not None:
        body = {"code": 1, "msg": notice.text, **notice.fields}
    return _json(body or {"code": 1, "msg": ""}, HTTPStatus.OK)


async def handle_rejected(rejected: ChatRequestRejected) -> Response:
    """Answer a rejected request in the article's format."""
    await current_request().body.discard()
    return _json({"code": 0, "msg": str(rejected)}, rejected.status)


async def handle_unavailable(error: StoreUnavailable | BrokerClosed) -> Response:
    """Answer a request while Redis is unavailable or holds wrong values, or the service shuts down."""
    if isinstance(error, BrokerClosed):
        notice = notices.RESTARTING
    else:
        notice = notices.STORE_CORRUPT if isinstance(error, StoreCorrupt) else notices.BROKEN
        if notice is notices.STORE_CORRUPT:  # That Redis is away is logged once, by its connection.
            get_logger("chat").warning("chat_request_failed", reason=str(error))
    return _json({"code": 0, "msg": notice.text, **notice.fields}, HTTPStatus.SERVICE_UNAVAILABLE)


async def handle_error(error: ProxyError) -> Response:
    """Answer an error in the article's format."""
    request = current_request()
    request.exchange.record.fail(error)
    await request.body.discard()
    message = notices.TOO_MANY if isinstance(error, RateLimited) else str(error)
    response = _json({"code": 0, "msg": message}, HTTPStatus(error.status))
    response.headers.update(error.headers)
    return response


async def add_headers(response: Response) -> Response:
    """Add the headers of every response, including CORS for allowed origins."""
    response.headers.extend(PAGE_HEADERS)
    origin = current_request().headers.get("Origin")
    if origin is not None and origin.lower() in chat_service().settings.origins:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Allow-Headers"] = "Content-Type"
        response.vary.add("Origin")
    return response


def _json(body: object, status: HTTPStatus) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(body), status, headers, content_type="application/json")


def _hosts_of(origin: str) -> set[str]:
    """Return the values of Host that match an origin, with and without the default port; none for `null`."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port
    except ValueError:
        return set()
    if not parts.netloc:
        return set()
    default = f"{parts.netloc}:{DEFAULT_PORTS.get(parts.scheme)}"
    return {parts.netloc} if port is not None else {parts.netloc, default}

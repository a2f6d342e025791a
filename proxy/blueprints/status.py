"""The status page: `/status`, its events, and signing in. Its own key is never in a URL."""

import hmac
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from quart import Blueprint, Response
from quart.wrappers.response import IterableBody

from proxy.access import SiteRules, public
from proxy.app_parts import app_parts
from proxy.asgi import QuartRequest
from proxy.blueprints.exchange import current_request
from proxy.errors import BodyTooLarge, NotFound, Unauthenticated
from proxy.secret import Secret
from proxy.settings import Settings
from proxy.status import session
from proxy.status.page import page, parts, sign_in_page
from proxy.status.service import StatusService
from proxy.status.words import BY_LANGUAGE, Words
from proxy.wire.event_stream import EVENT_STREAM
from proxy.wire.forwarded import TrustedProxies
from proxy.wire.headers import find_header

PATH: Final = "/status"
COOKIE: Final = "llm_status"
_FORM_BYTES_MAX: Final = 4096
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # else a form is sent with `Origin: null`
    "Vary": "Accept, Accept-Language, Authorization, Cookie",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

blueprint = Blueprint("status", __name__)


@blueprint.before_request
async def check_site() -> None:
    """Reject all requests without `[status]`, foreign host names, and forms of other sites' pages.

    Raises:
        NotFound: The configuration has no status page.
        SiteForbidden: A page of another site sent the request.
    """
    if _settings().status is None:
        raise NotFound
    request, sites = current_request(), SiteRules(_settings().access.hosts)
    sites.check_host(request.raw_headers, request.local_address)
    if request.method == "POST":
        sites.check_page(request.raw_headers, request.local_address)


@blueprint.after_request
async def add_headers(response: Response) -> Response:
    """Add the headers of every response."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@blueprint.get(PATH)
@public
async def status() -> Response:
    """Return the page as it is now, or the page that asks for the key."""
    request = current_request()
    if not _may_read(request)():
        return _ask_for_key(request)
    content = parts(await app_parts().status.overview(), _words(request), time.time())
    return _html(page(content, _words(request)), HTTPStatus.OK)


@blueprint.get(f"{PATH}/events")
@public
async def events() -> Response:
    """Stream the parts of the page as they change."""
    request = current_request()
    may_read = _may_read(request)
    if not may_read():
        raise Unauthenticated(reason="no session of the status page")
    response = Response(b"", content_type=f"{EVENT_STREAM.decode()}; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    response.timeout = None
    if request.method == "GET":
        request.exchange.closing.enter_context(app_parts().status.reading())
        response.response = IterableBody(app_parts().status.stream(_words(request), may_read))
        response.headers.pop("Content-Length", None)
    return response


@blueprint.post(f"{PATH}/sign-in")
@public
async def sign_in() -> Response:
    """Exchange the key for a session."""
    request = current_request()
    request.exchange.record.quiet = False  # so that the log shows every attempt
    key, given = _key(), await _read_key(request)
    if not _is_key(given, key):
        request.exchange.record.fail(Unauthenticated(reason="wrong key of the status page"))
        html = sign_in_page(_words(request), rejected=True)
        return _html(html, HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": "Bearer"})
    response = _to_page(request)
    _set_cookie(response, request, session.new_session(key, time.time()), session.SECONDS)
    return response


@blueprint.post(f"{PATH}/sign-out")
@public
async def sign_out() -> Response:
    """End the session in this browser."""
    request = current_request()
    response = _to_page(request)
    _set_cookie(response, request, "", 0)
    return response


@blueprint.get(f"{PATH}/page/<name>")
@public
async def page_file(name: str) -> Response:
    """Serve a file of the page, which holds nothing about the service."""
    file = app_parts().status.files.get(name)
    if file is None:
        raise NotFound
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache"}
    if current_request().if_none_match.contains(file.etag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, headers=headers, content_type=file.content_type)


def _settings() -> Settings:
    # Not the services of the exchange, which a stream would hold until its end.
    return app_parts().status.current().settings


def _key() -> Secret:
    section = _settings().status
    if section is None:
        raise NotFound
    return section.key


def _may_read(request: QuartRequest) -> Callable[[], bool]:
    """Return a function that checks whether the reader may still read; it can be called at any later time.

    Raises:
        Unauthenticated: An Authorization header has another key.
    """
    presented = find_header(request.raw_headers, b"authorization")
    if presented is None:
        return partial(_has_session, app_parts().status, request.cookies.get(COOKIE, ""))
    scheme, _, given = presented.partition(b" ")
    key = given.strip() if scheme.lower() == b"bearer" else b""
    if not _is_key(key, _key()):
        request.exchange.record.quiet = False
        raise Unauthenticated(reason="wrong key of the status page")
    return partial(_is_current_key, app_parts().status, key)


def _has_session(found: StatusService, presented: str) -> bool:
    section = found.current().settings.status
    return section is not None and session.is_valid(presented, section.key, time.time())


def _is_current_key(found: StatusService, given: bytes) -> bool:
    section = found.current().settings.status
    return section is not None and _is_key(given, section.key)


def _is_key(given: bytes, key: Secret) -> bool:
    return hmac.compare_digest(given, key.reveal().encode())


async def _read_key(request: QuartRequest) -> bytes:
    """Return the key in a form.

    Raises:
        BodyTooLarge, BodyTimeout
    """
    body = await request.body.read(_FORM_BYTES_MAX)
    if len(body) > _FORM_BYTES_MAX:
        raise BodyTooLarge(_FORM_BYTES_MAX)
    # `parse_qs` reads bytes as ASCII only, and somebody may type another key.
    fields = parse_qs(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return fields.get("key", [""])[0].encode("latin-1").strip()


def _ask_for_key(request: QuartRequest) -> Response:
    """Return the form to a browser.

    Raises:
        Unauthenticated: The client accepts no page.
    """
    if not any(media == "text/html" and quality > 0 for media, quality in request.accept_mimetypes):
        raise Unauthenticated(reason="no key of the status page")
    html = sign_in_page(_words(request), rejected=False)
    return _html(html, HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": "Bearer"})


def _words(request: QuartRequest) -> Words:
    requested = request.args.get("lang", "")
    return (
        BY_LANGUAGE.get(requested) or BY_LANGUAGE[request.accept_languages.best_match([*BY_LANGUAGE], "en")]
    )


def _to_page(request: QuartRequest) -> Response:
    location = f"{PATH}?lang={_words(request).lang[:2]}"
    return Response(b"", HTTPStatus.SEE_OTHER, {"Location": location})


def _set_cookie(response: Response, request: QuartRequest, value: str, seconds: int) -> None:
    proxies = TrustedProxies(_settings().access.trusted_proxies)
    secure = proxies.is_secure(request.scheme, request.peer, request.raw_headers)
    response.set_cookie(
        COOKIE, value, max_age=seconds, path=PATH, secure=secure, httponly=True, samesite="Strict"
    )


def _html(text: str, status: HTTPStatus, **headers: str) -> Response:
    return Response(text, status, headers, content_type="text/html; charset=utf-8")

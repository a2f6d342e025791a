"""Visitors' sessions: a signed cookie that contains one UUID, which also names the session's channel."""

import hashlib
import secrets
from typing import Final
from uuid import UUID, uuid4

from quart import Quart, Request, session
from quart.sessions import SecureCookieSession, SecureCookieSessionInterface
from quart.wrappers.base import BaseRequestWebsocket

from proxy.blueprints.exchange import current_request
from proxy.settings import Settings
from proxy.wire.forwarded import TrustedProxies

PATH: Final = "/chat"
COOKIE: Final = "llm_chat"
"""The name of the cookie; a Flask site on the same host would use `session`."""
_CHANNEL: Final = "channel"
_SECRET_BYTES: Final = 32


class ChatSessions(SecureCookieSessionInterface):
    """Quart's signed cookies, only for the chat's paths.

    Args:
        proxies: The proxies that are trusted to report TLS.
        cross_site: Whether pages of other sites may use the chat; they need TLS.
    """

    digest_method = staticmethod(hashlib.sha256)
    salt = "llm-token-proxy chat session"

    def __init__(self, proxies: TrustedProxies, *, cross_site: bool) -> None:
        self._proxies = proxies
        self._cross_site = cross_site

    def get_cookie_name(self, _app: Quart) -> str:
        """Return the cookie's name."""
        return COOKIE

    def get_cookie_path(self, _app: Quart) -> str:
        """Return the chat's path: other paths do not receive the cookie."""
        return PATH

    def get_cookie_samesite(self, app: Quart) -> str:
        """Return `Lax`, or `None` if pages of other sites may use the chat (their Origin is checked)."""
        return "None" if self._cross_site and self.get_cookie_secure(app) else "Lax"

    def get_cookie_partitioned(self, app: Quart) -> bool:
        """Partition cross-site cookies, as browsers require: https://github.com/privacycg/CHIPS."""
        return self.get_cookie_samesite(app) == "None"

    def get_cookie_secure(self, _app: Quart) -> bool:
        """Return whether the visitor uses TLS; the cookie is then never sent without it."""
        request = current_request()
        return self._proxies.is_secure(request.scheme, request.peer, request.raw_headers)

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SecureCookieSession | None:
        """Open the session of a visitor; requests outside the chat have none."""
        if not isinstance(request, Request) or not request.path.startswith(f"{PATH}/"):
            return None
        return await super().open_session(app, request)


def install_sessions(app: Quart, settings: Settings) -> None:
    """Add sessions to an application. Without a configured secret, they are lost at a restart."""
    chat = settings.chat
    given = chat.secret.reveal() if chat is not None and chat.secret is not None else ""
    app.secret_key = given or secrets.token_urlsafe(_SECRET_BYTES)
    app.session_interface = ChatSessions(
        TrustedProxies(settings.access.trusted_proxies), cross_site=chat is not None and bool(chat.origins)
    )


def visitor_session() -> str:
    """Return the UUID of the visitor's session, creating a session if there is none."""
    known = session.get(_CHANNEL)
    if isinstance(known, str) and _is_uuid(known):
        return known
    created = str(uuid4())
    session[_CHANNEL] = created
    return created


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True

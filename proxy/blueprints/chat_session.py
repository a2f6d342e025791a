"""The visitors' sessions: a signed cookie that holds one uuid, which is the session's channel as well."""

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
"""Not Flask's `session`: a Flask site on the same host has a cookie of that name."""
_CHANNEL: Final = "channel"
_DRAWN_BYTES: Final = 32


class ChatSessions(SecureCookieSessionInterface):
    """Quart's signed cookies, for the chat's paths alone.

    Args:
        proxies: Who is believed that a visitor came over TLS.
        elsewhere: Whether pages of other sites may use the chat; they need TLS.
    """

    digest_method = staticmethod(hashlib.sha256)
    salt = "llm-token-proxy chat session"

    def __init__(self, proxies: TrustedProxies, *, elsewhere: bool) -> None:
        self._proxies = proxies
        self._elsewhere = elsewhere

    def get_cookie_name(self, _app: Quart) -> str:
        """Its name."""
        return COOKIE

    def get_cookie_path(self, _app: Quart) -> str:
        """Only the chat gets it."""
        return PATH

    def get_cookie_samesite(self, app: Quart) -> str:
        """Not sent along with what another site's page posts, unless such pages may use the chat.

        Which of them may is decided by their Origin.
        """
        return "None" if self._elsewhere and self.get_cookie_secure(app) else "Lax"

    def get_cookie_partitioned(self, app: Quart) -> bool:
        """Kept apart for each site around it, which browsers ask for: https://github.com/privacycg/CHIPS."""
        return self.get_cookie_samesite(app) == "None"

    def get_cookie_secure(self, _app: Quart) -> bool:
        """Over TLS, never without it again."""
        request = current_request()
        return self._proxies.is_secure(request.scheme, request.peer, request.raw_headers)

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SecureCookieSession | None:
        """The session of a visitor; other requests have none."""
        if not isinstance(request, Request) or not request.path.startswith(f"{PATH}/"):
            return None
        return await super().open_session(app, request)


def install_sessions(app: Quart, settings: Settings) -> None:
    """Let an application know its visitors. Without a secret of its own it forgets them at its end."""
    chat = settings.chat
    given = chat.secret.reveal() if chat is not None and chat.secret is not None else ""
    app.secret_key = given or secrets.token_urlsafe(_DRAWN_BYTES)
    app.session_interface = ChatSessions(
        TrustedProxies(settings.access.trusted_proxies), elsewhere=chat is not None and bool(chat.origins)
    )


def visitor_session() -> str:
    """The uuid of this visitor's session; a new visitor gets one, and with the answer a cookie."""
    known = session.get(_CHANNEL)
    if isinstance(known, str) and _is_uuid(known):
        return known
    drawn = str(uuid4())
    session[_CHANNEL] = drawn
    return drawn


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True

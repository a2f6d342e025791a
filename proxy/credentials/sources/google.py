"""Ask Google for a token through its SDK, google-auth, which blocks: everything happens in a thread.

Each fetch builds its credentials anew, so that it asks for a token instead of finding the one it had.
"""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.side_thread import SideThread
from proxy.credentials.sources.vendor_sdk import causes, checked_token, passes, silence
from proxy.settings import GoogleCredential

if TYPE_CHECKING:
    import requests
    from google.auth.transport.requests import Request

_AWS_TOKEN = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - a type


class GoogleTokenSource:
    """Asks for an access token or an ID token: https://googleapis.dev/python/google-auth/latest.

    Args:
        section: Who asks, and for what.
    """

    def __init__(self, section: GoogleCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("google", "urllib3")

    async def fetch(self) -> FetchedToken:
        """Ask once, beside the event loop.

        A fetch that is cancelled leaves its thread behind, which ends at the timeout of the section.
        """
        return await self._side.run(lambda: _fetch(self._section))

    async def close(self) -> None:
        """Nothing is held between two fetches."""


def _fetch(section: GoogleCredential) -> FetchedToken:
    try:
        with closing(_session(section)) as session:
            request = _request(session, time.monotonic() + section.timeout)
            credentials = _credentials(section, request)
            if not credentials.valid:  # the SDK has asked already, where it looked for the project's name
                credentials.refresh(request)
    except Exception as error:  # its words may quote the reply: they end here, with the chain of causes
        raise _as_fetch_error(error) from None
    return checked_token(credentials.token, _lifetime(credentials.expiry, section.default_ttl))


def _lifetime(expiry: datetime | None, default_ttl: float) -> float:
    """Seconds; the SDK's point in time is UTC without saying so, counted from when the reply came."""
    if expiry is None:
        return default_ttl
    return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _session(section: GoogleCredential) -> "requests.Session":
    import requests

    session = requests.Session()
    session.trust_env = section.trust_env
    if section.proxy is not None:
        session.proxies = {"https": section.proxy}  # metadata servers on the host are plain http
    if section.ca_file is not None:
        session.verify = str(section.ca_file)
    return session


def _request(session: "requests.Session", deadline: float) -> "Request":
    """The SDK's transport, bounded: no redirect that carries an assertion elsewhere, no second attempt.

    Args:
        session: What it sends with.
        deadline: When all requests of this fetch must be over, in monotonic seconds.
    """
    from google.auth import exceptions as google_exceptions
    from google.auth.transport.requests import Request

    exceptions: Any = google_exceptions  # untyped inside

    class OneAttempt(Request):
        def __call__(
            self,
            url: str,
            method: str = "GET",
            body: bytes | None = None,
            headers: Mapping[str, str] | None = None,
            timeout: float | None = None,
            **options: Any,
        ) -> Any:
            left = deadline - time.monotonic()
            if left <= 0:
                raise exceptions.TimeoutError("over", retryable=True)
            seconds = left if timeout is None else min(timeout, left)
            options = {"allow_redirects": False, **options}
            send: Any = super().__call__
            answer = send(url, method, body, headers, seconds, **options)
            if passes(answer.status) or 300 <= answer.status < 400:
                # Not a TransportError, which the SDK would answer with attempts of its own.
                raise exceptions.ResponseError("no answer", retryable=True)
            return answer

    return OneAttempt(session)


def _credentials(section: GoogleCredential, request: "Request") -> Any:
    import google.auth
    from google.oauth2 import id_token as google_id_token
    from google.oauth2 import service_account as google_service_account

    id_token: Any = google_id_token  # untyped inside
    service_account: Any = google_service_account
    if section.file is None:
        if section.audience is not None:
            return id_token.fetch_id_token_credentials(section.audience, request)
        return google.auth.default(list(section.scopes), request)[0]
    info = json.loads(section.file.read_bytes())
    if info["type"] == "external_account":
        return _federated(info, section)
    if section.audience is not None:
        return service_account.IDTokenCredentials.from_service_account_info(
            info, target_audience=section.audience
        )
    return service_account.Credentials.from_service_account_info(
        info, scopes=section.scopes, subject=section.subject
    )


def _federated(info: Mapping[str, Any], section: GoogleCredential) -> Any:
    """Workload identity federation; the SDK's general loader is deprecated, and asks for more than tokens."""
    from google.auth import aws, identity_pool, pluggable

    if info.get("subject_token_type") == _AWS_TOKEN:
        kind: Any = aws.Credentials
    elif "executable" in info.get("credential_source", {}):
        kind = pluggable.Credentials
    else:
        kind = identity_pool.Credentials
    return kind.from_info(info, scopes=list(section.scopes))


def _as_fetch_error(error: Exception) -> TokenFetchError:
    """What the SDK calls retryable, and what broke on the way, may pass; the rest is a refusal."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    passing = any(
        isinstance(each, TransportError) or (isinstance(each, GoogleAuthError) and each.retryable)
        for each in causes(error)
    )
    return TokenFetchError(f"google gave no token: {type(error).__name__}", permanent=not passing)

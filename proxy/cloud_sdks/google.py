"""Fetch access tokens or ID tokens with google-auth: https://googleapis.dev/python/google-auth/latest."""

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import google.auth
import requests
from google.auth import aws, external_account, identity_pool, impersonated_credentials, pluggable
from google.auth import exceptions as google_exceptions
from google.auth.transport.requests import Request
from google.oauth2 import id_token as google_id_token
from google.oauth2 import service_account as google_service_account

from proxy.cloud_sdks.outcome import REFUSALS, LastReply, SdkToken, setting_up
from proxy.cloud_sdks.parameters import GoogleParameters

_exceptions: Any = google_exceptions  # untyped inside
_id_token: Any = google_id_token
_service_account: Any = google_service_account
_RETRIED: Final = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed (RFC 9110 15.5.9, RFC 8470, RFC 6585)."""
_BY_POINT_IN_TIME: Final = (external_account.Credentials, impersonated_credentials.Credentials)
"""Credentials whose replies may contain a point in time, like ID tokens; all others contain a duration."""
_AWS_TOKEN: Final = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - a type


class _Credentials(Protocol):
    """The part of google-auth's credentials, which are untyped, that is used here."""

    token: str | None
    expiry: datetime | None
    """UTC without a time zone."""

    @property
    def valid(self) -> bool:
        """Whether there is a token that has not expired."""
        ...

    def refresh(self, request: Request, /) -> None:
        """Fetch a token."""
        ...


async def fetch(parameters: GoogleParameters, reply: LastReply) -> SdkToken:
    """Fetch a token. This blocks the event loop, which has nothing else to do."""
    with closing(_session(parameters)) as session:
        request = _OneAttempt(session, parameters.timeout, reply)
        credentials = _credentials(parameters, request)
        if not credentials.valid:  # the SDK may have fetched a token to look up the project
            credentials.refresh(request)
    is_instant = parameters.audience is not None or isinstance(credentials, _BY_POINT_IN_TIME)
    lifetime = _lifetime(credentials.expiry, parameters.default_ttl)
    return SdkToken(credentials.token, lifetime, certain=not is_instant)


def _lifetime(expiry: datetime | None, default_ttl: float) -> float:
    """Return the lifetime in seconds."""
    if expiry is None:
        return default_ttl
    return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _session(parameters: GoogleParameters) -> requests.Session:
    session = requests.Session()
    session.trust_env = parameters.trust_env
    if parameters.proxy is not None:
        session.proxies = {"https": parameters.proxy}  # metadata servers on the host use plain HTTP
    if parameters.ca_file is not None:
        session.verify = parameters.ca_file
    return session


class _OneAttempt(Request):
    """The SDK's transport with a single attempt and without redirects, which could leak secrets."""

    def __init__(self, session: requests.Session, timeout: float, reply: LastReply) -> None:
        init: Any = super().__init__
        init(session)
        self._timeout = timeout
        self._reply = reply

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        send: Any = super().__call__
        self._reply.expect()
        reply = send(url, method, body, headers, seconds, **{"allow_redirects": False, **options})
        self._reply.note(reply.status, reply.headers)
        if reply.status >= 500 or 300 <= reply.status < 400 or reply.status in _RETRIED:
            # The SDK itself would retry after some statuses, and after a TransportError.
            raise _exceptions.ResponseError("no response", retryable=True)
        return reply


def _credentials(parameters: GoogleParameters, request: Request) -> _Credentials:
    found: _Credentials
    if parameters.file is not None:
        with setting_up():
            return _from_file(parameters, parameters.file)
    if parameters.audience is not None:
        found = _id_token.fetch_id_token_credentials(parameters.audience, request)
    else:
        found = google.auth.default([*parameters.scopes], request)[0]
    return found


def _from_file(parameters: GoogleParameters, file: str) -> _Credentials:
    info = json.loads(Path(file).read_bytes())
    found: _Credentials
    if info["type"] == "external_account":
        found = _federated(info, parameters)
    elif parameters.audience is not None:
        kind = _service_account.IDTokenCredentials
        found = kind.from_service_account_info(info, target_audience=parameters.audience)
    else:
        kind = _service_account.Credentials
        found = kind.from_service_account_info(info, scopes=parameters.scopes, subject=parameters.subject)
    return found


def _federated(info: Mapping[str, Any], parameters: GoogleParameters) -> _Credentials:
    """Build credentials for workload identity federation; the SDK's general loader is deprecated."""
    if info.get("subject_token_type") == _AWS_TOKEN:
        kind: Any = aws.Credentials
    elif "executable" in info.get("credential_source", {}):
        kind = pluggable.Credentials
    else:
        kind = identity_pool.Credentials
    found: _Credentials = kind.from_info(info, scopes=[*parameters.scopes])
    return found


def is_refusal(error: Exception, reply: LastReply) -> bool:
    """Whether the issuer refused the request, or this machine has no credentials to offer."""
    if reply.status is not None:
        return reply.status in REFUSALS
    return isinstance(error, google_exceptions.DefaultCredentialsError) and not reply.was_expected

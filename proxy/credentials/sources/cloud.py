"""Fetch tokens through the SDKs of the clouds: azure-identity, google-auth and botocore.

SDKs cache tokens, and return them even if the upstream has just rejected them. Each fetch therefore uses
new SDK objects. SDK code that blocks runs in a thread. SDKs do not retry here: only the cached source does.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from proxy.credentials.sources import TokenFetchError, TokenSource
from proxy.credentials.sources.reply import is_token
from proxy.credentials.sources.side_thread import SideThread
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import AzureCredential, BedrockCredential, GoogleCredential

if TYPE_CHECKING:
    import requests
    from azure.core.credentials_async import AsyncSupportsTokenInfo
    from azure.core.exceptions import HttpResponseError
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # no types
    from google.auth.transport.requests import Request

TEMPORARY_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed (RFC 9110 15.5.9, RFC 8470, RFC 6585)."""


def silence(*loggers: str) -> None:
    """Disable the loggers of an SDK, which may log error replies, and on debug level whole replies."""
    for name in loggers:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:  # otherwise `logging` prints warnings as a last resort
            logger.addHandler(logging.NullHandler())


def is_temporary(status: int) -> bool:
    """Whether a request may succeed soon after this status."""
    return status >= 500 or status in TEMPORARY_STATUSES


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return an exception and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def checked_token(token: object, lifetime: float, refresh_in: float | None = None) -> FetchedToken:
    """Return the token of an SDK.

    Raises:
        TokenFetchError: The token cannot be sent, or has expired.
    """
    if not is_token(token):
        raise TokenFetchError("the SDK returned no token that fits in a header")
    if lifetime <= 0:
        raise TokenFetchError("the SDK returned an expired token")
    return FetchedToken(Secret(token), lifetime, refresh_in)


@contextmanager
def _translated_errors(translate: Callable[[Exception], TokenFetchError]) -> Iterator[None]:
    """Translate every error of an SDK; its message may quote the reply, so the chain of causes ends here."""
    try:
        yield
    except Exception as error:  # The SDKs have no common base class of errors.
        raise translate(error) from None


# --- Microsoft Entra ID


class AzureTokenSource(TokenSource):
    """Fetches with azure-identity: https://learn.microsoft.com/python/api/azure-identity/azure.identity.aio.

    Args:
        section: The method of authentication, and its parameters.
    """

    def __init__(self, section: AzureCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("azure", "msal")

    async def fetch(self) -> FetchedToken:
        """Fetch a token with a new credential object, whose cache is empty."""
        with _translated_errors(_azure_error):
            credential = await self._side.run(lambda: _azure_credential(self._section))
            try:
                requested_at = time.time()
                token = await credential.get_token_info(self._section.scope)
            finally:
                await credential.close()
        hint = None if token.refresh_on is None else token.refresh_on - requested_at
        return checked_token(token.token, token.expires_on - requested_at, hint)


def _azure_credential(section: AzureCredential) -> "AsyncSupportsTokenInfo":
    from azure.identity import aio

    options = _azure_connection(section)
    tenant_id, client_id = section.tenant_id or "", section.client_id or ""
    authority = {"authority": section.authority} if section.authority else {}
    match section.method:
        case "client_secret":
            secret = _revealed(section.client_secret)
            return aio.ClientSecretCredential(tenant_id, client_id, secret, **authority, **options)
        case "certificate":
            file, password = str(section.certificate_file), _revealed(section.certificate_password) or None
            return aio.CertificateCredential(
                tenant_id, client_id, file, password=password, **authority, **options
            )
        case "workload_identity":
            # The class of the SDK reads the file on the event loop, and only once in ten minutes.
            assertion = section.token_file.read_text("utf-8").strip() if section.token_file else ""
            return aio.ClientAssertionCredential(
                tenant_id, client_id, lambda: assertion, **authority, **options
            )
        case "managed_identity":
            return aio.ManagedIdentityCredential(client_id=section.client_id, **options)
        case "cli":
            return aio.AzureCliCredential(tenant_id=tenant_id, process_timeout=options["process_timeout"])
    return aio.DefaultAzureCredential(**_azure_chain(section), **authority, **options)


def _azure_connection(section: AzureCredential) -> dict[str, Any]:
    """Return the connection options, without retries."""
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": section.timeout,
        "read_timeout": section.timeout,
        "process_timeout": max(1, int(section.timeout)),
        "use_env_settings": section.trust_env,
    }
    if section.proxy is not None:
        options["proxies"] = {"https": section.proxy}  # identity endpoints on the host use plain HTTP
    if section.ca_file is not None:
        options["connection_verify"] = str(section.ca_file)
    return options


def _azure_chain(section: AzureCredential) -> dict[str, Any]:
    """Exclude two members of the chain that read caches on disk, one of them on the event loop."""
    options: dict[str, Any] = {
        "exclude_shared_token_cache_credential": True,
        "exclude_visual_studio_code_credential": True,
    }
    if section.client_id is not None:
        options["managed_identity_client_id"] = section.client_id
    if section.tenant_id is not None:
        options["workload_identity_tenant_id"] = section.tenant_id
    return options


def _revealed(secret: Secret | None) -> str:
    return secret.reveal() if secret else ""


def _azure_error(error: Exception) -> TokenFetchError:
    """Classify a failure: a 4xx status, or an identity that does not exist, is a refusal."""
    from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
    from azure.identity import CredentialUnavailableError

    chain = [*causes(error)]
    replies = [each for each in chain if isinstance(each, HttpResponseError) and each.status_code]
    status = replies[0].status_code if replies else None
    if status is not None:
        permanent = status >= 400 and not is_temporary(status)
    elif any(isinstance(each, ServiceRequestError | ServiceResponseError | TimeoutError) for each in chain):
        permanent = False
    else:
        permanent = isinstance(error, CredentialUnavailableError) or not isinstance(error, AzureError)
    reason = f"azure returned no token: {type(error).__name__}"
    return TokenFetchError(reason, permanent=permanent, retry_after=_retry_after(replies))


def _retry_after(replies: "Sequence[HttpResponseError]") -> float | None:
    """Return the Retry-After of the issuer in seconds (RFC 9110 10.2.3)."""
    headers = getattr(replies[0].response, "headers", {}) if replies else {}
    seconds = headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None


# --- Google

_AWS_TOKEN = "urn:ietf:params:aws:token-type:aws4_request"  # noqa: S105 - a type


class _GoogleCredentials(Protocol):
    """The part of google-auth's credentials, which are untyped, that is used here."""

    token: str | None
    expiry: datetime | None
    """UTC without a time zone."""

    @property
    def valid(self) -> bool:
        """Whether there is a token that has not expired."""
        ...

    def refresh(self, request: "Request", /) -> None:
        """Fetch a token."""
        ...


class GoogleTokenSource(TokenSource):
    """Fetches access tokens or ID tokens with google-auth: https://googleapis.dev/python/google-auth/latest.

    Args:
        section: The account, and the scopes or the audience.
    """

    def __init__(self, section: GoogleCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("google", "urllib3")

    async def fetch(self) -> FetchedToken:
        """Fetch a token in a thread. After a cancellation the thread ends at the timeout of the section."""
        return await self._side.run(lambda: _fetch_google(self._section))


def _fetch_google(section: GoogleCredential) -> FetchedToken:
    with _translated_errors(_google_error), closing(_google_session(section)) as session:
        request = _google_request(session, time.monotonic() + section.timeout)
        credentials = _google_credentials(section, request)
        if not credentials.valid:  # the SDK may have fetched a token to look up the project
            credentials.refresh(request)
    return checked_token(credentials.token, _google_lifetime(credentials.expiry, section.default_ttl))


def _google_lifetime(expiry: datetime | None, default_ttl: float) -> float:
    """Return the lifetime in seconds."""
    if expiry is None:
        return default_ttl
    return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _google_session(section: GoogleCredential) -> "requests.Session":
    import requests

    session = requests.Session()
    session.trust_env = section.trust_env
    if section.proxy is not None:
        session.proxies = {"https": section.proxy}  # metadata servers on the host use plain HTTP
    if section.ca_file is not None:
        session.verify = str(section.ca_file)
    return session


def _google_request(session: "requests.Session", deadline: float) -> "Request":
    """Return the SDK's transport with a single attempt and without redirects, which could leak secrets.

    Args:
        session: The HTTP session.
        deadline: When all requests of this fetch must have ended, in monotonic seconds.
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
            reply = send(url, method, body, headers, seconds, **options)
            if is_temporary(reply.status) or 300 <= reply.status < 400:
                # After a TransportError the SDK would retry.
                raise exceptions.ResponseError("no response", retryable=True)
            return reply

    return OneAttempt(session)


def _google_credentials(section: GoogleCredential, request: "Request") -> _GoogleCredentials:
    import google.auth
    from google.oauth2 import id_token as google_id_token
    from google.oauth2 import service_account as google_service_account

    id_token: Any = google_id_token  # untyped inside
    service_account: Any = google_service_account
    found: _GoogleCredentials
    if section.file is None:
        if section.audience is not None:
            found = id_token.fetch_id_token_credentials(section.audience, request)
        else:
            found = google.auth.default(list(section.scopes), request)[0]
        return found
    info = json.loads(section.file.read_bytes())
    if info["type"] == "external_account":
        found = _federated(info, section)
    elif section.audience is not None:
        kind = service_account.IDTokenCredentials
        found = kind.from_service_account_info(info, target_audience=section.audience)
    else:
        kind = service_account.Credentials
        found = kind.from_service_account_info(info, scopes=section.scopes, subject=section.subject)
    return found


def _federated(info: Mapping[str, Any], section: GoogleCredential) -> _GoogleCredentials:
    """Build credentials for workload identity federation; the SDK's general loader is deprecated."""
    from google.auth import aws, identity_pool, pluggable

    if info.get("subject_token_type") == _AWS_TOKEN:
        kind: Any = aws.Credentials
    elif "executable" in info.get("credential_source", {}):
        kind = pluggable.Credentials
    else:
        kind = identity_pool.Credentials
    found: _GoogleCredentials = kind.from_info(info, scopes=list(section.scopes))
    return found


def _google_error(error: Exception) -> TokenFetchError:
    """Classify a failure: all but transport errors and errors that the SDK calls retryable are refusals."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    temporary = any(
        isinstance(each, TransportError) or (isinstance(each, GoogleAuthError) and each.retryable)
        for each in causes(error)
    )
    return TokenFetchError(f"google returned no token: {type(error).__name__}", permanent=not temporary)


# --- Amazon Bedrock


class BedrockTokenSource(TokenSource):
    """Signs keys: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-generate.html.

    A key is a presigned URL, so no issuer is involved. Finding the AWS credentials to sign with may block.
    """

    def __init__(self, section: BedrockCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("botocore", "urllib3")

    async def fetch(self) -> FetchedToken:
        """Find the AWS credentials and sign a key, in a thread."""
        return await self._side.run(lambda: _fetch_bedrock(self._section))


class _AwsCredentials(Protocol):
    """The part of botocore's credentials, which are untyped, that is used here."""

    def get_frozen_credentials(self) -> object:
        """Return a snapshot of the keys."""
        ...


class _FoundCredentials:
    """AWS credentials in the form of a provider of botocore."""

    def __init__(self, credentials: object) -> None:
        self._credentials = credentials

    def load(self) -> object:
        """Return the credentials."""
        return self._credentials


def _fetch_bedrock(section: BedrockCredential) -> FetchedToken:
    with _translated_errors(_bedrock_error):
        from aws_bedrock_token_generator import provide_token  # type: ignore[import-untyped]  # no types

        credentials = _aws_credentials(section)
        frozen = credentials.get_frozen_credentials()
        signed = time.time()
        token = provide_token(section.region, _FoundCredentials(frozen), timedelta(seconds=section.ttl))
    # The key expires with temporary credentials; botocore has no public attribute for their expiry.
    end: datetime | None = getattr(credentials, "_expiry_time", None)
    remaining = section.ttl if end is None else end.timestamp() - signed
    return checked_token(token, min(float(section.ttl), remaining))


def _aws_credentials(section: BedrockCredential) -> _AwsCredentials:
    from botocore.config import Config  # type: ignore[import-untyped]  # no types
    from botocore.session import Session  # type: ignore[import-untyped]  # no types

    session = Session(profile=section.profile)
    bounds = Config(
        connect_timeout=section.timeout, read_timeout=section.timeout, retries={"total_max_attempts": 1}
    )
    session.set_default_client_config(bounds)
    credentials: _AwsCredentials | None = session.get_credentials()
    if credentials is None:
        raise TokenFetchError("bedrock needs AWS credentials, but botocore found none", permanent=True)
    return credentials


def _bedrock_error(error: Exception) -> TokenFetchError:
    """Classify a failure: transport errors are temporary, refusals and configuration errors are not."""
    from botocore.exceptions import (
        ClientError,
        CredentialRetrievalError,
        HTTPClientError,
        MetadataRetrievalError,
    )
    from botocore.exceptions import ConnectionError as NoConnection

    if isinstance(error, TokenFetchError):
        return error
    broken = (CredentialRetrievalError, HTTPClientError, MetadataRetrievalError, NoConnection)
    temporary = any(
        isinstance(each, broken) or (isinstance(each, ClientError) and _is_temporary_error(each))
        for each in causes(error)
    )
    return TokenFetchError(f"bedrock returned no token: {type(error).__name__}", permanent=not temporary)


def _is_temporary_error(error: "ClientError") -> bool:
    return is_temporary(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))

"""Ask Microsoft Entra ID for a token through its SDK, azure-identity.

The SDK keeps tokens of its own and hands them out again, also where the upstream has just refused one. So
each fetch has a credential object of its own, whose memory is empty, and which is closed after. Building one
reads files and imports the SDK: that happens in a thread.
"""

import time
from typing import TYPE_CHECKING, Any

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.side_thread import SideThread
from proxy.credentials.sources.vendor_sdk import causes, checked_token, passes, silence
from proxy.secret import Secret
from proxy.settings import AzureCredential

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncSupportsTokenInfo


class AzureTokenSource:
    """Asks by one method: https://learn.microsoft.com/python/api/azure-identity/azure.identity.aio.

    Args:
        section: The method and what it needs.
    """

    def __init__(self, section: AzureCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("azure", "msal")

    async def fetch(self) -> FetchedToken:
        """Ask once, with an empty memory."""
        try:
            credential = await self._side.run(lambda: _build(self._section))
            try:
                asked = time.time()
                token = await credential.get_token_info(self._section.scope)
            finally:
                await credential.close()
        except Exception as error:  # its words may quote the reply: they end here, with the chain of causes
            raise _as_fetch_error(error) from None
        hint = None if token.refresh_on is None else token.refresh_on - asked
        return checked_token(token.token, token.expires_on - asked, hint)

    async def close(self) -> None:
        """Nothing is held between two fetches."""


def _build(section: AzureCredential) -> "AsyncSupportsTokenInfo":
    from azure.identity import aio

    options = _connection(section)
    known: dict[str, Any] = {"tenant_id": section.tenant_id or "", "client_id": section.client_id or ""}
    authority = {"authority": section.authority} if section.authority else {}
    match section.method:
        case "client_secret":
            secret = _revealed(section.client_secret)
            return aio.ClientSecretCredential(**known, client_secret=secret, **authority, **options)
        case "certificate":
            file, password = str(section.certificate_file), _revealed(section.certificate_password) or None
            return aio.CertificateCredential(
                **known, certificate_path=file, password=password, **authority, **options
            )
        case "workload_identity":
            # The SDK's own class would read the file on the event loop, and again only after ten minutes.
            shown = section.token_file.read_text("utf-8").strip() if section.token_file else ""
            return aio.ClientAssertionCredential(**known, func=lambda: shown, **authority, **options)
        case "managed_identity":
            return aio.ManagedIdentityCredential(client_id=section.client_id, **options)
        case "cli":
            return aio.AzureCliCredential(
                tenant_id=known["tenant_id"], process_timeout=options["process_timeout"]
            )
    return aio.DefaultAzureCredential(**_of_the_chain(section), **authority, **options)


def _connection(section: AzureCredential) -> dict[str, Any]:
    """How the SDK connects. It tries once: the cached source is the only authority on retries."""
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": section.timeout,
        "read_timeout": section.timeout,
        "process_timeout": max(1, int(section.timeout)),
        "use_env_settings": section.trust_env,
    }
    if section.proxy is not None:
        options["proxies"] = {"https": section.proxy}  # identity endpoints on the host are plain http
    if section.ca_file is not None:
        options["connection_verify"] = str(section.ca_file)
    return options


def _of_the_chain(section: AzureCredential) -> dict[str, Any]:
    """Without two members that answer from caches on disk, one of them on the event loop."""
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


def _as_fetch_error(error: Exception) -> TokenFetchError:
    """A refusal is a status of the issuer from 400 to 499, and an identity that is not there at all."""
    from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
    from azure.identity import CredentialUnavailableError

    chain = [*causes(error)]
    answers = [each for each in chain if isinstance(each, HttpResponseError) and each.status_code]
    status = answers[0].status_code if answers else None
    if status is not None:
        permanent = status >= 400 and not passes(status)
    elif any(isinstance(each, ServiceRequestError | ServiceResponseError | TimeoutError) for each in chain):
        permanent = False
    else:
        permanent = isinstance(error, CredentialUnavailableError) or not isinstance(error, AzureError)
    reason = f"azure gave no token: {type(error).__name__}"
    return TokenFetchError(reason, permanent=permanent, retry_after=_retry_after(answers))


def _retry_after(answers: "list[Any]") -> float | None:
    """Seconds (RFC 9110 10.2.3), where the issuer names them in its answer."""
    headers = getattr(answers[0].response, "headers", {}) if answers else {}
    seconds = headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None

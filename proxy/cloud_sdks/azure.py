"""Fetch with azure-identity: https://learn.microsoft.com/python/api/azure-identity/azure.identity.aio."""

import time
from pathlib import Path
from typing import Any, Final

from azure.core.credentials_async import AsyncSupportsTokenInfo
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.identity import CredentialUnavailableError, aio

from proxy.cloud_sdks.outcome import REFUSALS, LastReply, SdkToken, causes, setting_up
from proxy.cloud_sdks.parameters import AzureParameters

_BROKEN: Final = (ServiceRequestError, ServiceResponseError, TimeoutError, OSError)
"""There was no reply, or a command could not run."""
_BY_POINT_IN_TIME: Final = frozenset({"managed_identity", "default"})
"""The methods for which the SDK may pass on `expires_on` of a reply. For the others, it adds `expires_in` to
the time of its request."""


async def fetch(parameters: AzureParameters, reply: LastReply) -> SdkToken:
    """Fetch a token with a new credential object, whose cache is empty."""
    with setting_up():
        credential = _credential(parameters, reply)
    try:
        requested_at = time.time()
        token = await credential.get_token_info(parameters.scope)
    finally:
        await credential.close()
    hint = None if token.refresh_on is None else token.refresh_on - requested_at
    certain = parameters.method not in _BY_POINT_IN_TIME
    return SdkToken(token.token, token.expires_on - requested_at, hint, certain)


def _credential(parameters: AzureParameters, reply: LastReply) -> AsyncSupportsTokenInfo:
    options = _connection(parameters, reply)
    tenant_id, client_id = parameters.tenant_id or "", parameters.client_id or ""
    authority = {"authority": parameters.authority} if parameters.authority else {}
    match parameters.method:
        case "client_secret":
            secret = parameters.client_secret or ""
            return aio.ClientSecretCredential(tenant_id, client_id, secret, **authority, **options)
        case "certificate":
            file, password = parameters.certificate_file, parameters.certificate_password
            return aio.CertificateCredential(
                tenant_id, client_id, file, password=password, **authority, **options
            )
        case "workload_identity":
            # The class of the SDK reads the file only once in ten minutes.
            assertion = Path(parameters.token_file or "").read_text("utf-8").strip()
            return aio.ClientAssertionCredential(
                tenant_id, client_id, lambda: assertion, **authority, **options
            )
        case "managed_identity":
            return aio.ManagedIdentityCredential(client_id=parameters.client_id, **options)
        case "cli":
            return aio.AzureCliCredential(tenant_id=tenant_id, process_timeout=options["process_timeout"])
    return aio.DefaultAzureCredential(**_chain(parameters), **authority, **options)


def _connection(parameters: AzureParameters, reply: LastReply) -> dict[str, Any]:
    """Return the options of connections, without retries."""
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": parameters.timeout,
        "read_timeout": parameters.timeout,
        "process_timeout": int(parameters.timeout) + 1,  # later than the end of this process
        "use_env_settings": parameters.trust_env,
        "raw_request_hook": lambda _request: reply.expect(),
        "raw_response_hook": lambda received: reply.note(
            received.http_response.status_code, received.http_response.headers
        ),
    }
    if parameters.proxy is not None:
        options["proxies"] = {"https": parameters.proxy}  # identity endpoints on the host use plain HTTP
    if parameters.ca_file is not None:
        options["connection_verify"] = parameters.ca_file
    return options


def _chain(parameters: AzureParameters) -> dict[str, Any]:
    """Exclude two members of the chain that read caches on disk."""
    options: dict[str, Any] = {
        "exclude_shared_token_cache_credential": True,
        "exclude_visual_studio_code_credential": True,
    }
    if parameters.client_id is not None:
        options["managed_identity_client_id"] = parameters.client_id
    if parameters.tenant_id is not None:
        options["workload_identity_tenant_id"] = parameters.tenant_id
    return options


def is_refusal(error: Exception, reply: LastReply) -> bool:
    """Whether the issuer refused the request, or this machine has no identity to offer."""
    chain = [*causes(error)]
    if any(isinstance(each, HttpResponseError) and each.status_code in REFUSALS for each in chain):
        return True
    is_absent = isinstance(error, CredentialUnavailableError) and not reply.was_expected
    return is_absent and not any(isinstance(each, _BROKEN) for each in chain)

"""Fetch a token with the SDK of its cloud."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from proxy.cloud_sdks.outcome import LastReply, SdkFailure, SdkOutcome, SdkToken, UnusableSettings
from proxy.cloud_sdks.parameters import AzureParameters, BedrockParameters, GoogleParameters, Parameters


def load_sdk(parameters: Parameters) -> Callable[[], Coroutine[Any, Any, SdkOutcome]]:
    """Import an SDK, which may take a second, and return a function that fetches one token.

    SDKs do not retry here: only the service does.
    """
    reply = LastReply()
    match parameters:
        case AzureParameters():
            from proxy.cloud_sdks import azure

            return lambda: _outcome(lambda: azure.fetch(parameters, reply), azure.is_refusal, reply)
        case GoogleParameters():
            from proxy.cloud_sdks import google

            return lambda: _outcome(lambda: google.fetch(parameters, reply), google.is_refusal, reply)
        case BedrockParameters():
            from proxy.cloud_sdks import bedrock

            return lambda: _outcome(lambda: bedrock.fetch(parameters, reply), bedrock.is_refusal, reply)


async def _outcome(
    fetch: Callable[[], Awaitable[SdkToken]],
    is_refusal: Callable[[Exception, LastReply], bool],
    reply: LastReply,
) -> SdkOutcome:
    try:
        return await fetch()
    except UnusableSettings as error:
        return SdkFailure(str(error), permanent=True)
    except Exception as error:  # the SDKs have no common base class of errors
        permanent = is_refusal(error, reply)
        return SdkFailure(type(error).__name__, permanent, reply.status, reply.retry_after, reply.date)

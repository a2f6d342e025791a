"""Sign a short-term key for Amazon Bedrock with AWS credentials, which botocore finds.

The key is a presigned URL: nobody is asked for it. Finding the credentials may take files, processes or
requests, all of them blocking, so that it happens in a thread, with a session of its own for each fetch.
"""

import time
from datetime import datetime, timedelta
from typing import Any

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.side_thread import SideThread
from proxy.credentials.sources.vendor_sdk import causes, checked_token, passes, silence
from proxy.settings import BedrockCredential


class BedrockTokenSource:
    """Signs with botocore's chain: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-generate.html.

    Args:
        section: Region, life and profile.
    """

    def __init__(self, section: BedrockCredential) -> None:
        self._section = section
        self._side = SideThread()
        silence("botocore", "urllib3")

    async def fetch(self) -> FetchedToken:
        """Find the credentials and sign, beside the event loop."""
        return await self._side.run(lambda: _fetch(self._section))

    async def close(self) -> None:
        """Nothing is held between two fetches."""


class _Signer:
    """Credentials that were found, in the shape of one of botocore's providers."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load(self) -> Any:
        """The credentials."""
        return self._credentials


def _fetch(section: BedrockCredential) -> FetchedToken:
    try:
        from aws_bedrock_token_generator import provide_token  # type: ignore[import-untyped]

        credentials = _find_credentials(section)
        frozen = credentials.get_frozen_credentials()
        signed = time.time()
        token = provide_token(section.region, _Signer(frozen), timedelta(seconds=section.ttl))
    except Exception as error:  # its words may quote a reply: they end here, with the chain of causes
        raise _as_fetch_error(error) from None
    # Where the credentials are temporary, the key ends with them; botocore has no public name for when.
    end: datetime | None = getattr(credentials, "_expiry_time", None)
    remaining = section.ttl if end is None else end.timestamp() - signed
    return checked_token(token, min(float(section.ttl), remaining))


def _find_credentials(section: BedrockCredential) -> Any:
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.session import Session  # type: ignore[import-untyped]

    session = Session(profile=section.profile)
    bounds = Config(
        connect_timeout=section.timeout, read_timeout=section.timeout, retries={"total_max_attempts": 1}
    )
    session.set_default_client_config(bounds)
    credentials = session.get_credentials()
    if credentials is None:
        raise TokenFetchError("bedrock needs AWS credentials, and botocore finds none", permanent=True)
    return credentials


def _as_fetch_error(error: Exception) -> TokenFetchError:
    """What broke on the way may pass; a refusal, or a configuration that leads nowhere, does not."""
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ClientError,
        CredentialRetrievalError,
        HTTPClientError,
        MetadataRetrievalError,
    )
    from botocore.exceptions import ConnectionError as NoConnection

    if isinstance(error, TokenFetchError):
        return error
    broken = (CredentialRetrievalError, HTTPClientError, MetadataRetrievalError, NoConnection)
    passing = any(
        isinstance(each, broken) or _answers_that_passes(each, ClientError) for each in causes(error)
    )
    return TokenFetchError(f"bedrock gave no token: {type(error).__name__}", permanent=not passing)


def _answers_that_passes(error: BaseException, kind: Any) -> bool:
    if not isinstance(error, kind):
        return False
    return passes(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))

"""Fetch tokens through the SDKs of the clouds, each in a process of its own: see `proxy.cloud_sdks`.

SDKs cache tokens, and return them even if the upstream has just rejected them. A new process has no cache,
and whatever an SDK waits for, receives or starts ends with it.
"""

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeAlias

from proxy.cloud_sdks.outcome import (
    NO_AWS_CREDENTIALS,
    TIMED_OUT,
    TOO_LARGE,
    SdkFailure,
    SdkOutcome,
    SdkToken,
    read_outcome,
)
from proxy.cloud_sdks.parameters import (
    AzureParameters,
    BedrockParameters,
    GoogleParameters,
    Parameters,
    write_parameters,
)
from proxy.credentials.sources import TokenFetchError, TokenSource
from proxy.credentials.sources.http import CLOCK_MARGIN, PROXY_STATUSES, read_retry_after
from proxy.credentials.sources.process import run_command
from proxy.credentials.sources.reply import Reply, is_token
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import AzureCredential, BedrockCredential, GoogleCredential

CloudCredential: TypeAlias = AzureCredential | GoogleCredential | BedrockCredential
Run: TypeAlias = Callable[[Parameters], Awaitable[SdkOutcome]]
START_SECONDS_MAX: Final = 10.0
"""How long an SDK may take to start, in addition to `timeout`: up to a second of CPU time, of which a small
container may have a tenth."""
_COMMAND: Final = (
    sys.executable,
    "-I" if sys.flags.isolated else "-P",
    "-c",
    "import sys; sys.path.insert(0, sys.argv.pop()); from proxy.cloud_sdks.__main__ import main; main()",
    str(Path(__file__).parents[3]),
)
"""Runs `proxy.cloud_sdks` of this installation, whatever the working directory contains."""


_WORDS: Final = {
    TIMED_OUT: "the SDK of {source} did not end in time; find out what it waits for, or increase timeout",
    TOO_LARGE: "the SDK of {source} used too much memory; a reply probably never ended",
    NO_AWS_CREDENTIALS: "bedrock needs AWS credentials, but botocore found none",
}


async def run_sdk(parameters: Parameters) -> SdkOutcome:
    """Run an SDK in a new process, and kill it with all of its commands in any case.

    Raises:
        TokenFetchError: It did not end in time, or was killed.
    """
    name = f"the SDK of {parameters.source}"
    ended = await run_command(
        _COMMAND,
        environment=None,  # SDKs find identities in the environment
        folder=None,
        timeout=CLOCK_MARGIN * (START_SECONDS_MAX + parameters.timeout),
        given=write_parameters(parameters),
        name=name,
    )
    try:
        return read_outcome(ended.output)
    except ValueError:
        raise TokenFetchError(f"{name} failed: its process ended with status {ended.status}") from None


class CloudTokenSource(TokenSource):
    """Fetches with the SDK of a cloud.

    Args:
        section: What to ask the SDK for.
        run: Runs the SDK.
    """

    def __init__(self, section: CloudCredential, run: Run = run_sdk) -> None:
        self._section = section
        self._run = run

    async def fetch(self) -> FetchedToken:
        """Fetch a token with new objects of the SDK."""
        parameters = parameters_of(self._section)
        outcome = await self._run(parameters)
        if isinstance(outcome, SdkFailure):
            raise _error_of(outcome, parameters.source)
        return checked_token(outcome)


def parameters_of(section: CloudCredential) -> Parameters:
    """Return the keys of a section that its SDK needs."""
    kind: type[Parameters]
    match section:
        case AzureCredential():
            kind = AzureParameters
        case GoogleCredential():
            kind = GoogleParameters
        case BedrockCredential():
            kind = BedrockParameters
    return kind(**{field.name: _plain(getattr(section, field.name)) for field in fields(kind)})


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    return str(value) if isinstance(value, Path) else value


def _error_of(failure: SdkFailure, source: str) -> TokenFetchError:
    reply = Reply(None, {} if failure.date is None else {"date": failure.date}, time.time())
    words = _WORDS.get(failure.error, f"{source} returned no token: {failure.error}")
    return TokenFetchError(
        words.format(source=source),
        permanent=failure.permanent,
        retry_after=None if failure.permanent else read_retry_after(failure.retry_after, reply.server_time),
        has_reply=failure.status is not None and failure.status not in PROXY_STATUSES,
    )


def checked_token(found: SdkToken) -> FetchedToken:
    """Return the token of an SDK.

    Raises:
        TokenFetchError: The token cannot be sent, or has expired.
    """
    if not is_token(found.token):
        raise TokenFetchError("the SDK returned no token that fits in a header")
    if not found.lifetime > 0:
        raise TokenFetchError("the SDK returned an expired token")
    return FetchedToken(Secret(found.token), found.lifetime, found.refresh_in, certain=found.certain)

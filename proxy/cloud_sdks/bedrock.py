"""Sign keys for Bedrock: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-generate.html.

A key is a presigned URL, so no issuer is involved. But botocore may ask several for the AWS credentials to
sign with.
"""

import os
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from aws_bedrock_token_generator import provide_token  # type: ignore[import-untyped]  # no types
from botocore import exceptions as aws_exceptions  # type: ignore[import-untyped]  # no types
from botocore.config import Config  # type: ignore[import-untyped]  # no types
from botocore.session import Session  # type: ignore[import-untyped]  # no types

from proxy.cloud_sdks.outcome import REFUSALS, LastReply, SdkToken
from proxy.cloud_sdks.parameters import BedrockParameters

_CODES: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "ForbiddenException",
        "IDPRejectedClaim",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "MalformedPolicyDocument",
        "MissingAuthenticationToken",
        "OptInRequired",
        "PackedPolicyTooLarge",
        "RegionDisabledException",
        "SignatureDoesNotMatch",
        "UnauthorizedException",
        "UnrecognizedClientException",
        "ValidationError",
    }
)
"""The codes with which STS and IAM Identity Center refuse a request. AWS also answers 400 when it throttles
requests, or when an identity provider is down:
https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""
_UNUSABLE: Final = (
    aws_exceptions.InvalidConfigError,
    aws_exceptions.PartialCredentialsError,
    aws_exceptions.ProfileNotFound,
    aws_exceptions.SSOTokenLoadError,
    aws_exceptions.UnauthorizedSSOTokenError,
)
"""Faults of the AWS configuration on this machine."""


class NoAwsCredentials(Exception):
    """Botocore found no credentials. Its name is `NO_AWS_CREDENTIALS`."""


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


async def fetch(parameters: BedrockParameters, reply: LastReply) -> SdkToken:
    """Find the AWS credentials and sign a key. This blocks the event loop, which has nothing else to do."""
    credentials = _aws_credentials(parameters, reply)
    frozen = credentials.get_frozen_credentials()
    signed = time.time()
    token = provide_token(parameters.region, _FoundCredentials(frozen), timedelta(seconds=parameters.ttl))
    # The key expires with temporary credentials; botocore has no public attribute for their expiry.
    end: datetime | None = getattr(credentials, "_expiry_time", None)
    remaining = parameters.ttl if end is None else end.timestamp() - signed
    # AWS compares the time of the signature with its own clock.
    return SdkToken(token, min(float(parameters.ttl), remaining), certain=False)


def _aws_credentials(parameters: BedrockParameters, reply: LastReply) -> _AwsCredentials:
    def expect(**_event: Any) -> None:
        reply.expect()

    def note(response_dict: Mapping[str, Any], **_event: Any) -> None:
        reply.note(response_dict["status_code"], response_dict["headers"])

    session = Session(profile=parameters.profile)
    # https://docs.aws.amazon.com/botocore/latest/topics/events.html
    session.register("before-send", expect)
    session.register("before-parse", note)
    session.set_default_client_config(_connection(parameters))
    if parameters.ca_file is not None:
        session.set_config_variable("ca_bundle", parameters.ca_file)
    credentials: _AwsCredentials | None = session.get_credentials()
    if credentials is None:
        raise NoAwsCredentials
    return credentials


def _connection(parameters: BedrockParameters) -> Config:
    """Return the options of connections, without retries."""
    proxies: dict[str, str] | None = None if parameters.trust_env else {}
    if parameters.proxy is not None:
        proxies = {"https": parameters.proxy}
    return Config(
        connect_timeout=parameters.timeout,
        read_timeout=parameters.timeout,
        retries={"total_max_attempts": 1},
        proxies=proxies,
    )


def is_refusal(error: Exception, reply: LastReply) -> bool:
    """Whether an issuer refused the request, or the AWS configuration of this machine cannot work."""
    if isinstance(error, NoAwsCredentials):
        # Botocore also finds none while the metadata service of the machine does not answer.
        return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    if isinstance(error, aws_exceptions.ClientError):
        return reply.status in REFUSALS and error.response.get("Error", {}).get("Code") in _CODES
    return isinstance(error, _UNUSABLE)

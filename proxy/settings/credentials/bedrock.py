"""`source = "bedrock"`: a short-term key for Amazon Bedrock, signed here with AWS credentials."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from proxy.settings.credentials.cloud import CloudSection
from proxy.settings.fields import Count, Name
from proxy.settings.section import refuse

TWELVE_HOURS = 12 * 3600

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


def _region(value: str) -> str:
    if not _REGION.fullmatch(value):
        refuse('must be a region, such as "us-east-1"')
    return value


class BedrockCredential(CloudSection):
    """The region, and whose AWS credentials sign."""

    package: ClassVar[str] = "aws-bedrock-token-generator"
    modules: ClassVar[tuple[str, ...]] = ("aws_bedrock_token_generator", "botocore")

    source: Literal["bedrock"]
    region: Annotated[Name, AfterValidator(_region)]
    ttl: Annotated[Count, Field(le=TWELVE_HOURS)] = TWELVE_HOURS
    """Seconds that a key lives; it never outlives temporary AWS credentials that signed it."""
    profile: Name | None = None
    """Of the AWS configuration files; by default what botocore's chain finds."""

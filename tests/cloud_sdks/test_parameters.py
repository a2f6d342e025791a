"""The input of the process: it arrives as it was sent, and secrets are not shown."""

import pytest

from proxy.cloud_sdks.parameters import (
    AzureParameters,
    BedrockParameters,
    GoogleParameters,
    Parameters,
    read_parameters,
    write_parameters,
)


@pytest.mark.parametrize(
    "parameters",
    [
        AzureParameters(timeout=1.5, scope="s", client_secret='"é\n'),
        GoogleParameters(timeout=10, scopes=("a", "b"), default_ttl=300, trust_env=True),
        BedrockParameters(timeout=10, region="eu-central-1", ttl=900, proxy="http://proxy.example"),
    ],
    ids=["azure", "google", "bedrock"],
)
def test_they_arrive_as_they_were_sent(parameters: Parameters) -> None:
    assert read_parameters(write_parameters(parameters)) == parameters


def test_their_secrets_are_not_shown() -> None:
    parameters = AzureParameters(
        timeout=1, scope="s", client_secret="canary-secret", certificate_password="canary-password"
    )
    assert "canary" not in repr(parameters) + str(parameters)

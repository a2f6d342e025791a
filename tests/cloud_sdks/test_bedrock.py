"""Short-term keys for Amazon Bedrock: signed here, with the credentials that botocore's chain finds."""

import base64
import configparser
import io
import json
import logging
import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FetchedToken
from proxy.settings import BedrockCredential
from tests.cloud_sdks.sdk import source_here
from tests.credentials.sources.token_endpoint import TokenEndpoint

SECRET = "canary-secret-91bc"
SESSION = "canary-session-7f3a"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all AWS credentials, and every way to request some."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def static_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the keys of a user, which do not expire."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def section(**values: Any) -> BedrockCredential:
    return BedrockCredential.model_validate({"source": "bedrock", "region": "eu-central-1", **values})


async def fetch(section: BedrockCredential) -> FetchedToken:
    source = source_here(section)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(section: BedrockCredential) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        await fetch(section)
    return caught.value


def assumed(end: str) -> str:
    """Return the reply of the security token service to a role that may be assumed."""
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
        f"<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
        f"<SessionToken>{SESSION}</SessionToken><Expiration>{end}</Expiration></Credentials>"
        "</AssumeRoleResult></AssumeRoleResponse>"
    )


def signed_url(fetched: FetchedToken) -> str:
    """Return the URL inside a key."""
    kind, _, encoded = fetched.secret.reveal().partition("bedrock-api-key-")
    assert kind == ""
    return base64.b64decode(encoded, validate=True).decode()


def query_of(fetched: FetchedToken) -> dict[str, str]:
    query = urlsplit(f"https://{signed_url(fetched)}").query
    return {name: value for name, (value,) in parse_qs(query).items()}


@pytest.mark.usefixtures("static_keys")
async def test_a_key_is_a_signed_url_that_does_not_hold_the_secret() -> None:
    fetched = await fetch(section(ttl=900))

    assert fetched.lifetime == 900.0
    assert not fetched.certain  # AWS compares the time of the signature with its own clock
    assert signed_url(fetched).startswith("bedrock.amazonaws.com/?Action=CallWithBearerToken&")
    query = query_of(fetched)
    today = datetime.now(UTC).strftime("%Y%m%d")
    assert query["X-Amz-Credential"] == f"AKIDEXAMPLE/{today}/eu-central-1/bedrock/aws4_request"
    assert (query["X-Amz-Expires"], query["Version"]) == ("900", "1")
    assert len(query["X-Amz-Signature"]) == 64
    assert "X-Amz-Security-Token" not in query
    assert SECRET not in signed_url(fetched)


@pytest.mark.usefixtures("static_keys")
async def test_a_key_lives_twelve_hours_by_default() -> None:
    fetched = await fetch(section())

    assert fetched.lifetime == 43200.0
    assert query_of(fetched)["X-Amz-Expires"] == "43200"


@pytest.mark.usefixtures("static_keys")
async def test_with_configured_keys_no_request_is_sent(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    for name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, endpoint.url)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url)

    await fetch(section())

    assert endpoint.asked == []


async def test_a_profile_is_chosen_by_its_name(tmp_path: Path) -> None:
    profiles = configparser.ConfigParser()
    for name in ("default", "prod"):
        profiles[name] = {"aws_access_key_id": f"AKID{name}", "aws_secret_access_key": SECRET}
    with (tmp_path / "credentials").open("w") as file:
        profiles.write(file)

    assert query_of(await fetch(section()))["X-Amz-Credential"].startswith("AKIDdefault/")
    assert query_of(await fetch(section(profile="prod")))["X-Amz-Credential"].startswith("AKIDprod/")
    missing = await failure_of(section(profile="test"))
    assert (missing.reason, missing.permanent) == ("bedrock returned no token: ProfileNotFound", True)


@pytest.fixture
def role(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], TokenEndpoint]:
    """Serve the endpoint of a container's role, as ECS and EKS name it in the environment."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url + "/role")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-authorization")

    def say(seconds: float) -> TokenEndpoint:
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        endpoint.says(
            {
                "AccessKeyId": "ASIAROLE",
                "SecretAccessKey": SECRET,
                "Token": SESSION,
                "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
        return endpoint

    return say


async def test_a_key_ends_with_the_temporary_credentials_that_signed_it(
    role: Callable[[float], TokenEndpoint],
) -> None:
    endpoint = role(3600)

    fetched = await fetch(section())

    assert 3590 <= fetched.lifetime <= 3600
    query = query_of(fetched)
    assert query["X-Amz-Security-Token"] == SESSION
    assert query["X-Amz-Credential"].startswith("ASIAROLE/")
    assert endpoint.asked[0].headers["authorization"] == "canary-authorization"
    assert (await fetch(section(ttl=60))).lifetime == 60.0


async def test_each_fetch_requests_temporary_credentials(
    role: Callable[[float], TokenEndpoint],
) -> None:
    endpoint = role(3600)
    source = source_here(section())

    await source.fetch()
    await source.fetch()

    await source.close()
    assert len(endpoint.asked) == 2


async def test_session_credentials_of_the_environment_may_have_an_expiry(
    monkeypatch: pytest.MonkeyPatch, static_keys: None
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=1800)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    assert (await fetch(section())).lifetime == 43200.0

    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())
    assert 1790 <= (await fetch(section())).lifetime <= 1800


async def test_absent_credentials_are_a_failure() -> None:
    error = await failure_of(section())

    assert error.reason == "bedrock needs AWS credentials, but botocore found none"
    assert error.permanent


async def test_a_metadata_service_that_does_not_answer_is_a_temporary_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")

    error = await failure_of(section())

    assert error.reason == "bedrock needs AWS credentials, but botocore found none"
    assert not error.permanent


async def test_half_a_pair_of_keys_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")

    error = await failure_of(section())

    assert (error.reason, error.permanent) == ("bedrock returned no token: PartialCredentialsError", True)


@pytest.mark.parametrize("status", [403, 500])
async def test_an_endpoint_without_credentials_is_a_temporary_failure(
    role: Callable[[float], TokenEndpoint], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    endpoint = role(3600)
    endpoint.status, endpoint.body = status, b'{"message": "canary"}'

    error = await failure_of(section())

    assert (error.reason, error.permanent) == ("bedrock returned no token: CredentialRetrievalError", False)
    assert "canary" not in "".join(traceback.format_exception(error))


@pytest.fixture
def assumed_role(tmp_path: Path, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> TokenEndpoint:
    """Serve a security token service on loopback, and configure a role to assume."""
    (tmp_path / "config").write_text(
        "[profile prod]\nrole_arn = arn:aws:iam::1:role/llm\nsource_profile = base\nregion = us-east-1\n"
        f"[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
    return endpoint


async def test_a_role_that_is_assumed_signs_and_its_end_is_known(assumed_role: TokenEndpoint) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=3600)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assumed_role.body = assumed(end).encode()

    fetched = await fetch(section(profile="prod"))

    assert query_of(fetched)["X-Amz-Security-Token"] == SESSION
    assert 3590 <= fetched.lifetime <= 3600


@pytest.mark.parametrize(("status", "permanent"), [(403, True), (429, False), (500, False)])
async def test_a_refused_role_is_permanent_a_fault_temporary_and_neither_is_retried(
    assumed_role: TokenEndpoint, status: int, *, permanent: bool
) -> None:
    assumed_role.status = status
    assumed_role.body = (
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>canary</Message></Error></ErrorResponse>"
    )

    error = await failure_of(section(profile="prod"))

    assert (error.reason, error.permanent) == ("bedrock returned no token: ClientError", permanent)
    assert error.has_reply
    assert "canary" not in "".join(traceback.format_exception(error))
    assert len(assumed_role.asked) == 1


@pytest.mark.parametrize(
    "code", ["Throttling", "RequestLimitExceeded", "IDPCommunicationError", "RequestExpired", "Unheard"]
)
async def test_a_400_is_no_refusal_unless_its_code_is_known(assumed_role: TokenEndpoint, code: str) -> None:
    assumed_role.status = 400
    assumed_role.body = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode()

    error = await failure_of(section(profile="prod"))

    assert (error.permanent, error.has_reply) == (False, True)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html><br>canary</html>"),
        (200, "<AssumeRoleResponse><AssumeRole"),
        (200, ""),
        (200, assumed("2020-01-01T00:00:00Z")),
        (200, assumed("soon")),
        (302, ""),
        (429, "<html><br>canary</html>"),
    ],
)
async def test_a_reply_without_credentials_is_a_temporary_failure(
    assumed_role: TokenEndpoint, status: int, body: str
) -> None:
    assumed_role.status, assumed_role.body = status, body.encode()

    error = await failure_of(section(profile="prod"))

    assert (error.permanent, error.has_reply) == (False, True)
    assert "canary" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("status", [429, 503])
async def test_the_token_service_may_name_a_pause(assumed_role: TokenEndpoint, status: int) -> None:
    assumed_role.status, assumed_role.headers["Retry-After"] = status, "17"

    assert (await failure_of(section(profile="prod"))).retry_after == 17.0


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> io.StringIO:
    """Collect everything that reaches the root logger as the service configures it, unlike `caplog`."""
    stream = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(stream))
    for name in ("", "botocore", "botocore.auth", "botocore.credentials", "botocore.parsers", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    return stream


async def test_log_lines_of_the_sdk_are_suppressed(
    role: Callable[[float], TokenEndpoint], log: io.StringIO
) -> None:
    endpoint = role(3600)
    source = build_source(section())
    shown = repr(source) + repr(vars(source)) + str(source)
    fetched = await source.fetch()
    endpoint.says({"canary": json.loads(endpoint.body)})
    with pytest.raises(TokenFetchError) as caught:
        await source.fetch()

    told = log.getvalue() + "".join(traceback.format_exception(caught.value)) + shown + repr(fetched)
    assert "canary" not in told
    assert query_of(fetched)["X-Amz-Signature"] not in told
    assert "StringToSign" not in told

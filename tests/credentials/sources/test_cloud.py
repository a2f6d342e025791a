"""The process in which the SDK of a cloud runs: whatever the SDK waits for, receives or starts is bounded."""

import json
import os
import signal
import sys
from asyncio import get_running_loop, wait
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.cloud import CloudCredential
from proxy.settings import AzureCredential, BedrockCredential, GoogleCredential
from tests.cli.processes import running
from tests.credentials.sources.test_process import HELD, Witness
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.raw_upstream import Conversation, raw_upstream
from tests.waiting import delay

SCOPE: Final = "https://cognitiveservices.azure.com/.default"
SHORT: Final = 0.3
"""A time limit of a fetch that must fail."""
HANGING: Final = f"#!/bin/sh\ncd %s; {HELD} sleep 100 & sleep 100\n"
"""A command that hangs, as a shell that waits for other processes."""
SOURCES: Final = ("azure", "google", "bedrock")
Build = Callable[..., CloudCredential]


@pytest.fixture(autouse=True)
def no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every identity and proxy from the environment."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "IDENTITY_", "MSI_", "IMDS_", "GOOGLE_", "GCE_")):
            monkeypatch.delenv(name)
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def key() -> str:
    """Create a private key."""
    return (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str) -> Build:
    """Return a function that builds the section of a source whose SDK asks the issuer at a URL."""

    def build(name: str, url: str, **values: Any) -> CloudCredential:
        if name == "azure":
            monkeypatch.setenv("IDENTITY_ENDPOINT", url)
            monkeypatch.setenv("IDENTITY_HEADER", "x")
            return azure(method="managed_identity", **values)
        if name == "google":
            path = tmp_path / "account.json"
            account = {"type": "service_account", "private_key_id": "k", "client_email": "a@b.example"}
            path.write_text(json.dumps({**account, "private_key": key, "token_uri": url}))
            return GoogleCredential.model_validate({"source": "google", "file": path, **values})
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        return bedrock(**values)

    return build


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path)
    yield witness
    witness.close()


def azure(**values: Any) -> AzureCredential:
    return AzureCredential.model_validate({"source": "azure", "scope": SCOPE, **values})


def bedrock(**values: Any) -> BedrockCredential:
    return BedrockCredential.model_validate({"source": "bedrock", "region": "eu-central-1", **values})


async def failure_of(section: CloudCredential) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        await build_source(section).fetch()
    return caught.value


def install(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a command on PATH."""
    tool = folder / name
    tool.write_text(script)
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tool


@pytest.mark.parametrize("name", SOURCES)
async def test_a_reply_that_drips_ends_at_the_timeout_and_the_next_fetch_is_free(
    name: str, source: Build
) -> None:
    healthy = {
        "azure": {"access_token": "t", "expires_in": 3600, "resource": "r"},
        "google": {"access_token": "t", "expires_in": 3600},
        "bedrock": {
            "AccessKeyId": "A",
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": "2100-01-01T00:00:00Z",
        },
    }
    drips = True

    async def answer(talk: Conversation) -> None:
        if not drips:
            await talk.answer(json.dumps(healthy[name]).encode(), "Content-Type: application/json")
            return
        await talk.start_stream(content_type="application/json")
        while True:
            await talk.chunk(b" ")
            await delay(SHORT / 10)

    async with raw_upstream(answer) as issuer:
        error = await failure_of(source(name, issuer.url, timeout=SHORT))
        await until(lambda: issuer.connections == 0)
        drips = False
        fetched = await build_source(source(name, issuer.url, timeout=PATIENCE)).fetch()

    assert error.reason.startswith(f"the SDK of {name} did not end in time; ")
    assert not error.permanent
    assert fetched.secret.reveal().startswith("bedrock-api-key-" if name == "bedrock" else "t")


@pytest.mark.parametrize("name", SOURCES)
async def test_a_reply_that_does_not_end_is_abandoned_before_the_timeout(name: str, source: Build) -> None:
    async def flood(talk: Conversation) -> None:
        await talk.start_stream(content_type="application/json")
        while True:
            await talk.chunk(b" " * (1 << 20))

    async with raw_upstream(flood) as issuer:
        error = await failure_of(source(name, issuer.url, timeout=PATIENCE))
        await until(lambda: issuer.connections == 0)

    assert error.reason.startswith(f"the SDK of {name} used too much memory; ")
    assert not error.permanent


@pytest.mark.parametrize(
    ("credential", "tool"),
    [
        ("AzureCliCredential", "az"),
        ("AzureDeveloperCliCredential", "azd"),
        ("AzurePowerShellCredential", "pwsh"),
    ],
)
async def test_a_command_of_azure_that_hangs_ends_with_its_processes(
    credential: str, tool: str, tmp_path: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, tool, HANGING % tmp_path, monkeypatch)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", credential)

    error = await failure_of(azure(timeout=paced(0.3)))

    assert not error.permanent
    assert b"up" in witness.heard()
    await witness.is_gone()


async def test_a_credential_process_that_hangs_ends_and_the_next_fetch_is_free(
    tmp_path: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = install(tmp_path, "tool", HANGING % tmp_path, monkeypatch)
    (tmp_path / "config").write_text(f"[profile prod]\ncredential_process = {tool}\n")

    error = await failure_of(bedrock(profile="prod", timeout=paced(0.3)))

    assert error.reason.startswith("the SDK of bedrock did not end in time; ")
    assert b"up" in witness.heard()
    await witness.is_gone()
    reply = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s", "SessionToken": "t"}
    tool.write_text(f"#!/bin/sh\necho '{json.dumps(reply)}'\n")
    await build_source(bedrock(profile="prod", timeout=PATIENCE)).fetch()


async def test_a_cancelled_fetch_ends_its_processes(
    tmp_path: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "az", HANGING % tmp_path, monkeypatch)
    source = build_source(azure(method="cli", timeout=PATIENCE))
    fetch = get_running_loop().create_task(source.fetch())
    await witness.appears()

    fetch.cancel()
    await wait({fetch})

    assert fetch.cancelled()
    await witness.is_gone()


FETCH: Final = """
import asyncio
from proxy.credentials.build import build_source
from proxy.settings import AzureCredential
section = AzureCredential.model_validate({"source": "azure", "scope": "s", "method": "cli", "timeout": 1000})
asyncio.run(build_source(section).fetch())
"""


async def test_a_service_that_is_killed_leaves_no_process(
    tmp_path: Path, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "az", HANGING % tmp_path, monkeypatch)
    async with running(sys.executable, "-c", FETCH, PATH=os.environ["PATH"]) as service:
        await witness.appears()
        service.send_signal(signal.SIGKILL)
        await witness.is_gone()


@pytest.mark.parametrize("trusted", [False, True])
async def test_proxies_of_the_environment_are_used_only_if_configured(
    endpoint: TokenEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """The metadata service, the security token service, and the environment of a command."""
    tool = install(tmp_path, "tool", f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 1\n", monkeypatch)
    (tmp_path / "config").write_text(
        f"[profile tool]\ncredential_process = {tool}\n"
        "[profile role]\nrole_arn = arn:aws:iam::1:role/llm\nsource_profile = base\nregion = us-east-1\n"
        "[profile base]\naws_access_key_id = A\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1/sts")
    monkeypatch.setenv("http_proxy", endpoint.url)

    for profile in (None, "role", "tool"):
        await failure_of(bedrock(profile=profile, trust_env=trusted, timeout=PATIENCE))

    assert bool([asked for asked in endpoint.asked if "/latest/" in asked.target]) is trusted
    assert bool([asked for asked in endpoint.asked if "sts" in asked.target]) is trusted
    assert ("http_proxy=" in (tmp_path / "seen").read_text()) is trusted


async def test_a_configured_proxy_is_used_for_issuers_over_tls(
    endpoint: TokenEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[profile role]\nrole_arn = arn:aws:iam::1:role/llm\nsource_profile = base\nregion = us-east-1\n"
        "[profile base]\naws_access_key_id = A\naws_secret_access_key = s\n"
    )

    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"", status="502 Bad Gateway")

    async with raw_upstream(refuse) as proxy:
        error = await failure_of(bedrock(profile="role", proxy=proxy.url, timeout=PATIENCE))

    assert proxy.requests[0].head.startswith(b"CONNECT sts.us-east-1.amazonaws.com:443 ")
    assert not error.permanent


async def test_a_process_that_cannot_start_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")

    error = await failure_of(bedrock(timeout=PATIENCE))

    assert error.reason == "the SDK of bedrock failed: its process ended with status 1"
    assert not error.permanent


@pytest.mark.parametrize("name", ["proxy", "json", "botocore"])
async def test_a_module_in_the_working_directory_is_not_imported(
    name: str, source: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)

    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"{}", status="403 Forbidden")

    async with raw_upstream(refuse) as issuer:
        await failure_of(source("bedrock", issuer.url, timeout=PATIENCE))

    assert issuer.requests

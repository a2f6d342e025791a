"""Microsoft Entra ID through its SDK: real endpoints on loopback, over TLS where the SDK insists on it."""

import asyncio
import io
import json
import logging
import math
import os
import ssl
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FetchedToken
from proxy.settings import AzureCredential
from tests.cloud_sdks.sdk import source_here
from tests.credentials.fakes import local_machine, replaced
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

SCOPE = "https://cognitiveservices.azure.com/.default"
TENANT = "contoso.example"
SECRET = "canary-secret-91bc"
TOKEN = "canary-token-7f3a"


@dataclass
class Authority:
    """A token endpoint over TLS like Microsoft Entra ID, which records each form."""

    certificate: Path
    url: str = ""
    status: int = 200
    content: str = "application/json"
    reply: dict[str, Any] | bytes = field(default_factory=dict)
    """Fields that are added to the reply, or a reply that replaces it."""
    headers: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """The path and the form of each request."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length"))
        form = (await reader.readexactly(int(length.partition(":")[2]))).decode()
        self.asked.append((head.split(" ")[1], dict(parse_qsl(form))))
        body = self.reply
        if isinstance(body, dict):
            usual = {"token_type": "Bearer", "expires_in": 3599, "access_token": f"{TOKEN}-{len(self.asked)}"}
            body = json.dumps({**usual, **body}).encode()
        lines = [f"HTTP/1.1 {self.status} x", f"Content-Type: {self.content}", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "Connection: close", *self.headers, "", ""]).encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a self-signed certificate for 127.0.0.1 and its RSA key, in one PEM file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=2))
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
async def authority(certificate: Path) -> AsyncIterator[Authority]:
    authority = Authority(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(authority.serve, "127.0.0.1", 0, ssl=context)
    authority.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield authority
    server.close()
    await server.wait_closed()


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every identity except that of the test, and set a proxy that must not be used."""
    for name in os.environ:
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_")):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def section(**values: Any) -> AzureCredential:
    return AzureCredential.model_validate({"source": "azure", "scope": SCOPE, "timeout": PATIENCE, **values})


def client_secret(authority: Authority, **values: Any) -> AzureCredential:
    return section(
        method="client_secret",
        tenant_id=TENANT,
        client_id="app",
        client_secret=SECRET,
        authority=authority.url,
        ca_file=authority.certificate,
        **values,
    )


async def fetch(section: AzureCredential) -> FetchedToken:
    source = source_here(section)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(section: AzureCredential) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        await fetch(section)
    return caught.value


async def test_a_client_secret_is_sent_to_the_authority(authority: Authority) -> None:
    fetched = await fetch(client_secret(authority))

    assert fetched.secret.reveal() == f"{TOKEN}-1"
    assert 3597 <= fetched.lifetime <= 3599
    assert fetched.certain
    assert fetched.refresh_in is None
    path, form = authority.asked[0]
    assert path == f"/{TENANT}/oauth2/v2.0/token"
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": SECRET,
        "scope": SCOPE,
    }


async def test_every_fetch_sends_a_request_despite_the_cache_of_the_sdk(authority: Authority) -> None:
    source = source_here(client_secret(authority))

    tokens = [(await source.fetch()).secret.reveal() for _ in range(3)]

    await source.close()
    assert tokens == [f"{TOKEN}-1", f"{TOKEN}-2", f"{TOKEN}-3"]


async def test_a_token_that_the_upstream_rejected_is_replaced(authority: Authority) -> None:
    machine = local_machine(source_here(client_secret(authority)))

    refused = await machine.get()
    fresh = await replaced(machine)

    await machine.close()
    assert (refused.secret.reveal(), fresh.secret.reveal()) == (f"{TOKEN}-1", f"{TOKEN}-2")


async def test_the_refresh_hint_of_the_authority_is_used(authority: Authority) -> None:
    authority.reply = {"expires_in": 7200, "refresh_in": 1800}

    fetched = await fetch(client_secret(authority))

    assert fetched.refresh_in is not None
    assert 1798 <= fetched.refresh_in <= 1800
    assert 7198 <= fetched.lifetime <= 7200


async def test_a_certificate_signs_an_assertion(authority: Authority) -> None:
    await fetch(
        section(
            method="certificate",
            tenant_id=TENANT,
            client_id="app",
            certificate_file=authority.certificate,
            authority=authority.url,
            ca_file=authority.certificate,
        )
    )

    form = authority.asked[0][1]
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    key = x509.load_pem_x509_certificate(authority.certificate.read_bytes()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    audience = f"{authority.url}/{TENANT}/oauth2/v2.0/token"
    claims = jwt.decode(form["client_assertion"], key, ["RS256", "PS256"], audience=audience)
    assert (claims["iss"], claims["sub"]) == ("app", "app")


async def test_the_token_file_of_a_workload_is_read_for_each_fetch(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    source = source_here(
        section(
            method="workload_identity",
            tenant_id=TENANT,
            client_id="app",
            token_file=path,
            authority=authority.url,
            ca_file=authority.certificate,
        )
    )

    await source.fetch()
    path.write_text("second\n")
    await source.fetch()

    await source.close()
    assert [form["client_assertion"] for _, form in authority.asked] == ["first", "second"]


@pytest.fixture
def app_service(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> TokenEndpoint:
    """Serve the identity endpoint that App Service names in the environment."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url + "/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", SECRET)
    resource = SCOPE.removesuffix("/.default")
    endpoint.says({"access_token": TOKEN, "expires_on": str(int(time.time()) + 86400), "resource": resource})
    return endpoint


async def test_a_managed_identity_is_asked_for_the_resource(app_service: TokenEndpoint) -> None:
    fetched = await fetch(section(method="managed_identity", client_id="user-assigned"))

    assert fetched.secret.reveal() == TOKEN
    assert 86390 <= fetched.lifetime <= 86400
    assert not fetched.certain  # such a reply may contain a point in time
    assert fetched.refresh_in is not None  # the SDK refreshes after half of a long lifetime
    assert 43190 <= fetched.refresh_in <= 43200
    asked = app_service.asked[0]
    assert asked.headers["x-identity-header"] == SECRET
    target = urlsplit(asked.target)
    assert target.path == "/msi/token"
    query = parse_qs(target.query)
    assert query["resource"] == ["https://cognitiveservices.azure.com"]
    assert query["client_id"] == ["user-assigned"]


async def test_a_managed_identity_gets_a_request_for_each_fetch(app_service: TokenEndpoint) -> None:
    source = source_here(section(method="managed_identity"))
    await source.fetch()
    await source.fetch()
    await source.close()

    assert len(app_service.asked) == 2


async def test_the_default_identity_uses_the_variables_of_the_environment(
    app_service: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")

    fetched = await fetch(section(client_id="user-assigned", tenant_id=TENANT))

    assert fetched.secret.reveal() == TOKEN
    assert "client_id=user-assigned" in app_service.asked[0].target


async def test_a_broken_chain_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name, value in {"TENANT_ID": TENANT, "CLIENT_ID": "app", "CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)

    error = await failure_of(section(authority="https://127.0.0.1:1"))

    assert (error.reason, error.permanent) == ("azure returned no token: ClientAuthenticationError", False)


async def test_the_command_line_tool_provides_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "az"
    expires = int(time.time()) + 3600
    reply = json.dumps({"accessToken": TOKEN, "expires_on": expires, "expiresOn": "2030-01-01 00:00:00"})
    tool.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/arguments\necho '{reply}'\n")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    fetched = await fetch(section(method="cli", tenant_id=TENANT))

    assert fetched.secret.reveal() == TOKEN
    assert 3590 <= fetched.lifetime <= 3600
    arguments = (tmp_path / "arguments").read_text()
    assert f"--resource https://cognitiveservices.azure.com --tenant {TENANT}" in arguments


async def test_without_the_command_line_tool_there_is_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    error = await failure_of(section(method="cli"))

    assert error.reason == "azure returned no token: CredentialUnavailableError"
    assert error.permanent


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (401, True),
        (403, True),
        (404, False),
        (408, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
async def test_a_refusal_is_permanent_a_fault_temporary_and_neither_is_retried(
    authority: Authority, status: int, *, permanent: bool
) -> None:
    authority.status = status
    authority.reply = {"error": "invalid_client", "error_description": f"AADSTS7000215 {SECRET}"}

    error = await failure_of(client_secret(authority))

    assert error.reason == "azure returned no token: ClientAuthenticationError"
    assert error.permanent is permanent
    assert error.has_reply
    assert len(authority.asked) == 1


async def test_the_authority_may_name_a_pause_in_seconds_or_until_a_date(authority: Authority) -> None:
    authority.status, authority.headers = 429, ["Retry-After: 17"]
    authority.reply = {"error": "temporarily_unavailable"}

    assert (await failure_of(client_secret(authority))).retry_after == 17.0

    authority.headers = [f"Retry-After: {formatdate(time.time() + 1000, usegmt=True)}"]
    pause = (await failure_of(client_secret(authority))).retry_after
    assert pause is not None
    assert 1000 - PATIENCE < pause <= 1000


@pytest.mark.parametrize("expires_on", ["soon", "11/05/2031 15:18:31 +00:00", math.nan, math.inf])
async def test_a_lifetime_that_the_sdk_cannot_read_is_a_temporary_failure(
    app_service: TokenEndpoint, expires_on: object
) -> None:
    app_service.says({"access_token": TOKEN, "expires_on": expires_on, "resource": "r"})

    error = await failure_of(section(method="managed_identity"))

    assert not error.permanent
    assert error.has_reply


async def test_an_endpoint_that_does_not_listen_is_a_temporary_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("IDENTITY_HEADER", SECRET)

    error = await failure_of(section(method="managed_identity"))

    assert (error.permanent, error.has_reply) == (False, False)


@pytest.mark.parametrize(
    ("status", "content", "body"),
    [
        (503, "text/html", b"<html>canary-token-7f3a</html>"),
        (200, "application/json", b'{"access_token": "canary-token-7f3a"'),
        (200, "application/json", b""),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"access_token": "canary-token-7f3a"}'),
        (200, "application/json", b'{"access_token": "canary\\u00e9", "expires_in": 60}'),
        (200, "application/json", b'{"access_token": "canary-token-7f3a", "expires_in": "soon"}'),
        (200, "application/json", b'{"access_token": "canary-token-7f3a", "expires_in": -5}'),
        (302, "application/json", b""),
    ],
)
async def test_a_reply_without_a_token_is_a_failure_with_our_own_message(
    authority: Authority, status: int, content: str, body: bytes
) -> None:
    authority.status, authority.content, authority.reply = status, content, body

    error = await failure_of(client_secret(authority))

    assert error.reason.startswith(("azure returned no token: ", "the SDK returned "))
    assert "canary" not in "".join(traceback.format_exception(error))
    assert len(authority.asked) == 1


async def test_an_untrusted_certificate_is_rejected_before_the_secret_is_sent(
    authority: Authority, certificate: Path
) -> None:
    known = client_secret(authority)

    error = await failure_of(known.model_copy(update={"ca_file": None}))

    assert error.reason == "azure returned no token: ServiceRequestError"
    assert not error.permanent
    assert authority.asked == []


async def test_requests_to_the_authority_use_the_proxy(authority: Authority) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.answer(b"", status="502 Bad Gateway")

    async with raw_upstream(refuse) as proxy:
        error = await failure_of(client_secret(authority, proxy=proxy.url))

    assert proxy.requests[0].head.startswith(f"CONNECT {authority.url.removeprefix('https://')} ".encode())
    assert not error.permanent
    assert authority.asked == []


async def test_a_local_identity_endpoint_is_reached_without_the_proxy(
    app_service: TokenEndpoint,
) -> None:
    await fetch(section(method="managed_identity", proxy="http://127.0.0.1:1"))

    assert len(app_service.asked) == 1


async def test_proxies_of_the_environment_are_used_only_if_configured(
    app_service: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://identity.example/msi")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, app_service.url)

    await fetch(section(method="managed_identity", trust_env=True))

    assert [asked.headers["host"] for asked in app_service.asked] == ["identity.example"]


async def test_log_lines_of_the_sdk_are_suppressed(
    authority: Authority, app_service: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)  # as the service configures it, unlike `caplog`
    logging.getLogger().addHandler(handler)
    for name in ("", "azure", "azure.core", "azure.identity", "msal", "msal.token_cache"):
        caplog.set_level(logging.DEBUG, name)
    source = build_source(client_secret(authority))
    shown = repr(source) + repr(vars(source)) + str(source)
    await source.fetch()
    authority.status, authority.reply = 401, {"error": "invalid_client", "error_description": SECRET}
    with pytest.raises(TokenFetchError) as caught:
        await source.fetch()
    await fetch(section(method="managed_identity"))
    assert [asked.headers["x-identity-header"] for asked in app_service.asked] == [SECRET]

    told = written.getvalue() + "".join(traceback.format_exception(caught.value)) + shown
    assert "canary" not in told
    assert "AADSTS" not in told
    assert "ClientSecretCredential" not in told

"""Google through its SDK, which blocks, with endpoints on the test's event loop, which must keep running."""

import asyncio
import io
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FetchedToken
from proxy.settings import GoogleCredential
from tests.cloud_sdks.sdk import source_here
from tests.credentials.fakes import local_machine, replaced
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback, until
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
TOKEN = "canary-token-7f3a"
ACCOUNT = "proxy@project.iam.gserviceaccount.com"


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def account(endpoint: TokenEndpoint, key: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    """Write the JSON file of a service account that uses the endpoint."""
    endpoint.says({"access_token": TOKEN, "expires_in": 3599})
    return account_file(tmp_path, key, endpoint.url + "/token")


def account_file(folder: Path, key: rsa.RSAPrivateKey, url: str) -> Path:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "account.json"
    content = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "k1",
        "private_key": pem.decode(),
        "client_email": ACCOUNT,
        "token_uri": url,
    }
    path.write_text(json.dumps(content))
    return path


def spoil(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "private_key": "canary"}))


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every identity except that of the test, and set a proxy that must not be used."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "GCE_", "CLOUDSDK_", "GCLOUD_", "NO_GCE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def section(**values: Any) -> GoogleCredential:
    return GoogleCredential.model_validate({"source": "google", "timeout": PATIENCE, **values})


async def fetch(section: GoogleCredential) -> FetchedToken:
    source = source_here(section)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(section: GoogleCredential) -> TokenFetchError:
    with pytest.raises(TokenFetchError) as caught:
        await fetch(section)
    return caught.value


def claims_of(endpoint: TokenEndpoint, key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Check the signature of the assertion that the endpoint received, and return its claims."""
    form = dict(parse_qsl(endpoint.asked[0].body.decode()))
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims: dict[str, Any] = jwt.decode(
        form["assertion"], key.public_key(), ["RS256"], audience="https://oauth2.googleapis.com/token"
    )
    return claims


async def test_a_service_account_shows_a_signed_assertion(
    endpoint: TokenEndpoint, account: Path, key: rsa.RSAPrivateKey
) -> None:
    fetched = await fetch(section(file=account, scopes=["a", "b"], subject="user@project.example"))

    assert fetched.secret.reveal() == TOKEN
    assert 3590 <= fetched.lifetime <= 3599
    assert fetched.certain
    assert fetched.refresh_in is None
    assert (endpoint.asked[0].method, endpoint.asked[0].target) == ("POST", "/token")
    claims = claims_of(endpoint, key)
    assert (claims["iss"], claims["sub"], claims["scope"]) == (ACCOUNT, "user@project.example", "a b")
    assert claims["exp"] - claims["iat"] == 3600


async def test_the_scope_is_the_whole_platform_where_none_is_named(
    endpoint: TokenEndpoint, account: Path, key: rsa.RSAPrivateKey
) -> None:
    await fetch(section(file=account))

    assert claims_of(endpoint, key)["scope"] == CLOUD_PLATFORM


async def test_the_lifetime_of_an_id_token_is_that_of_its_claims(
    endpoint: TokenEndpoint, account: Path, key: rsa.RSAPrivateKey
) -> None:
    id_token = jwt.encode({"exp": int(time.time()) + 900}, key, "RS256")
    endpoint.says({"id_token": id_token})

    fetched = await fetch(section(file=account, audience="https://llm.example"))

    assert fetched.secret.reveal() == id_token
    assert 890 <= fetched.lifetime <= 900
    assert not fetched.certain
    assert claims_of(endpoint, key)["target_audience"] == "https://llm.example"


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the local time be nine hours ahead."""
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
async def test_the_end_of_a_token_is_not_taken_for_local_time(account: Path) -> None:
    assert 3590 <= (await fetch(section(file=account))).lifetime <= 3599


async def test_a_token_without_an_end_lives_for_the_default(endpoint: TokenEndpoint, account: Path) -> None:
    endpoint.says({"access_token": TOKEN})

    assert (await fetch(section(file=account, default_ttl=120))).lifetime == 120.0


async def test_a_token_that_the_upstream_rejected_is_replaced(endpoint: TokenEndpoint, account: Path) -> None:
    machine = local_machine(source_here(section(file=account)))

    refused = await machine.get()
    endpoint.says({"access_token": "second", "expires_in": 3599})
    fresh = await replaced(machine)

    await machine.close()
    assert (refused.secret.reveal(), fresh.secret.reveal()) == (TOKEN, "second")


async def test_the_event_loop_runs_while_the_sdk_waits(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    asked, turned = asyncio.Event(), asyncio.Event()

    async def answer_late(conversation: Conversation) -> None:
        asked.set()
        await turned.wait()
        await conversation.answer(
            b'{"access_token": "t", "expires_in": 60}', "Content-Type: application/json"
        )

    async with raw_upstream(answer_late) as issuer:
        file = account_file(tmp_path, key, issuer.url)
        async with asyncio.TaskGroup() as group:
            fetches = [group.create_task(fetch(section(file=file))) for _ in range(3)]
            await asked.wait()
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not any(task.done() for task in fetches)
            turned.set()

    assert [task.result().secret.reveal() for task in fetches] == ["t"] * 3


@pytest.fixture
def federation(endpoint: TokenEndpoint, tmp_path: Path) -> dict[str, Any]:
    """Write an external account with a subject token in a file."""
    (tmp_path / "subject").write_text("canary-subject")
    endpoint.says(
        {
            "access_token": TOKEN,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3599,
        }
    )
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/o",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }


async def test_an_external_account_exchanges_its_subject_token(
    endpoint: TokenEndpoint, federation: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "external.json"
    path.write_text(json.dumps({**federation, "token_url": endpoint.url + "/v1/token"}))

    fetched = await fetch(section(file=path))

    assert fetched.secret.reveal() == TOKEN
    assert 3590 <= fetched.lifetime <= 3599
    assert not fetched.certain
    assert [asked.target for asked in endpoint.asked] == ["/v1/token"]
    form = dict(parse_qsl(endpoint.asked[0].body.decode()))
    assert (form["subject_token"], form["scope"]) == ("canary-subject", CLOUD_PLATFORM)


async def test_the_application_default_may_be_a_file_that_the_environment_names(
    endpoint: TokenEndpoint, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))

    assert (await fetch(section())).secret.reveal() == TOKEN
    endpoint.says({"id_token": jwt.encode({"exp": int(time.time()) + 900}, "k" * 32)})
    assert 890 <= (await fetch(section(audience="https://llm.example"))).lifetime <= 900
    assert len(endpoint.asked) == 2


async def test_the_application_default_may_be_the_metadata_server(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", endpoint.url.removeprefix("http://"))
    monkeypatch.setenv("GCE_METADATA_IP", endpoint.url.removeprefix("http://"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project")
    endpoint.headers["Metadata-Flavor"] = "Google"
    endpoint.says({"access_token": TOKEN, "expires_in": 1800, "email": ACCOUNT, "scopes": []})

    fetched = await fetch(section())

    assert fetched.secret.reveal() == TOKEN
    assert 1790 <= fetched.lifetime <= 1800
    assert fetched.certain
    assert endpoint.asked[-1].target.startswith("/computeMetadata/v1/instance/service-accounts/")


@pytest.mark.parametrize(
    ("status", "reason", "permanent"),
    [
        (400, "RefreshError", True),
        (401, "RefreshError", True),
        (403, "RefreshError", True),
        (404, "RefreshError", False),
        (408, "ResponseError", False),
        (429, "ResponseError", False),
        (500, "ResponseError", False),
        (503, "ResponseError", False),
    ],
)
async def test_a_refusal_is_permanent_a_fault_temporary_and_neither_is_retried(
    endpoint: TokenEndpoint, account: Path, status: int, reason: str, *, permanent: bool
) -> None:
    endpoint.status = status
    endpoint.says({"error": "invalid_grant", "error_description": "canary"})

    error = await failure_of(section(file=account))

    assert (error.reason, error.permanent) == (f"google returned no token: {reason}", permanent)
    assert error.has_reply
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_the_issuer_may_name_a_pause(endpoint: TokenEndpoint, account: Path, status: int) -> None:
    endpoint.status, endpoint.headers["Retry-After"] = status, "17"

    assert (await failure_of(section(file=account))).retry_after == 17.0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_an_assertion_is_not_sent_to_a_redirect(
    endpoint: TokenEndpoint, account: Path, status: int
) -> None:
    elsewhere = TokenEndpoint()
    async with serve_on_loopback(elsewhere.app()) as elsewhere.url:
        endpoint.status, endpoint.headers["Location"] = status, elsewhere.url + "/token"
        error = await failure_of(section(file=account))

    assert (error.reason, error.permanent) == ("google returned no token: ResponseError", False)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>canary</html>",
        b"[]",
        b'{"token": "canary"}',
        b'{"access_token": 1, "expires_in": 60}',
        b'{"access_token": "canary\\u00e9", "expires_in": 60}',
        b'{"access_token": "canary", "expires_in": -60}',
        b'{"access_token": "canary", "expires_in": "canary"}',
    ],
)
async def test_a_reply_without_a_token_is_a_failure_with_our_own_message(
    endpoint: TokenEndpoint, account: Path, body: bytes
) -> None:
    endpoint.body = body

    error = await failure_of(section(file=account))

    assert error.reason.startswith(("google returned no token: ", "the SDK returned "))
    assert "canary" not in "".join(traceback.format_exception(error))
    assert not error.permanent
    assert len(endpoint.asked) == 1


async def test_a_missing_or_broken_file_is_a_failure(account: Path) -> None:
    whole = section(file=account)
    spoil(account)
    broken = await failure_of(whole)
    gone = await failure_of(whole.model_copy(update={"file": account.with_suffix(".gone")}))

    assert (gone.reason, gone.permanent) == ("google returned no token: FileNotFoundError", True)
    assert broken.permanent
    assert "canary" not in "".join(traceback.format_exception(broken))


async def test_an_endpoint_that_does_not_listen(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    error = await failure_of(section(file=account_file(tmp_path, key, "http://127.0.0.1:1/token")))

    assert (error.reason, error.permanent) == ("google returned no token: TransportError", False)


async def test_an_endpoint_that_does_not_answer_is_abandoned_at_the_timeout(
    tmp_path: Path, key: rsa.RSAPrivateKey
) -> None:
    async def stall(conversation: Conversation) -> None:
        await conversation.caller_left()

    async with raw_upstream(stall) as issuer:
        error = await failure_of(section(file=account_file(tmp_path, key, issuer.url), timeout=0.5))
        await until(lambda: issuer.connections == 0)

    assert (error.reason, error.permanent) == ("google returned no token: TransportError", False)
    assert len(issuer.requests) == 1


async def test_requests_to_an_issuer_over_tls_use_the_proxy(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.answer(b"", status="502 Bad Gateway")

    async with raw_upstream(refuse) as proxy:
        file = account_file(tmp_path, key, "https://token.example/token")
        error = await failure_of(section(file=file, proxy=proxy.url))

    assert proxy.requests[0].head.startswith(b"CONNECT token.example:443 ")
    assert (error.reason, error.permanent) == ("google returned no token: TransportError", False)


async def test_proxies_of_the_environment_are_used_only_if_configured(
    endpoint: TokenEndpoint, account: Path, key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = account_file(account.parent, key, "http://token.example/token")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, endpoint.url)

    await fetch(section(file=file, trust_env=True))

    assert [asked.headers["host"] for asked in endpoint.asked] == ["token.example"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> io.StringIO:
    """Collect everything that reaches the root logger as the service configures it, unlike `caplog`."""
    stream = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(stream))
    for name in ("", "google", "google.auth", "google.auth.transport.requests", "google.oauth2", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    return stream


async def test_log_lines_of_the_sdk_are_suppressed(
    endpoint: TokenEndpoint, account: Path, log: io.StringIO
) -> None:
    source = build_source(section(file=account))
    shown = repr(source) + repr(vars(source)) + str(source)
    await source.fetch()
    endpoint.status = 400
    endpoint.says({"error": "invalid_grant", "error_description": "canary"})
    with pytest.raises(TokenFetchError) as caught:
        await source.fetch()

    told = log.getvalue() + "".join(traceback.format_exception(caught.value)) + shown
    assert "canary" not in told
    assert "PRIVATE KEY" not in told
    assert "POST" not in told

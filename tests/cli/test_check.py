"""`check`: its result, its warnings, and `--online`."""

import asyncio
from pathlib import Path

import pytest

from proxy.cli import main
from tests.conftest import RunningGateway
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback
from tests.raw_upstream import Conversation, raw_upstream

ROOT = Path(__file__).parents[2]
Printed = pytest.CaptureFixture[str]
SECRET = "canary-secret-91bc"

PAGE_404 = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
JSON_404 = PAGE_404.replace(b"text/html", b"application/json")
SETTINGS = """
[access]
[[access.keys]]
name = "ragflow"
key = "{key}"
[upstreams.chat]
base_url = "{upstream}"
credential = "corp"
[credentials.corp]
source = "http"
url = "{issuer}/token"
json = {{ appSecret = "canary-secret-91bc" }}
token = "access_token"
expires = [{{ path = "expires_in", as = "seconds" }}]
"""


def write(
    tmp_path: Path,
    *,
    key: str = "sk-a-long-key-of-mine",
    upstream: str = "http://127.0.0.1:9/v1",
    issuer: str = "http://127.0.0.1:9",
) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(SETTINGS.format(key=key, upstream=upstream, issuer=issuer))
    return path


async def run(*arguments: str) -> int:
    """Run the command in a thread, next to the servers of the test."""
    return await asyncio.to_thread(main, ["check", *arguments])


def test_it_ends_with_ok_and_counts(tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path)
    assert main(["check", "--config", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"OK: {path}: 1 key, 1 upstream, 1 credential"
    assert printed.err == ""
    assert main(["check", "--config", str(ROOT / "config/proxy.toml")]) == 0
    assert capsys.readouterr().out.endswith("config/proxy.toml: 2 keys, 2 upstreams, 1 credential\n")


def test_open_mode_counts_no_keys(tmp_path: Path, capsys: Printed) -> None:
    path = tmp_path / "open.toml"
    path.write_text('[access]\nmode = "open"\n[upstreams.a]\nbase_url = "http://127.0.0.1:9/v1"\n')
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out.endswith("no key required, 1 upstream, 0 credentials\n")


@pytest.mark.parametrize(
    ("key", "is_weak"), [("abc", True), ("k9" * 7, True), ("k9" * 8, False), ("fake key", False)]
)
def test_a_guessable_key_causes_a_warning(
    tmp_path: Path, capsys: Printed, key: str, *, is_weak: bool
) -> None:
    assert main(["check", "--config", str(write(tmp_path, key=key))]) == 0
    said = capsys.readouterr().err
    assert (said == "") is not is_weak
    if is_weak:
        assert 'warning: access.keys: the key of "ragflow" has fewer than 16 characters' in said
        assert "openssl rand" in said


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("'sk-a-long-key-of-mine'", "has quotes around it"),
        (r"\"sk-a-long-key-of-mine\"", "has quotes around it"),
        ("$RAGFLOW_KEY_OF_COMPANY", "is the name of a variable"),
        ("$env:RAGFLOW_KEY_OF_COMPANY", "is the name of a variable"),
        ("%RAGFLOW_KEY_OF_COMPANY%", "is the name of a variable"),
        ("sk-a'long'key-of-$mine%", ""),
    ],
)
def test_a_key_that_is_not_the_intended_text_causes_a_warning(
    tmp_path: Path, capsys: Printed, key: str, words: str
) -> None:
    assert main(["check", "--config", str(write(tmp_path, key=key))]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f'warning: access.keys: the key of "ragflow" {words}' if words else said)
    assert bool(said) is bool(words)


def test_json_as_text_causes_a_warning(tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path)
    text = path.read_text().replace(
        'json = { appSecret = "canary-secret-91bc" }', 'json = \'{"appId": "demo"}\''
    )
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().err.startswith(
        "warning: credentials.corp.json: is sent as one string in quotes"
    )


async def test_online_tries_everything(gateway: RunningGateway, capsys: Printed) -> None:
    assert await run("--online", "--config", str(ROOT / "config/proxy.toml")) == 0
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0] == "ok      credentials.corp: a token that lives 5 min"
    assert lines[1].startswith("ok      upstreams.chat: http://127.0.0.1:")
    assert lines[1].endswith(" answered 200 to GET models")
    assert lines[3].startswith("OK: ")


async def test_online_warns_before_it_revokes_the_token_of_a_service(tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + 'reissue = "revokes_previous"\n')
    assert await run("--online", "--config", str(path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: credentials.corp: this fetch revokes the token of a running service")
    assert lines[1].startswith("FAILED  credentials.corp")


async def test_online_names_each_failure(tmp_path: Path, capsys: Printed, closed_port: int) -> None:
    issuer = f"http://127.0.0.1:{closed_port}"
    assert await run("--online", "--config", str(write(tmp_path, issuer=issuer))) == 1
    said = capsys.readouterr().err
    assert f"FAILED  credentials.corp: the token endpoint {issuer}: connection refused; " in said
    assert f"FAILED  upstreams.chat: the token endpoint {issuer}: connection refused; " in said
    assert "FAILED: 2 problems with " in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("answer", "path", "status", "words"),
    [
        (PAGE_404, "/x", 1, "answered 404 with an HTML page; check that base_url has its version"),
        (JSON_404, "", 1, "and base_url has no path; check that base_url has its version"),
        (JSON_404, "/v1", 0, ""),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "/v1", 1, "rejects the token, and its"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "/v1", 1, "it rejects our token"),
        (b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", "/v1", 1, "the fault is on the upstream's side"),
        (b"HTTP/1.1 302 Found\r\nLocation: /l\r\nContent-Length: 0\r\n\r\n", "/v1", 1, "302, a redirect"),
    ],
)  # fmt: skip
async def test_online_judges_an_upstream_by_its_response(
    tmp_path: Path, capsys: Printed, answer: bytes, path: str, status: int, words: str
) -> None:
    async def say(talk: Conversation) -> None:
        await talk.say(answer)

    async with serve_on_loopback(TokenEndpoint().app()) as issuer, raw_upstream(say) as upstream:
        config = write(tmp_path, upstream=upstream.url + path, issuer=issuer)
        assert await run("--online", "--config", str(config)) == status
    assert words in capsys.readouterr().err
    assert upstream.requests[0].target == path.encode() + b"/models"

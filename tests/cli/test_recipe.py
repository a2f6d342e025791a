"""`recipe`: turn a curl line into a tested block, without printing a secret."""

import asyncio
import contextlib
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.recipe.block import hmac_script
from proxy.settings import load_settings
from tests.conftest import RunningGateway
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback
from tests.recipe.replies import RANDOM, jwt

ROOT = Path(__file__).parents[2]
SECRET = "canary-secret-91bc"
AROUND = (
    '\n[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "http://127.0.0.1/v1"\ncredential = "corp"\n'
)
Printed = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Enter this text at a terminal."""
    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(text))


@pytest.fixture(autouse=True)
def nobody_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        yield endpoint


@pytest.fixture
def reply(tmp_path: Path) -> Callable[[Any], str]:
    """Save a reply to a file."""

    def save(body: Any) -> str:
        path = tmp_path / "reply.json"
        path.write_text(body if isinstance(body, str) else json.dumps(body))
        return str(path)

    return save


async def run(*arguments: str) -> int:
    """Run the command in a thread, next to the servers of the test."""
    return await asyncio.to_thread(main, ["recipe", *arguments])


def company_line(url: str, secret: str = "demo-secret") -> str:
    body = json.dumps({"appId": "demo", "appSecret": secret})
    return f"curl -sS {url}/token -H 'Content-Type: application/json' -d '{body}' | jq -r .data.token"


async def test_the_demonstration_gateway_gives_a_block_that_serves(
    gateway: RunningGateway, capsys: Printed, tmp_path: Path
) -> None:
    assert await run("--curl", company_line(gateway.url)) == 0
    printed = capsys.readouterr()
    assert "demo-secret" not in printed.out + printed.err
    assert "export CORP_APP_SECRET='********'" in printed.err
    assert "43 characters with a lifetime of 5 min" in printed.err
    path = tmp_path / "proxy.toml"
    path.write_text(printed.out + AROUND)
    section = load_settings(path, {"CORP_APP_SECRET": "demo-secret"}).credentials["corp"]
    assert section.source == "http"
    assert gateway.gateway.stats.token_fetches == 1


async def test_the_endpoint_gets_one_request_like_that_of_curl(
    endpoint: TokenEndpoint, capsys: Printed
) -> None:
    line = f"curl -X PUT '{endpoint.url}/t?a=b' -d 'password={SECRET}' -H 'X-Key: {SECRET}'"
    assert await run("--name", "my-idp", "--curl", line) == 0
    (asked,) = endpoint.asked
    assert (asked.method, asked.target, asked.body) == ("PUT", "/t?a=b", f"password={SECRET}".encode())
    assert asked.headers["x-key"] == SECRET
    printed = capsys.readouterr()
    assert "[credentials.my-idp]" in printed.out
    assert SECRET not in printed.out + printed.err
    assert "token-1" not in printed.out + printed.err


async def test_the_line_can_be_read_from_standard_input(
    endpoint: TokenEndpoint, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"curl {endpoint.url} \\\n  -d a=1\n"))
    assert await run() == 0
    assert "expires_in" in capsys.readouterr().out


async def test_a_pasted_line_ends_where_a_shell_would_run_it(
    endpoint: TokenEndpoint, types: Callable[[str], None]
) -> None:
    types(f"curl {endpoint.url} \\\n  -d 'a=1\nb' \nnot read any more\n")
    assert await run() == 0
    assert endpoint.asked[0].body == b"a=1%0Ab"


@pytest.mark.parametrize(
    "line",
    [
        "irm {} `\n  -Method Post `\n  -Body @{{\na='1'\nb=2 }}",
        "$r = 1\nirm {} -Method Post -Body @'\na=1&b=it's\n'@",
        "curl.exe `\n {} `\n -d 'a=1'",
        'curl ^\n {} ^\n -d ^"a=1^"',
    ],
    ids=["table", "here-string", "curl.exe", "cmd"],
)
async def test_a_pasted_line_for_windows_is_read_to_its_end(
    endpoint: TokenEndpoint, types: Callable[[str], None], line: str
) -> None:
    types(f"{line.format(endpoint.url)}\nnot read any more\n")
    assert await run() == 0
    assert endpoint.asked[0].body.startswith(b"a=1")
    assert sys.stdin.readline() == "not read any more\n"


async def test_shell_variables_are_taken_from_the_environment(
    endpoint: TokenEndpoint, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f'curl {endpoint.url} -u "id:$CANARY_SECRET"'
    monkeypatch.delenv("CANARY_SECRET", raising=False)
    assert await run("--curl", line) == 2
    assert "CANARY_SECRET is not set" in capsys.readouterr().err
    assert not endpoint.asked
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    assert await run("--curl", line) == 0
    printed = capsys.readouterr()
    assert 'basic = ["id", "${env:CANARY_SECRET}"]' in printed.out
    assert SECRET not in printed.out + printed.err


async def test_offline_sends_no_request(
    endpoint: TokenEndpoint, capsys: Printed, reply: Callable[[Any], str]
) -> None:
    saved = reply(f"HTTP/1.1 201 Created\r\nX-Subject-Token: {RANDOM}\r\n\r\n{{}}")
    assert await run("--offline", saved, "--curl", f'curl {endpoint.url} -d "a=$NOT_SET_ANYWHERE"') == 0
    printed = capsys.readouterr()
    assert 'token_header = "x-subject-token"' in printed.out
    assert RANDOM not in printed.out + printed.err
    assert not endpoint.asked


def test_the_time_of_a_saved_reply_is_that_of_its_file(capsys: Printed, reply: Callable[[Any], str]) -> None:
    saved = reply({"token": RANDOM, "expires": 1_600_000_300})
    os.utime(saved, (1_600_000_000, 1_600_000_000))
    assert main(["recipe", "--offline", saved, "--curl", "curl https://a.example"]) == 0
    assert 'expires = [{ path = "expires", as = "epoch" }]' in capsys.readouterr().out


BOTH = {"token": RANDOM, "jwt": jwt(), "expires_in": 300000}


def test_uncertain_findings_are_asked_about_at_a_terminal(
    capsys: Printed, reply: Callable[[Any], str], types: Callable[[str], None]
) -> None:
    types("nine\n9\n2\n")
    assert main(["recipe", "--offline", reply(BOTH), "--curl", "curl https://a.example"]) == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["credentials"]["corp"]["token"] == "jwt"
    assert printed.err.count("1 to 2 [1]: ") == 3
    assert "unsure" not in printed.out


@pytest.mark.parametrize(
    ("typed", "unit"), [("2\n", "seconds"), ("\n", "milliseconds"), ("", "milliseconds")]
)
def test_a_unit_in_doubt_is_asked_about(
    capsys: Printed, reply: Callable[[Any], str], types: Callable[[str], None], typed: str, unit: str
) -> None:
    types(typed)
    saved = reply({"token": RANDOM, "expires_in": 300000})
    assert main(["recipe", "--offline", saved, "--curl", "curl https://a.example"]) == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["credentials"]["corp"]["expires"] == [
        {"path": "expires_in", "as": unit}
    ]
    assert "5 min" in printed.err
    assert "3.47 days" in printed.err
    assert "unsure" not in printed.out


@pytest.mark.parametrize("yes", [True, False])
def test_no_question_is_asked_without_a_terminal_or_with_yes(
    capsys: Printed, reply: Callable[[Any], str], types: Callable[[str], None], *, yes: bool
) -> None:
    if yes:
        types("2\n2\n")
    more = ["--yes"] if yes else []
    assert main(["recipe", "--offline", reply(BOTH), "--curl", "curl https://a.example", *more]) == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["credentials"]["corp"]["token"] == "token"
    assert "# unsure: " in printed.out
    assert "[1]: " not in printed.err


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": "invalid_client", "detail": f"wrong {SECRET}", "pw": "short-1"}, "answered 401"),
        (302, {}, "answered 302, a redirect, which is not followed"),
        (500, f"<html>{SECRET}</html>", "answered 500"),
        (200, {"code": 10401, "message": f"wrong {SECRET}", "data": None}, "nothing that looks like a token"),
        (200, f"<html>{SECRET}</html>", "nothing that looks like a token"),
        (200, "x" * (2 << 20), "too large"),
    ],
)
async def test_a_failure_exits_1_with_the_masked_reply(
    endpoint: TokenEndpoint, capsys: Printed, status: int, body: Any, words: str
) -> None:
    endpoint.status = status
    endpoint.headers["Location"] = f"{endpoint.url}/elsewhere"
    endpoint.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    line = f"curl -L {endpoint.url} -d secret={SECRET} -d password=short-1"
    assert await run("--curl", line) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert SECRET not in printed.err
    assert "short-1" not in printed.err
    assert len(endpoint.asked) == 1
    assert ("invalid_client" in printed.err) == (status == 401)


async def test_an_unreachable_or_silent_endpoint_exits_1(capsys: Printed, closed_port: int) -> None:
    assert await run("--curl", f"curl http://127.0.0.1:{closed_port}/") == 1
    assert "connection refused" in capsys.readouterr().err

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await run("--curl", f"curl -m 0.1 http://127.0.0.1:{port}/") == 1
    assert "no response in time" in capsys.readouterr().err


async def test_an_endless_reply_ends_at_the_timeout(capsys: Printed) -> None:
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(dripping, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await run("--curl", f"curl -m 0.1 http://127.0.0.1:{port}/") == 1
    assert "no response in time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--curl", "curl --frobnicate https://a.example"], "--frobnicate: unknown"),
        (["--curl", "curl -F a=b https://a.example"], "-F: multipart"),
        (["--curl", "curl 'https://a.example"], "not closed"),
        (["--curl", ""], "no URL"),
        ([], "no URL"),
        (["--name", "a b", "--curl", "curl https://a.example"], "--name: "),
        (
            ["--curl", "curl --cacert nowhere.pem https://a.example"],
            "nowhere.pem cannot be read",
        ),
        (
            ["--curl", f"curl --cacert {__file__} https://a.example"],
            "contains no certificate",
        ),
        (
            ["--offline", "nowhere.json", "--curl", "curl https://a.example"],
            "--offline: nowhere.json: cannot",
        ),
        (["--curl", "curl 'https://a.example/a\\b'"], "credentials.corp.url: must not contain"),
    ],
)
def test_wrong_use_exits_2_and_names_it(capsys: Printed, arguments: list[str], words: str) -> None:
    assert main(["recipe", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""
    assert "Traceback" not in printed.err


COMPUTED = [
    'curl https://a.example/t -d "sign=$(echo -n x | openssl dgst -sha256)"',
    "TS=$(date +%s); curl https://a.example/t -d ts=$TS",
    "curl https://a.example/t -d `date`",
    "echo '{}' | curl https://a.example/t -d @-",
    "export TS=123\ncurl https://a.example/t -d ts=$TS",
]


@pytest.mark.parametrize("line", COMPUTED)
def test_a_line_that_computes_something_leads_to_an_exec_block(
    capsys: Printed, tmp_path: Path, line: str
) -> None:
    assert main(["recipe", "--name", "signed", "--curl", line]) == 1
    printed = capsys.readouterr()
    assert "the line computes a value" in printed.err
    assert "Save the line as get-token.sh" in printed.err
    assert "hmac.new(secret.encode(), signed.encode(), hashlib.sha256)" in printed.err
    path = tmp_path / "proxy.toml"
    path.write_text(printed.out + AROUND.replace('"corp"', '"signed"'))
    environ = {"SIGNED_APP_SECRET": SECRET, "PATH": os.environ["PATH"]}
    section = load_settings(path, environ).credentials["signed"]
    assert section.source == "exec"
    assert section.command[1:] == ("get-token.sh",)


def test_with_a_saved_reply_the_exec_block_has_its_paths(
    capsys: Printed, reply: Callable[[Any], str]
) -> None:
    saved = reply({"result": {"jwt": RANDOM, "ttl": 300}})
    assert main(["recipe", "--offline", saved, "--curl", COMPUTED[0]]) == 1
    block = tomllib.loads(capsys.readouterr().out)["credentials"]["corp"]
    assert block["token"] == "result.jwt"
    assert block["expires"] == [{"path": "result.ttl", "as": "seconds"}]


def test_the_script_that_is_printed_is_the_example_in_the_folder() -> None:
    assert hmac_script() == (ROOT / "config/credentials/hmac-token.py").read_text()


def test_the_offset_of_a_local_time_is_not_guessed(capsys: Printed, reply: Callable[[Any], str]) -> None:
    soon = datetime.now(timezone(timedelta(hours=8))) + timedelta(minutes=10)
    saved = reply({"token": RANDOM, "expireTime": soon.strftime("%Y-%m-%d %H:%M:%S")})
    line = ["--curl", "curl https://a.example", "--offline", saved]
    assert main(["recipe", *line]) == 0
    printed = capsys.readouterr()
    assert "expires" not in tomllib.loads(printed.out)["credentials"]["corp"]
    assert '# unsure: "expireTime" is a local time without a time zone' in printed.out
    assert main(["recipe", "--utc-offset", "8", *line]) == 2
    assert "--utc-offset: must be an offset from UTC, such as +08:00" in capsys.readouterr().err


def test_the_offset_of_a_local_time_is_asked_for(
    capsys: Printed, reply: Callable[[Any], str], types: Callable[[str], None]
) -> None:
    soon = datetime.now(timezone(timedelta(hours=8))) + timedelta(minutes=10)
    saved = reply({"token": RANDOM, "expireTime": soon.strftime("%Y-%m-%d %H:%M:%S")})
    line = ["--curl", "curl https://a.example", "--offline", saved]
    expected = [{"path": "expireTime", "as": "iso8601", "offset": "+08:00"}]
    types("Beijing\n+08:00\n")
    assert main(["recipe", *line]) == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["credentials"]["corp"]["expires"] == expected
    assert "is a local time without a time zone" in printed.err
    assert "  -05:00  " in printed.err
    assert "with a lifetime of 10 min" in printed.err or "with a lifetime of 9.9" in printed.err
    assert main(["recipe", "--utc-offset", "+08:00", *line]) == 0
    assert tomllib.loads(capsys.readouterr().out)["credentials"]["corp"]["expires"] == expected


CHINESE_LINE = re.compile(r"[\u4e00-\u9fff]")
SPOKEN = [
    (company_line("https://a.example"), {"code": 0, "data": {"token": RANDOM, "expireTime": 300}}, 0),
    (
        "curl -k -L https://a.example -d null=1 | jq .",
        {"access_token": jwt(300), "expires_in": 300000},
        0,
    ),
    ("curl https://a.example -u id:pw", {"result": {"jwt": RANDOM}, "ok": True}, 0),
    ("curl https://a.example", {"token": RANDOM, "expireTime": "2026-11-26 00:00:00"}, 0),
    ("curl https://a.example", {"error": "no"}, 1),
    (COMPUTED[0], {"token": RANDOM}, 1),
    ("curl 'https://a.example", {}, 2),
    ("wget https://a.example", {}, 2),
]


@pytest.mark.parametrize(("line", "said", "status"), SPOKEN)
def test_a_chinese_locale_gets_chinese_messages(
    capsys: Printed,
    reply: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    said: Any,
    status: int,
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    saved = reply(said)
    os.utime(saved, (1_795_622_100, 1_795_622_100))
    assert main(["recipe", "--offline", saved, "--curl", line]) == status
    printed = capsys.readouterr()
    comments = [
        text for text in printed.out.splitlines() if text.startswith("# ") and "expires = [" not in text
    ]
    words = printed.err.partition("#!/usr/bin/env")[0].splitlines()
    spoken = [
        text for text in [*comments, *words] if text.strip() and not re.match(r"  [\w.(]+ +\S|  \(", text)
    ]
    assert spoken or status == 0
    if line != COMPUTED[0]:
        assert [text for text in spoken if not CHINESE_LINE.search(text)] == []
    tomllib.loads(printed.out)


def test_a_path_begins_in_the_home_folder_or_in_the_current_one(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["recipe", "--curl", "curl --cacert ~/nowhere.pem https://a.example"]) == 2
    assert f"{tmp_path}/nowhere.pem cannot be read" in capsys.readouterr().err
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert main(["recipe", "--curl", "curl --cacert nowhere.pem https://a.example"]) == 2
    assert "current folder" in capsys.readouterr().err

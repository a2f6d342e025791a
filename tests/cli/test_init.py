"""`init`: its questions, the files that it writes, and what it never does."""

import asyncio
import errno
import io
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import pytest
from quart import Quart

from proxy.cli import main
from proxy.cli.init import Answers
from proxy.gateway import GatewayOptions, create_gateway
from proxy.settings import load_settings
from tests.conftest import RunningGateway
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE

Printed = pytest.CaptureFixture[str]
SECRET = "demo-secret"
API_KEY = "sk-canary-of-the-gateway"
CURL = (
    "curl -X POST {url}/token -H 'Content-Type: application/json' "
    '-d \'{{"appId": "demo", "appSecret": "demo-secret"}}\''
)


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    """A demonstration gateway without pauses."""
    app = create_gateway(GatewayOptions(word_delay=0.0))
    async with serve_on_loopback(app) as url:
        yield RunningGateway(url, app.extensions["gateway"])


@pytest.fixture(autouse=True)
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `doctor` from judging when events arrive: on a busy machine, a sound stream arrives in blocks."""
    monkeypatch.setattr("proxy.cli.doctor.arrivals.NOTICEABLE_SECONDS", PATIENCE)


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


async def run(output: Path, *arguments: str) -> int:
    """Run the command beside the servers of the test."""
    return await asyncio.to_thread(main, ["init", "--output", str(output), *arguments])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_without_flags_it_sets_up_the_demonstration_gateway(tmp_path: Path, capsys: Printed) -> None:
    assert await run(tmp_path / "my.toml", "--yes", "--model", "mock-gpt-model") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("All is well.")
    key = tmp_path / "my.secrets/RAGFLOW_KEY"
    assert re.fullmatch(r"sk-[0-9a-f]{48}", key.read_text())
    assert (mode(key), mode(key.parent)) == (0o600, 0o700)
    assert key.read_text() not in (tmp_path / "my.toml").read_text() + printed.out + printed.err
    settings = load_settings(tmp_path / "my.toml", {})
    assert [caller.name for caller in settings.access.keys] == ["ragflow"]
    assert settings.upstreams["chat"].repairs == ("ragflow",)


async def test_a_curl_line_becomes_a_configuration_that_works(
    gateway: RunningGateway, tmp_path: Path, capsys: Printed
) -> None:
    curl = CURL.format(url=gateway.url)
    assert await run(tmp_path / "my.toml", "--yes", "--base-url", f"{gateway.url}/v1", "--curl", curl) == 0
    printed = capsys.readouterr()
    text = (tmp_path / "my.toml").read_text()
    assert "${file:my.secrets/CORP_APP_SECRET}" in text
    assert "Set in the environment" not in text
    assert (tmp_path / "my.secrets/CORP_APP_SECRET").read_text() == SECRET
    assert SECRET not in text + printed.out + printed.err
    settings = load_settings(tmp_path / "my.toml", {})
    assert settings.chat is not None
    assert settings.chat.model == "mock-gpt-model"
    assert "lives 5 min" in printed.out


async def test_answers_on_a_terminal_are_tried_and_corrected(
    gateway: RunningGateway, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = f"{gateway.url}/chat/completions"
    answers = ["llm.corp.example", copied, "1", CURL.format(url=gateway.url), "", "dify", "3", "2"]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    assert await run(tmp_path / "my.toml") == 0
    printed = capsys.readouterr()
    assert "--base-url: must be an http:// or https:// URL" in printed.err
    assert f"corrected to {gateway.url}\n" in printed.err
    assert f"corrected to {gateway.url}/v1\n" in printed.err
    assert "models: mock-gpt-model" in printed.err
    assert "please answer again" in printed.err
    variables = (tmp_path / "my.env").read_text()
    assert mode(tmp_path / "my.env") == 0o600
    assert re.search(r"^export DIFY_KEY=sk-[0-9a-f]{48}$", variables, re.MULTILINE)
    assert f"export CORP_APP_SECRET={SECRET}" in variables
    text = (tmp_path / "my.toml").read_text()
    assert "${env:DIFY_KEY}" in text
    assert 'repairs = ["dify"]' in text
    assert SECRET not in text + printed.out + printed.err
    assert f". {tmp_path}/my.env" in printed.err


async def test_a_curl_command_may_be_pasted_where_its_number_is_asked_for(
    gateway: RunningGateway, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pasted = CURL.format(url=gateway.url).replace(" -H ", " \\\n  -H ")
    answers = [f"{gateway.url}/v1", pasted, "", "", ""]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    assert await run(tmp_path / "my.toml") == 0
    assert "please answer again" not in capsys.readouterr().err
    assert (tmp_path / "my.secrets/CORP_APP_SECRET").read_text() == SECRET


async def test_a_base_url_that_fails_is_asked_for_again_without_the_other_answers(
    gateway: RunningGateway,
    tmp_path: Path,
    capsys: Printed,
    monkeypatch: pytest.MonkeyPatch,
    closed_port: int,
) -> None:
    wrong, curl = f"http://127.0.0.1:{closed_port}/v1", CURL.format(url=gateway.url)
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join([wrong, curl, wrong, ""]) + "\n"))
    assert await run(tmp_path / "my.toml") == 1
    assert "nothing was written" in capsys.readouterr().err
    answers = [wrong, curl, "llm.corp.example", f"{gateway.url}/v1", "", "", ""]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    assert await run(tmp_path / "my.toml") == 0
    printed = capsys.readouterr().err
    assert "connection refused" in printed
    assert printed.count("Base URL of the model gateway again") == 2
    assert f'base_url = "{gateway.url}/v1"' in (tmp_path / "my.toml").read_text()


async def test_a_fixed_key_of_the_gateway_is_kept_in_a_file(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{API_KEY}\n"))
    async with serve_on_loopback(create_gateway(GatewayOptions(word_delay=0.0, api_key=API_KEY))) as url:
        assert await run(tmp_path / "my.toml", "--yes", "--base-url", f"{url}/v1", "--api-key", "-") == 0
    printed = capsys.readouterr()
    assert (tmp_path / "my.secrets/GATEWAY_API_KEY").read_text() == API_KEY
    assert API_KEY not in (tmp_path / "my.toml").read_text() + printed.out + printed.err


@pytest.mark.parametrize("kept", ["files", "env"])
async def test_a_caller_of_the_issuers_name_gets_a_key_of_its_own(
    kept: str, gateway: RunningGateway, tmp_path: Path, capsys: Printed
) -> None:
    taken, curl = "CORP_X_APP_KEY", f"{CURL.format(url=gateway.url)} -H 'X-App-Key: {API_KEY}'"
    arguments = ("--base-url", f"{gateway.url}/v1", "--curl", curl, "--caller", "corp-x-app")
    assert await run(tmp_path / "my.toml", "--yes", "--secrets", kept, *arguments) == 0
    text = (tmp_path / "my.toml").read_text()
    assert f"{taken}_2}}" in text
    assert f"{taken}}}" in text
    if kept == "files":
        assert (tmp_path / "my.secrets" / taken).read_text() == API_KEY
        assert f"my.secrets/{taken}_2" in capsys.readouterr().err
    else:
        assert f"export {taken}={API_KEY}\n" in (tmp_path / "my.env").read_text()


@pytest.mark.parametrize("taken", ["CORP_X_KEY", "corp_x_key", "GATEWAY_API_KEY"])
def test_the_callers_key_never_takes_the_name_of_another_secret(taken: str) -> None:
    caller = taken.lower().removesuffix("_key").replace("_", "-")
    answers = Answers(caller=caller, secrets={taken: API_KEY, f"{taken}_2".upper(): "other"})
    assert answers.key_name == f"{taken.upper()}_3"
    assert answers.values[taken] == API_KEY
    assert len(answers.values) == 3


class OtherHeader:
    """A gateway that expects the token in X-Access-Token, in front of the demonstration gateway."""

    def __init__(self, app: Quart) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            presented = dict(scope["headers"]).get(b"x-access-token", b"none")
            others = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
            scope = {**scope, "headers": [*others, (b"authorization", b"Bearer " + presented)]}
        await self._app(scope, receive, send)


async def test_a_gateway_that_rejects_the_token_may_expect_another_header(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = OtherHeader(create_gateway(GatewayOptions(word_delay=0.0)))
    async with serve_on_loopback(app) as url:
        arguments = ("--base-url", f"{url}/v1", "--curl", CURL.format(url=url))
        assert await run(tmp_path / "my.toml", "--yes", *arguments) == 1
        assert "name it with --header" in capsys.readouterr().err
        assert written(tmp_path) == []
        answers = [f"{url}/v1", CURL.format(url=url), "X Access", "X-Access-Token", "", "", ""]
        monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
        assert await run(tmp_path / "my.toml") == 0
        assert "--header: must be the name of a header" in capsys.readouterr().err
        assert await run(tmp_path / "yours.toml", "--yes", *arguments, "--header", "X-Access-Token") == 0
    for name in ("my.toml", "yours.toml"):
        text = (tmp_path / name).read_text()
        assert 'inject = { header = "X-Access-Token", template = "{token}" }' in text


@pytest.mark.parametrize("name", ["my.toml", "my.secrets", "my.env"])
async def test_nothing_is_overwritten(name: str, tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / name).write_text("mine")
    assert await run(tmp_path / "my.toml", "--yes") == 2
    assert f"{name} exists and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert written(tmp_path) == [name]


async def test_a_configuration_that_fails_is_not_written(
    gateway: RunningGateway, tmp_path: Path, capsys: Printed, closed_port: int
) -> None:
    closed = f"http://127.0.0.1:{closed_port}"
    right, curl = f"{gateway.url}/v1", CURL.format(url=gateway.url)
    for arguments, words in (
        (["--base-url", f"{closed}/v1"], "connection refused"),
        (["--base-url", right], "does not accept the key"),
        (["--base-url", right, "--api-key", "wrong-key-of-mine"], "rejects the token"),
        (["--base-url", right, "--curl", curl.replace(gateway.url, closed)], "connection refused"),
        (
            ["--base-url", right, "--curl", curl.replace(SECRET, "wrong-canary-secret")],
            "nothing that looks like a token",
        ),
    ):
        assert await run(tmp_path / "my.toml", "--yes", *arguments) == 1
        said = capsys.readouterr().err
        assert words in said
        assert "nothing was written" in said
    assert written(tmp_path) == []


async def test_a_failure_is_shown_even_if_standard_error_is_closed(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    base_url = f"http://127.0.0.1:{closed_port}/v1"
    assert await run(tmp_path / "my.toml", "--yes", "--base-url", base_url) == 1
    assert "connection refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "asks on a terminal; elsewhere use --yes"),
        (["--yes", "--curl", "curl x", "--api-key", "k"], "cannot be combined with --curl"),
        (["--yes", "--api-key", "k"], "--base-url: is required with"),
        (["--yes", "--base-url", "http://127.0.0.1/v1?key=k"], "--base-url: must be"),
        (["--yes", "--caller", "1 2"], "--caller: must be letters"),
        (["--yes", "--output", "nowhere/my.toml"], "nowhere: is not a folder"),
        (["--yes", "--output", 'a"b.toml'], "--output: the name must be letters"),
    ],
)
async def test_wrong_use_is_status_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert await asyncio.to_thread(main, ["init", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert written(tmp_path) == []


async def test_an_input_that_ends_writes_nothing(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert await run(tmp_path / "my.toml") == 2
    printed = capsys.readouterr()
    assert "模型网关的 Base URL" in printed.err
    assert "the input has ended" in printed.err
    assert written(tmp_path) == []


async def test_the_comments_are_chinese_by_locale(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert await run(tmp_path / "my.toml", "--yes", "--model", "mock-gpt-model") == 0
    assert "谁可以调用" in (tmp_path / "my.toml").read_text()
    assert "一切正常" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.secrets", "a.env"])
async def test_a_configuration_is_not_written_where_secrets_go(
    name: str, tmp_path: Path, capsys: Printed
) -> None:
    assert await run(tmp_path / name, "--yes") == 2
    assert "are for secrets; take .toml" in capsys.readouterr().err
    assert written(tmp_path) == []


@pytest.mark.parametrize("kept", ["files", "env"])
async def test_a_failed_write_leaves_nothing(
    kept: str, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, mode: str, *, encoding: str) -> IO[str]:
        file = fdopen(descriptor, mode, encoding=encoding)
        if len([*tmp_path.iterdir()]) == 2:  # the secrets, and now the configuration
            file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return file

    fdopen = os.fdopen
    monkeypatch.setattr("proxy.cli.init.os.fdopen", fail)
    assert await run(tmp_path / "my.toml", "--yes", "--secrets", kept, "--model", "mock-gpt-model") == 2
    assert "my.toml: cannot be written: No space left on device" in capsys.readouterr().err
    assert written(tmp_path) == []

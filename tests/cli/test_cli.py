"""The commands: exit statuses, messages, and the original script against `make run`."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from proxy.cli import main
from tests.cli.processes import read_until, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.pace import PATIENCE

ROOT = Path(__file__).parents[2]
ORIGINAL_SCRIPT = Path(__file__).with_name("original_script.py")
FIELDS = ("id", "created", "model", "system_fingerprint", "logprobs", "finish_reason", "object")
SPREAD_SECONDS = 0.5
"""Ten words or more at intervals of a tenth of a second do not come all at once."""
ATTEMPTS = 3
"""Several, because a test that is stopped for a while finds all the words there."""


def serve(*more: str) -> list[str]:
    return [sys.executable, "-m", "proxy", "serve", "--config", "config/proxy.toml", *more]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.toml"
    text = SETTINGS.format(key=KEY, upstream="http://127.0.0.1:9", credential=STATIC, options="", more="")
    path.write_text(text)
    return path


def test_check_prints_the_settings_without_secrets(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "tester" in printed
    assert KEY not in printed
    assert "static-upstream-token" not in printed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("name = ", "nmae = "), 'proxy.toml:4: access.keys.0.nmae: unknown key, did you mean "name"?'),
        ((KEY, ""), "access.keys.0.key: is empty"),
        ((KEY, "${env:NOT_SET_ANYWHERE}"), "NOT_SET_ANYWHERE"),
        ((KEY, "${file:/nowhere/key}"), "/nowhere/key"),
        (("static-upstream-token", "changeme"), "credentials.corp.value"),
    ],
)
def test_wrong_settings_stop_with_status_2_and_name_the_key(
    config: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: str
) -> None:
    config.write_text(config.read_text().replace(*change, 1))
    for command in ("check", "serve"):
        assert main([command, "--config", str(config)]) == 2
        assert words in capsys.readouterr().err


def test_several_workers_are_rejected_with_a_clear_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--workers", "2"]) == 2
    assert capsys.readouterr().err == (
        "chat: needs a [shared] section: the workers share channels over Redis; or run one worker, not 2\n"
    )


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "unix:/nowhere/x.sock"])
def test_default_keys_are_rejected_on_a_reachable_address(
    bind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", str(ROOT / "config/proxy.toml"), "--bind", bind]) == 2
    assert "the default keys" in capsys.readouterr().err


@pytest.mark.parametrize("bind", ["127.0.0.1:x", "127.0.0.1:99999", "nonsense"])
def test_an_invalid_address_is_rejected(config: Path, bind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", str(config), "--bind", bind]) == 2
    assert f"bind: {bind}" in capsys.readouterr().err


def test_a_port_in_use_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", "--config", str(config), "--bind", bind]) == 2
    assert f"bind: {bind}: Address already in use" in capsys.readouterr().err


def test_help_and_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in ((["--help"], 0), (["--version"], 0), (["--nonsense"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == status
    assert "gateway" in capsys.readouterr().out


async def test_make_run_serves_the_originals_script() -> None:
    async with running("make", "run", "PORT=0") as service:
        welcome = await read_until(service, "curl -N")
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", welcome)
        assert found is not None
        assert "sk-local" in welcome
        assert "300 s" in welcome
        assert f"http://127.0.0.1:{found[1]}/chat/" in welcome
        script = ORIGINAL_SCRIPT.read_text().replace("localhost:5002", f"localhost:{found[1]}")
        spreads: list[float] = []
        while len(spreads) < ATTEMPTS and max(spreads, default=0.0) <= SPREAD_SECONDS:
            text, spread = await printed_by(script + "\ntest_steam()")
            spreads.append(spread)
            said = re.findall(r'"content": "(.*?)"', text)
            assert "".join(said) == "As a mock AI Assitant, I can only echo your last message:你是谁"
            for field in FIELDS:
                assert f'"{field}":' in text
    assert max(spreads) > SPREAD_SECONDS


async def printed_by(script: str) -> tuple[str, float]:
    """Return what a script prints, and the seconds between the first and the last line."""
    async with running(sys.executable, "-u", "-c", script) as caller:
        assert caller.stdout is not None
        moments, text = [], ""
        async with asyncio.timeout(PATIENCE):
            while line := await caller.stdout.readline():
                text += line.decode()
                moments.append(time.monotonic())
            assert await caller.wait() == 0
    return text, moments[-1] - moments[0]


def test_make_run_listens_at_the_address_of_the_originals_script() -> None:
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "--bind 127.0.0.1:5002" in shown
    assert "localhost:5002" in ORIGINAL_SCRIPT.read_text()


async def test_sigterm_lets_a_stream_end_and_exits_0() -> None:
    async with running(*serve("--bind", "127.0.0.1:0")) as service:
        welcome = await read_until(service, "curl -N")
        base = re.search(r"http://127.0.0.1:\d+", welcome)
        assert base is not None
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a b c d e"}]}
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer sk-local"}) as session,
            session.post(f"{base[0]}/v1/chat/completions", json=body) as response,
        ):
            first = await response.content.readany()
            service.send_signal(signal.SIGTERM)
            rest = await response.read()
        service.send_signal(signal.SIGTERM)  # The readiness delay would only slow the test down.
        assert (first + rest).endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(PATIENCE):
            assert await service.wait() == 0


def test_output_that_the_locale_cannot_encode_ends_no_command() -> None:
    command = ["doctor", "--url", "http://127.0.0.1:9/v1/chat/completions", "--key", "sk-x"]
    shown = subprocess.run(
        [sys.executable, "-m", "proxy", *command], cwd=ROOT, check=False, capture_output=True,
        timeout=PATIENCE, env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "zh_CN.UTF-8"},
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (1, b"")
    assert b"base_url_has_endpoint" in shown.stdout
    assert b"??" in shown.stdout

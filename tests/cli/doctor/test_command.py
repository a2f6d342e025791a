"""The command: its key, its exit statuses, and its use with a settings file."""

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.gateway import GatewayOptions, create_gateway
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

Printed = pytest.CaptureFixture[str]
KEY = "sk-canary-key-77b1"


def test_wrong_use_is_status_2(capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXY_DOCTOR_KEY", raising=False)
    for arguments, words in (
        (["--url", "http://127.0.0.1:9/v1"], "--key: is required with --url"),
        (["--url", "ftp://127.0.0.1/v1", "--key", KEY], "--url: must be an http:// or https:// URL"),
        (["--url", "http://u:p@127.0.0.1/v1", "--key", KEY], "--url: must be an http:// or https:// URL"),
        (
            ["--url", "http://127.0.0.1/v1", "--key", KEY, "--ca-file", "none.pem"],
            "--ca-file: must be a read",
        ),
        (["--url", "http://127.0.0.1/v1", "--key", f"{KEY}中"], "--key: must be one line of ASCII"),
        (["--key", KEY], "--key, --ca-file: are only used with --url"),
    ):
        assert main(["doctor", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(words)
        assert KEY not in printed.out + printed.err


def test_a_settings_file_that_is_absent_is_status_2(tmp_path: Path, capsys: Printed) -> None:
    assert main(["doctor", "--json", "--config", str(tmp_path / "none.toml")]) == 2
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["id"] == "settings_invalid"
    assert "cannot be read: No such file" in finding["happened"]


@pytest.mark.parametrize("place", ["argument", "input", "environment"])
async def test_the_key_comes_from_any_of_three_places(
    place: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the stream takes longer, and its events, which come without pauses, would be judged.
    monkeypatch.setattr("proxy.cli.doctor.arrivals.NOTICEABLE_SECONDS", PATIENCE)
    arguments = ["doctor", "--json"]
    if place == "environment":
        monkeypatch.setenv("PROXY_DOCTOR_KEY", KEY)
    elif place == "input":
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KEY}\n"))
        arguments += ["--key", "-"]
    else:
        arguments += ["--key", KEY]
    gateway = create_gateway(GatewayOptions(word_delay=0.0, api_key=KEY))
    async with serve_on_loopback(gateway) as url:
        assert await asyncio.to_thread(main, [*arguments, "--url", f"{url}/v1"]) == 0
    assert KEY not in capsys.readouterr().out


async def test_a_stalled_check_is_named_while_it_lasts(
    capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.cli.doctor.command.QUIET_SECONDS", 0.05)
    async with raw_upstream(Conversation.caller_left) as place:
        arguments = ["doctor", "--url", f"{place.url}/v1", "--key", KEY, "--timeout", "1"]
        assert await asyncio.to_thread(main, arguments) == 1
    assert "still testing models: each request may take up to 1 s\n" in capsys.readouterr().err

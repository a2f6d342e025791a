"""The command: its output on a terminal, in plain text and in Chinese, its key, its exit statuses."""

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.report import Report
from proxy.gateway import GatewayOptions, create_gateway
from tests.loopback import serve_on_loopback

Printed = pytest.CaptureFixture[str]
KEY = "sk-canary-key-77b1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(language: str, *, stream: io.StringIO) -> str:
    """What is printed for one finding that is well and one that is not."""
    shown = Report(language, as_json=False, stream=stream)
    shown.begin("url")
    shown.add(Finding("name_found", "url", {"host": "a.example", "addresses": "192.0.2.1"}))
    shown.add(Finding("stream_broken", "url", {}, "the [bold]log[/bold]\x1b[31m"))
    shown.stop()
    shown.end()
    return stream.getvalue()


def test_plain_lines_have_no_colours() -> None:
    assert report("en", stream=io.StringIO()).splitlines() == [
        "ok      url: a.example is 192.0.2.1",
        "failed  url: the connection broke in the middle of the answer",
        "        cause: The gateway or a server in between cut it, often after its own timeout.",
        "        cure: Raise the timeouts on the way, such as nginx's `proxy_read_timeout`.",
        "        log: the [bold]log[/bold] [31m",
        "        id: stream_broken",
        "Problems found: 1. Begin with the first.",
    ]


def test_the_output_is_chinese_by_locale() -> None:
    shown = report("zh", stream=io.StringIO())
    assert "失败    url：回答到一半连接中断" in shown
    assert "原因：" in shown
    assert "办法：请调大沿途的超时" in shown
    assert "发现 1 个问题，请从第一个开始解决。" in shown


def test_a_terminal_gets_colours_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = report("en", stream=Terminal())
    assert "testing url" in shown
    assert "\x1b[32m✓" in shown
    assert "[bold]log[/bold] [31m" in shown


def test_wrong_use_is_status_2(capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXY_DOCTOR_KEY", raising=False)
    for arguments, words in (
        (["--url", "http://127.0.0.1:9/v1"], "--key: is required with --url"),
        (["--url", "ftp://127.0.0.1/v1", "--key", KEY], "--url: must be an http:// or https:// URL"),
        (["--url", "http://u:p@127.0.0.1/v1", "--key", KEY], "--url: must be an http:// or https:// URL"),
        (["--url", "http://127.0.0.1/v1", "--key", KEY, "--ca-file", "none.pem"], "--ca-file a file"),
        (["--key", KEY], "are only used with --url"),
    ):
        assert main(["doctor", *arguments]) == 2
        printed = capsys.readouterr()
        assert words in printed.err
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

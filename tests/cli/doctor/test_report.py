"""The report: on a terminal, in plain lines and in Chinese."""

import io

import pytest

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.report import Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(language: str, *, stream: io.StringIO) -> str:
    """Return the printed report of one good finding and one failure."""
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
        "failed  url: the connection broke in the middle of the response",
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


class GbkTerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_terminal_without_unicode_gets_words_instead_of_marks() -> None:
    written = io.BytesIO()
    stream = GbkTerminal(written, encoding="gbk", write_through=True)
    shown = Report("zh", as_json=False, stream=stream)
    shown.begin("url")
    shown.add(Finding("name_found", "url", {"host": "a.example", "addresses": "192.0.2.1"}))
    shown.stop()
    shown.end()
    text = written.getvalue().decode("gbk")
    assert "正常    " in text
    assert "正在测试 url" in text

"""The report: on a terminal, in plain lines and in Chinese."""

import io
import json
import os
import pty
import re
import termios

import pytest

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.report import Report

CLEAR = "\r\x1b[K"
MARKED = [
    "✓ url: a.example is 192.0.2.1",
    "✗ url: the connection broke in the middle of the response",
    "        cause: The gateway or a server in between cut it, often after its own timeout.",
    "        cure: Raise the timeouts on the way, such as nginx's `proxy_read_timeout`.",
    "        log: the [bold]log[/bold] [31m",
    "        id: stream_broken",
    "Problems found: 1. Begin with the first.",
]
"""The lines of `report` on a terminal, without colours."""


@pytest.fixture(autouse=True)
def with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let terminals have colours, whatever the terminal of the tests has."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what it receives."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._received = io.BytesIO()
        super().__init__(self._received, encoding=encoding)

    def isatty(self) -> bool:
        return True

    def getvalue(self) -> str:
        """Return the received text."""
        return self._received.getvalue().decode(self.encoding)


def report(language: str, *, stream: io.StringIO | Terminal) -> str:
    """Return the printed report of one good finding and one failure."""
    shown = Report(language, as_json=False, stream=stream)
    shown.begin("url")
    shown.add(Finding("name_found", "url", {"host": "a.example", "addresses": "192.0.2.1"}))
    shown.add(Finding("stream_broken", "url", {}, "the [bold]log[/bold]\x1b[31m"))
    shown.stop()
    shown.end()
    return stream.getvalue()


def on_screen(text: str) -> list[str]:
    """Return the lines of a terminal after this text, without colours."""
    return re.sub(r"\x1b\[\d+m", "", re.sub(r"[^\n]*\r\x1b\[K", "", text)).splitlines()


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


def test_a_terminal_gets_colours_and_the_current_subject() -> None:
    shown = report("en", stream=Terminal())

    assert shown.startswith(f"testing url{CLEAR}\x1b[32m✓ \x1b[0murl: a.example is 192.0.2.1\n")
    assert "\x1b[31m\x1b[1m✗ \x1b[0murl: the connection broke" in shown
    assert "\x1b[2m        cause: \x1b[0mThe gateway" in shown
    assert "\x1b[2m        cure: \x1b[0m\x1b[1mRaise the timeouts" in shown
    assert shown.endswith("\x1b[1mProblems found: 1. Begin with the first.\x1b[0m\n")


def test_the_current_subject_is_shown_between_the_findings_and_cleared_before_each() -> None:
    shown = report("en", stream=Terminal())

    assert shown.count("testing url") == shown.count(f"testing url{CLEAR}") == 3
    assert on_screen(shown) == MARKED


def test_the_current_subject_replaces_the_previous_one_until_the_end() -> None:
    terminal = Terminal()
    shown = Report("zh", as_json=False, stream=terminal)
    shown.begin("upstreams.chat")
    shown.begin("a \x1b[31mred\nline\u202e")
    assert terminal.getvalue() == f"正在测试 upstreams.chat{CLEAR}正在测试 a  [31mred line "
    shown.stop()
    shown.stop()
    assert on_screen(terminal.getvalue()) == []
    assert terminal.getvalue().count(CLEAR) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_what_takes_long_is_named_once_where_no_terminal_shows_it(*, as_json: bool) -> None:
    printed, notes = io.StringIO(), io.StringIO()
    shown = Report("en", as_json=as_json, stream=printed)
    shown.remind(notes, 60.0)
    shown.begin("chat,\nstreamed")
    shown.remind(notes, 60.0)
    shown.add(Finding("name_found", "url", {"host": "a.example", "addresses": "192.0.2.1"}))
    shown.remind(notes, 60.0)
    assert notes.getvalue() == ""
    shown.remind(notes, 60.0)
    shown.remind(notes, 60.0)
    assert notes.getvalue() == "still testing chat, streamed: each request may take up to 60 s\n"
    assert "still" not in printed.getvalue()


def test_a_terminal_that_shows_the_subject_needs_no_reminder() -> None:
    terminal, notes = Terminal(), io.StringIO()
    shown = Report("en", as_json=False, stream=terminal)
    shown.begin("chat")
    shown.remind(notes, 60.0)
    shown.remind(notes, 60.0)
    assert notes.getvalue() == ""


def test_no_color_removes_the_colours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = report("en", stream=Terminal())

    assert "testing url" in shown
    assert on_screen(shown) == MARKED
    assert "\x1b" not in shown.replace(CLEAR, "")


def test_an_empty_no_color_keeps_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")

    assert "\x1b[32m✓" in report("en", stream=Terminal())


def test_a_dumb_terminal_gets_plain_lines_with_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    assert report("en", stream=Terminal()) == "".join(f"{line}\n" for line in MARKED)


def test_a_terminal_without_unicode_gets_words_instead_of_marks() -> None:
    shown = report("zh", stream=Terminal("gbk"))

    assert "\x1b[32m正常    \x1b[0murl" in shown
    assert "正在测试 url" in shown


def test_json_on_a_terminal_has_neither_colours_nor_the_current_subject() -> None:
    terminal = Terminal()
    shown = Report("en", as_json=True, stream=terminal)
    shown.begin("url")
    shown.add(Finding("name_found", "url", {"host": "a.example", "addresses": "192.0.2.1"}))
    shown.stop()
    shown.end()
    terminal.flush()

    assert json.loads(terminal.getvalue())["counts"]["ok"] == 1


@pytest.mark.parametrize(
    ("columns", "subject", "shown"),
    [
        (20, "upstreams.chat", "正在测试 upstreams."),
        (19, "网关网关网关", "正在测试 网关网关"),
        (18, "网关网关网关", "正在测试 网关网关"),
        (17, "网关网关网关", "正在测试 网关网"),
        (0, "x" * 100, f"正在测试 {'x' * 70}"),  # It reports no width.
    ],
)
def test_the_current_subject_never_fills_the_line(columns: int, subject: str, shown: str) -> None:
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, columns))
        with open(theirs, "w", encoding="utf-8", closefd=False) as terminal:
            printed = Report("zh", as_json=False, stream=terminal)
            printed.begin(subject)
            printed.stop()
        received = b""
        while not received.endswith(CLEAR.encode()):  # The terminal may pass each write on by itself.
            received += os.read(ours, 4096)
        assert received.decode() == f"{shown}{CLEAR}"
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_finding_longer_than_the_line_is_not_wrapped() -> None:
    terminal = Terminal()
    shown = Report("en", as_json=False, stream=terminal)
    shown.add(Finding("name_found", "url", {"host": "a." * 90, "addresses": "192.0.2.1"}))

    assert on_screen(terminal.getvalue()) == [f"✓ url: {'a.' * 90} is 192.0.2.1"]

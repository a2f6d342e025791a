"""Print findings: with colours and progress on a terminal, as plain lines elsewhere, or as JSON."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from typing import Final, NamedTuple, TextIO
from unicodedata import east_asian_width

import click

from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Finding, Level, clean

DETAIL_CHARACTERS_MAX: Final = 300
INDENT: Final = " " * 8
_STYLES: Final = {
    Level.OK: ("✓", partial(click.style, fg="green")),
    Level.NOTE: ("i", partial(click.style, fg="cyan")),
    Level.WARNING: ("!", partial(click.style, fg="yellow")),
    Level.FAILED: ("✗", partial(click.style, fg="red", bold=True)),
    Level.SKIPPED: ("-", partial(click.style, dim=True)),
}
_WITHOUT_CONTROL: Final = frozenset({"dumb", "unknown"})
"""Values of TERM for terminals without colours, on which a line cannot be cleared."""
_CLEAR_LINE: Final = "\r\x1b[K"
_COLUMNS: Final = 80
"""The width to assume if a terminal reports none."""


class _Language(NamedTuple):
    levels: Mapping[str, str]
    """All of the same width."""
    names: Mapping[str, str]
    colon: str
    all_well: str
    warned: str
    broken: str
    waiting: str


_ENGLISH: Final = _Language(
    {level: f"{level:<8}" for level in Level},
    {"testing": "testing", "cause": "cause", "cure": "cure", "log": "log", "id": "id"},
    ": ",
    "All is well. Checks that passed: {ok}",
    "It works. Warnings: {warning}",
    "Problems found: {failed}. Begin with the first.",
    "still testing {subject}: each request may take up to {seconds:g} s",
)
_CHINESE: Final = _Language(
    {
        "ok": "正常    ",
        "note": "提示    ",
        "warning": "警告    ",
        "failed": "失败    ",
        "skipped": "跳过    ",
    },
    {"testing": "正在测试", "cause": "原因", "cure": "办法", "log": "日志", "id": "编号"},
    "：",
    "一切正常，通过 {ok} 项检查。",
    "可以使用，有 {warning} 个警告。",
    "发现 {failed} 个问题，请从第一个开始解决。",
    "仍在测试 {subject}：每个请求最多等待 {seconds:g} 秒",
)


class Report:
    """Collects findings, and prints each as it arrives.

    Args:
        language: `zh` or `en`.
        as_json: Whether to print one JSON object at the end instead.
        stream: Where to print.
    """

    def __init__(self, language: str, *, as_json: bool, stream: TextIO) -> None:
        self._language = language
        self._as_json = as_json
        self._stream = stream
        self._words = _CHINESE if language == "zh" else _ENGLISH
        is_terminal = stream.isatty()
        has_control = is_terminal and os.environ.get("TERM", "").lower() not in _WITHOUT_CONTROL
        self._has_colours = has_control and not os.environ.get("NO_COLOR")
        self._has_status = has_control and not as_json
        """Whether the current subject is shown, which must be cleared later."""
        self._has_marks = is_terminal and (stream.encoding or "").lower().startswith("utf")
        """Whether the terminal shows the marks, which GBK and Latin-1 lack."""
        self._status = ""
        """The line about the current subject; empty if there is none."""
        self._subject = ""
        """The current subject, until it has been named in a reminder."""
        self._is_quiet = False
        """Whether nothing has happened since the last call of `remind`."""
        self._began = time.monotonic()
        self.findings: list[Finding] = []

    def begin(self, subject: str) -> None:
        """Show the current subject, on a terminal."""
        self._subject, self._is_quiet = clean(subject), False
        if self._has_status:
            self._hide_status()
            self._status = f"{self._words.names['testing']} {clean(subject)}"
            self._show_status()

    def add(self, finding: Finding) -> None:
        """Take a finding, and print it."""
        self._is_quiet = False
        self.findings.append(finding)
        if not self._as_json:
            self._hide_status()
            self._print(finding)
            self._show_status()

    def remind(self, stream: TextIO, seconds: float) -> None:
        """Name the current subject once if nothing has happened since the last call and no terminal shows it.

        Args:
            stream: Where to print.
            seconds: The time limit of a request.
        """
        if self._is_quiet and self._subject and not self._has_status:
            click.echo(self._words.waiting.format(subject=self._subject, seconds=seconds), file=stream)
            self._subject = ""
        self._is_quiet = True

    def stop(self) -> None:
        """Stop showing the current subject."""
        self._hide_status()
        self._status = ""

    def end(self) -> None:
        """Print the verdict, or everything as JSON."""
        if self._as_json:
            json.dump(self._as_object(), self._stream, ensure_ascii=False, indent=2)
            self._stream.write("\n")
            return
        counts = self.counts()
        words = self._words
        verdict = words.warned if counts["warning"] else words.all_well
        if counts["failed"]:
            verdict = words.broken
        self._print_line(click.style(verdict.format(**counts), bold=True))

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each level."""
        counted = Counter(CATALOGUE[finding.id].level.value for finding in self.findings)
        return {level.value: counted[level.value] for level in Level}

    def _print(self, finding: Finding) -> None:
        entry = CATALOGUE[finding.id]
        words = finding.words(entry, self._language)
        mark, style = _STYLES[entry.level]
        label = f"{mark} " if self._has_marks else self._words.levels[entry.level]
        colon = self._words.colon
        shown = f"{clean(finding.subject)}{colon}{words.happened}"
        self._print_line(style(label) + shown)
        if entry.level is Level.OK:
            return
        details = {"cause": words.cause, "cure": words.cure}
        if words.happened not in finding.detail:  # else the log repeats it
            details["log"] = clean(finding.detail, DETAIL_CHARACTERS_MAX)
        details["id"] = finding.id
        for name, text in details.items():
            if text:
                named = click.style(f"{INDENT}{self._words.names[name]}{colon}", dim=True)
                self._print_line(named + (click.style(text, bold=True) if name == "cure" else text))

    def _print_line(self, text: str) -> None:
        click.echo(text, file=self._stream, color=self._has_colours)

    def _show_status(self) -> None:
        if self._status:
            # Some terminals wrap a line that fills them, and then only its last part could be cleared.
            shown = _cut(self._status, _columns(self._stream) - 1)
            click.echo(shown, file=self._stream, nl=False, color=False)

    def _hide_status(self) -> None:
        if self._status:
            click.echo(_CLEAR_LINE, file=self._stream, nl=False, color=True)

    def _as_object(self) -> dict[str, object]:
        findings = []
        for finding in self.findings:
            entry = CATALOGUE[finding.id]
            words = finding.words(entry, self._language)
            findings.append(
                {
                    "id": finding.id,
                    "level": entry.level.value,
                    "subject": clean(finding.subject),
                    "happened": words.happened,
                    "cause": words.cause,
                    "cure": words.cure,
                    "log": clean(finding.detail, DETAIL_CHARACTERS_MAX),
                }
            )
        counts = self.counts()
        return {
            "ok": not counts["failed"],
            "seconds": round(time.monotonic() - self._began, 3),
            "counts": counts,
            "findings": findings,
        }


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _cut(text: str, columns: int) -> str:
    """Return the longest beginning of a text that fits into `columns`.

    Characters of ambiguous width count as wide, because Chinese terminals may show them so.
    """
    widths = accumulate(2 if east_asian_width(character) in {"A", "F", "W"} else 1 for character in text)
    return "".join(character for character, end in zip(text, widths, strict=True) if end <= columns)

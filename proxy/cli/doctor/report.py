"""Print findings: with colours and progress on a terminal, as plain lines elsewhere, or as JSON."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Finding, Level, clean

DETAIL_CHARACTERS_MAX: Final = 300
INDENT: Final = " " * 8
_STYLES: Final = {
    Level.OK: ("✓", "green"),
    Level.NOTE: ("i", "cyan"),
    Level.WARNING: ("!", "yellow"),
    Level.FAILED: ("✗", "bold red"),
    Level.SKIPPED: ("-", "dim"),
}


class _Language(NamedTuple):
    levels: Mapping[str, str]
    """All of the same width."""
    names: Mapping[str, str]
    colon: str
    all_well: str
    warned: str
    broken: str


_ENGLISH: Final = _Language(
    {level: f"{level:<8}" for level in Level},
    {"testing": "testing", "cause": "cause", "cure": "cure", "log": "log", "id": "id"},
    ": ",
    "All is well. Checks that passed: {ok}",
    "It works. Warnings: {warning}",
    "Problems found: {failed}. Begin with the first.",
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
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._has_marks = self._console.is_terminal and self._console.encoding.startswith("utf")
        """Whether the terminal shows the marks, which GBK and Latin-1 lack."""
        self._status: Status | None = None
        self._began = time.monotonic()
        self.findings: list[Finding] = []

    def begin(self, subject: str) -> None:
        """Show the current subject, on a terminal."""
        if self._as_json or not self._console.is_terminal:
            return
        words = Text(f"{self._words.names['testing']} {clean(subject)}")
        if self._status is None:
            self._status = self._console.status(words, spinner="dots" if self._has_marks else "line")
            self._status.start()
        else:
            self._status.update(words)

    def add(self, finding: Finding) -> None:
        """Take a finding, and print it."""
        self.findings.append(finding)
        if not self._as_json:
            self._print(finding)

    def stop(self) -> None:
        """Stop showing the current subject."""
        if self._status is not None:
            self._status.stop()

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
        self._console.print(Text(verdict.format(**counts), style="bold"))

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
        self._console.print(Text.assemble((label, style), shown))
        if entry.level is Level.OK:
            return
        details = {"cause": words.cause, "cure": words.cure}
        if words.happened not in finding.detail:  # else the log repeats it
            details["log"] = clean(finding.detail, DETAIL_CHARACTERS_MAX)
        details["id"] = finding.id
        for name, text in details.items():
            if text:
                named = f"{INDENT}{self._words.names[name]}{colon}"
                self._console.print(Text.assemble((named, "dim"), (text, "bold" if name == "cure" else "")))

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

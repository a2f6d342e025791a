"""docs/logs*.md: every log event is documented with its level, and every field of a request's line."""

import ast
import re
from collections.abc import Iterator
from typing import Final
from unittest.mock import Mock

import msgspec
import pytest

from proxy.telemetry.exchange_record import ExchangeRecord
from tests.documents import CODE, DOCUMENTS, ROOT, in_both_languages, rows

LEVEL_OF_METHOD: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}
WRITTEN_BY_A_VARIABLE: Final = {
    ("info", "exchange"),
    ("info", "request_body"),
    ("info", "response_body"),
    ("info", "token_fetched"),
    ("info", "token_adopted"),
    ("warning", "token_lifetime_unreadable"),
    ("warning", "token_lifetime_doubtful"),
    ("error", "chat_lease_not_released"),
    ("error", "chat_error_not_published"),
}
"""Events whose name or whose method is not written in the call of the logger."""
CALLS_WITH_A_VARIABLE: Final = {
    "_log.exception(event)",
    "_log.info(event)",
    "self._log.warning(doubt.event)",
    "self._log.warning(fetched.doubt.event)",
}
"""The calls that write them, except those through a local name."""
CODE_OF_THE_PROGRAM: Final = {path: path.read_text() for path in (ROOT / "proxy").rglob("*.py")}
EVENT: Final = re.compile(r"[a-z]+(_[a-z]+)*")

each_page = pytest.mark.parametrize("page", in_both_languages("docs/logs"))


def calls_of_loggers() -> Iterator[tuple[str, ast.expr, str]]:
    """Yield the level, the event and the text of every call of a logger in the program."""
    for text in CODE_OF_THE_PROGRAM.values():
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Call(func=ast.Attribute(attr=method) as called, args=[event, *_]):
                    written = f"{ast.unparse(called)}({ast.unparse(event)})"
                    if method in LEVEL_OF_METHOD and re.match(r"(self\.)?_?log\.|get_logger\(", written):
                        yield LEVEL_OF_METHOD[method], event, written


def literals(event: ast.expr) -> Iterator[str]:
    """Yield the names that the expression may have."""
    for node in ast.walk(event):
        match node:
            case ast.Constant(value=str(name)) if EVENT.fullmatch(name):
                yield name


def documented(page: str) -> set[tuple[str, str]]:
    """Return the level and the name of each event."""
    found: set[tuple[str, str]] = set()
    for row in rows(DOCUMENTS[page]):
        if len(row) == 3:
            names = CODE.findall(row[0])
            levels = re.split("[,、] ?", row[1])
            found |= {*zip(levels * len(names) if len(levels) == 1 else levels, names, strict=False)}
    return found


@each_page
def test_every_event_has_a_row_with_its_level(page: str) -> None:
    written = {(level, name) for level, event, _ in calls_of_loggers() for name in literals(event)}

    assert len(written) > 50
    assert documented(page) == written | WRITTEN_BY_A_VARIABLE


def test_every_event_that_a_variable_names_is_in_the_program() -> None:
    calls = {written for _, event, written in calls_of_loggers() if not [*literals(event)]}
    program = "".join(CODE_OF_THE_PROGRAM.values())

    assert calls == CALLS_WITH_A_VARIABLE
    for _, name in WRITTEN_BY_A_VARIABLE:
        assert f'"{name}"' in program


@each_page
def test_every_field_of_the_line_of_a_request_has_a_row(page: str) -> None:
    record = ExchangeRecord("id", "POST", "/v1/chat/completions", span=Mock(trace_id="1"))
    for field in msgspec.structs.fields(record):
        if getattr(record, field.name) in (None, 0, False):
            setattr(record, field.name, 2.0)
    table = [row[0] for row in rows(DOCUMENTS[page]) if len(row) == 2]
    outcomes = [*map(bool, map(re.compile("`ok`").fullmatch, table))].index(True)

    assert sorted(CODE.findall(" ".join(table[:outcomes]))) == sorted(record.fields())

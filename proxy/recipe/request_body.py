"""The body that curl would send, and what it says: JSON or a form."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from proxy.recipe.shell_words import CLOSE, OPEN, REFERENCE, CurlLineError

Pairs = tuple[tuple[str, str], ...]
ReadFile = Callable[[str], bytes]
FORM: Final = "application/x-www-form-urlencoded"


def joined(pieces: Sequence[tuple[str, str]], read_file: ReadFile) -> str | None:
    """The pieces of `--data`, `--json` and their like as one body; None where there are none.

    Raises:
        CurlLineError: a file that cannot be read.
    """
    if not pieces:
        return None
    between = "" if all(option == "json" for option, _ in pieces) else "&"
    return between.join(_piece(option, value, read_file) for option, value in pieces)


def _piece(option: str, value: str, read_file: ReadFile) -> str:
    if option == "data-urlencode":
        return _urlencoded(value, read_file)
    if not value.startswith("@") or option == "data-raw":
        return value
    text = file_text(f"--{option}", value[1:], read_file)
    return text if option != "data" else text.replace("\r", "").replace("\n", "").replace("\0", "")


def _urlencoded(value: str, read_file: ReadFile) -> str:
    """`content`, `=content`, `name=content`, `@file` or `name@file`."""
    name, equals, content = value.partition("=")
    if not equals:
        name, at, file = value.partition("@")
        content = file_text("--data-urlencode", file, read_file) if at else value
        name = name if at else ""
    encoded = quote(content, safe=f"-._~{OPEN}{CLOSE}")
    for mark in (OPEN, CLOSE):
        encoded = encoded.replace(quote(mark), mark)
    return f"{name}={encoded}" if name else encoded


def file_text(option: str, name: str, read_file: ReadFile) -> str:
    """The text of a file that the line names."""
    if name == "-" or REFERENCE.search(name):
        raise CurlLineError(f"{option}: a body from standard input or a shell variable's file is not read")
    try:
        text = read_file(name).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CurlLineError(f"{option} @FILE: the file cannot be read: {reason}") from None
    if OPEN in text or CLOSE in text:
        raise CurlLineError(f"{option} @FILE: the file holds private-use characters")
    return text


def parse_json(text: str) -> Any:
    """Parse strictly.

    Raises:
        ValueError: it is no JSON, or has no form in TOML (NaN, lone surrogates).
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError("a number is too large")
    return number


def pairs_of(text: str, what: str) -> Pairs:
    """The fields of a form or a query, percent-encoding undone.

    Raises:
        CurlLineError: text that is not UTF-8 below its encoding.
    """
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000))
    except ValueError:
        raise CurlLineError(f"{what}: its percent-encoding is not UTF-8, or it has too many fields") from None


def without_repeats(pairs: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """As a table.

    Raises:
        CurlLineError: a name stands twice, which a table cannot say.
    """
    table: dict[str, str] = {}
    for name, value in pairs:
        if table.setdefault(name, value) != value:
            raise CurlLineError(f"{what}: a field stands there twice, which a recipe cannot say")
    return table

"""Read event streams as the standard says, without the proxy's code.

The reader follows https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation,
except that it also reads an unfinished last event, as clients do that read line by line.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

DONE: Final = "[DONE]"
END_WORDS: Final = ("[done]", "done", '"[done]"', '"done"')
_GOOD_CODES: Final = ("", "0", "00000", "000000", "200", "20000", "success", "ok", "none")
_GOOD_TEXTS: Final = ("success", "succ", "ok")
_ANSWERED: Final = ("choices", "data", "results", "result", "output", "embeddings", "text", "segments")

Json = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """The lines between two blank lines."""

    lines: tuple[bytes, ...]

    @property
    def sound(self) -> bool:
        """Whether the block is valid UTF-8."""
        try:
            b"\n".join(self.lines).decode()
        except UnicodeDecodeError:
            return False
        return True

    @property
    def comments(self) -> list[bytes]:
        """Return the comment lines."""
        return [line for line in self.lines if line.startswith(b":")]

    def fields(self, name: str) -> list[str]:
        """Return the values of one field."""
        pairs = (line.decode("utf-8", "replace").partition(":") for line in self.lines)
        return [value.removeprefix(" ") for key, _, value in pairs if key == name]

    @property
    def data(self) -> str | None:
        """Return the data of the event; None if the block is not an event."""
        said = self.fields("data")
        return "\n".join(said) if said else None

    @property
    def name(self) -> str:
        """Return the type of the event."""
        return (self.fields("event") or [""])[-1]


def read_blocks(stream: bytes) -> list[Block]:
    """Return the blocks of a stream that are not empty."""
    blocks, lines = [], []
    for line in (
        *stream.removeprefix(b"\xef\xbb\xbf").splitlines(),
        b"",
    ):  # For bytes this splits only at LF, CRLF and CR.
        if line:
            lines.append(line)
        elif lines:
            blocks.append(Block(tuple(lines)))
            lines = []
    return blocks


@lru_cache(maxsize=1000)
def read_object(data: str | None) -> Json | None:
    """Return the JSON object in the data of an event, or None. Do not change it."""
    try:
        value = json.loads(data or "", parse_constant=_no_constant)
        if "\\u" in (data or ""):
            json.dumps(value, ensure_ascii=False).encode()  # Fails for a lone surrogate.
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_leniently(data: str) -> Json | None:
    """Return the JSON object in the data of an event, with null for NaN and infinite numbers, or None."""
    try:
        value = json.loads(data, parse_constant=lambda _: None)
        json.dumps(value, ensure_ascii=False).encode()  # Fails for a lone surrogate.
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(name)


# --- errors, according to the vendors' documentation


def _is_code(code: object) -> bool:
    if code is None or isinstance(code, bool | dict | list):
        return False
    return str(code).lower() not in _GOOD_CODES


def _has_text(value: Json) -> bool:
    texts = [value[key].strip() for key in ("message", "msg") if isinstance(value.get(key), str)]
    return any(texts) and next(filter(None, texts)).lower() not in _GOOD_TEXTS


def _whole_number(code: object) -> int:
    if isinstance(code, bool):
        return 0
    if isinstance(code, str):
        return int(code) if code.isascii() and code.isdigit() and len(code) < 10 else 0
    return code if isinstance(code, int) else 0


def refusal(chunk: Json) -> bool:
    """Return MiniMax's error, with or without choices."""
    base = chunk.get("base_resp")
    return isinstance(base, dict) and _whole_number(base.get("status_code")) != 0


def tells_error(chunk: Json) -> bool:
    """Whether an event is an error without a result."""
    if any(something(chunk.get(name)) for name in _ANSWERED):
        return False
    header, response = chunk.get("header"), chunk.get("Response")
    return bool(
        chunk.get("error")
        or refusal(chunk)
        or _whole_number(chunk.get("error_code"))
        or (isinstance(header, dict) and _is_code(header.get("code")) and _has_text(header))
        or (isinstance(response, dict) and isinstance(response.get("Error"), dict))
        or chunk.get("success") is False
        or chunk.get("object") == "error"
        or chunk.get("errors")
        or (_is_code(chunk.get("code")) and _has_text(chunk))
        or chunk.keys() in ({"detail"}, {"message"}, {"msg"})
    )


def something(value: object) -> bool:
    """Whether a field exists and is not empty."""
    return value not in (None, [], {}, "")

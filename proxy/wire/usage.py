"""How many tokens an answer cost, read from its end without parsing it (pure)."""

import json
from typing import Any, Final, NamedTuple

TAIL_BYTES: Final = 16 * 1024
"""As much of an answer's end is looked at: usage stands behind everything that is long."""
_KEY: Final = '"usage"'
_NAMES: Final = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


class Usage(NamedTuple):
    """Tokens as the upstream counted them."""

    prompt: int
    completion: int


def read_usage(tail: bytes) -> Usage | None:
    """The last usage object in the end of an answer, whole JSON or events; None where there is none.

    Read are OpenAI's names (https://platform.openai.com/docs/api-reference/chat/object), and those of its
    Responses API.
    """
    text = tail.decode("utf-8", "replace")
    end = len(text)
    while (at := text.rfind(_KEY, 0, end)) >= 0:
        usage = _object_after(text, at + len(_KEY))
        if usage is not None:
            return usage
        end = at
    return None


def _object_after(text: str, start: int) -> Usage | None:
    rest = text[start : start + TAIL_BYTES].lstrip()
    if not rest.startswith(":"):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(rest[1:].lstrip())
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None  # "usage": null on the chunks before the last
    counts = [_first_count(value, names) for names in _NAMES]
    return None if counts == [None, None] else Usage(counts[0] or 0, counts[1] or 0)


def _first_count(value: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        count = value.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 53:
            return count
    return None

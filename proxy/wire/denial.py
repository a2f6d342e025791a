"""The answer in which an upstream rejects a token, as the caller gets it (pure)."""

import re
from typing import Any, Final

import msgspec

from proxy.errors import UpstreamForbidden

MESSAGE_CHARACTERS_MAX: Final = 1000
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def denial(status: int, body: bytes) -> UpstreamForbidden:
    """Build the error of a request that the upstream rejects whatever the token.

    Args:
        status: Of the upstream's answer.
        body: Of the answer, as much of it as was read, without our secrets.
    """
    text = body.decode("utf-8", "replace")
    reason = f"the upstream answered {status}, and a newer token does not help"
    held = _parse(text)
    if isinstance(held, dict):
        error = held.get("error")
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            return UpstreamForbidden(answer=error, reason=reason)
        said = (error, held.get("message"), held.get("detail"), held.get("msg"), held.get("error_msg"))
        text = next((words for words in said if isinstance(words, str)), "")
    elif text.lstrip().startswith("<"):
        text = ""  # a page for people
    message = _UNPRINTABLE.sub(" ", text).strip()[:MESSAGE_CHARACTERS_MAX]
    return UpstreamForbidden(message or None, reason=reason)


def _parse(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None

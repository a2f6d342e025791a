"""Errors inside a 200, in OpenAI's own shape and in those of vendors, told as OpenAI errors."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxy.errors import ErrorEnvelope, UpstreamError
from proxy.wire.repairs.shallow_json import Members, is_empty, read_value, to_json
from proxy.wire.repairs.vendor_codes import (
    BAIDU,
    MINIMAX,
    MINIMAX_UNSAFE,
    SPARK,
    SPARK_UNSAFE,
    TYPES,
    UNSAFE,
    WORDS,
    ZHIPU,
    ZHIPU_UNSAFE,
)


@dataclass(frozen=True, slots=True)
class ErrorInside:
    """An error that came with a 200: the status that it should have had, and OpenAI's fields."""

    status: int
    message: str
    type: str
    code: str | None = None

    def envelope(self) -> ErrorEnvelope:
        """The error as OpenAI's clients read it."""
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}


# Where any of these is there, something was answered, whatever stands beside it.
_ANSWERED: Final = ("choices", "data", "results", "result", "output", "embeddings")
_SUCCESS: Final = frozenset({"", "0", "200", "success", "ok", "none"})
# Clients look for words and digits in an error: ids are none of their business.
_ID: Final = re.compile(r"\s*[(\[（](?:sid|(?:cid|request)[ _-]?id|traceid)\b[^)\]）]*[)\]）]", re.IGNORECASE)
_MESSAGE_CHARS_MAX: Final = 2000

OPENAI_SIGN: Final = re.compile(rb'"error"\s*+:\s*+(?!null)')
"""Without it nothing in an event is an error of OpenAI's shape."""
VENDOR_SIGN: Final = re.compile(
    rb'"(?:[Cc]ode|error_code|status_code)"\s*+:\s*+(?!0\s*+[,}]|"0"|200\s*+[,}]|null)'
    rb'|"success"\s*+:\s*+false|"object"\s*+:\s*+"error"|"detail"\s*+:|"errors"\s*+:'
)
"""Without it nothing in an event is an error of a vendor's."""


def read_openai_error(answer: Members) -> ErrorInside | None:
    """The error of an answer `{"error": ...}` that answers nothing."""
    if is_empty(answer.get("error")) or _answers(answer):
        return None
    error = read_value(answer.get("error"))
    if isinstance(error, dict):
        kind = error.get("type") or error.get("status")
        return _inside(_text(error.get("message"), error.get("msg")), error.get("code"), kind)
    return _inside(_text(error, _whole(answer).get("message")), None, None)


def read_vendor_error(answer: Members) -> ErrorInside | None:
    """The error of an answer in the shape of a vendor's that answers nothing."""
    if not is_empty(answer.get("error")) or _answers(answer):
        return None
    whole = _whole(answer)
    return next((error for shape in _SHAPES if (error := shape(whole)) is not None), None)


def read_minimax_refusal(answer: Members) -> ErrorInside | None:
    """MiniMax's error beside choices: what was said stands, and the error comes after it."""
    base = answer.get("base_resp")
    return None if base is None else _minimax({"base_resp": read_value(base)})


def _answers(answer: Members) -> bool:
    return any(not is_empty(answer.get(name)) for name in _ANSWERED)


def _whole(answer: Members) -> dict[str, Any]:
    read = read_value(to_json(answer))
    return read if isinstance(read, dict) else {}


# --- shapes


def _minimax(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"base_resp": {"status_code": 1004, "status_msg": "..."}}`."""
    base = whole.get("base_resp")
    code = _number(base.get("status_code")) if isinstance(base, dict) else None
    if not code or not isinstance(base, dict):
        return None
    status = MINIMAX.get(code, 502)
    return _made(status, _text(base.get("status_msg")), UNSAFE if code in MINIMAX_UNSAFE else str(code))


def _baidu(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"error_code": 336003, "error_msg": "..."}`."""
    code = _number(whole.get("error_code"))
    if not code:
        return None
    text = _text(whole.get("error_msg"), whole.get("error_message"), whole.get("error_description"))
    return _made(BAIDU.get(code, 502), text, str(code))


def _spark_header(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"header": {"code": 10013, "message": "...", "sid": "..."}}`, Spark's shape on WebSockets."""
    header = whole.get("header")
    return _flat(header) if isinstance(header, dict) else None


def _tencent(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"Response": {"Error": {"Code": "...", "Message": "..."}, "RequestId": "..."}}`."""
    response = whole.get("Response")
    error = response.get("Error") if isinstance(response, dict) else None
    if not isinstance(error, dict):
        return None
    return _inside(_text(error.get("Message")), error.get("Code"), None)


def _flat(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"code": 10012, "message": "...", "sid": "..."}`, also with `msg`, or with a code in words."""
    code = whole.get("code")
    if code is None or isinstance(code, bool | dict | list) or str(code).lower() in _SUCCESS:
        return None
    text = _text(whole.get("message"), whole.get("msg"))
    return _inside(text, code, whole.get("type")) if text else None


def _unsuccessful(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"success": false}`, `{"errors": [{"code", "message"}]}` or `{"object": "error", "message"}`."""
    errors = whole.get("errors")
    if whole.get("success") is not False and whole.get("object") != "error" and not errors:
        return None
    first = errors[0] if isinstance(errors, list) and errors else whole
    first = first if isinstance(first, dict) else {"message": first}
    return _inside(_text(first.get("message"), first.get("msg")), first.get("code"), first.get("type"))


def _detail(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"detail": "..."}` alone."""
    return _inside(_text(whole["detail"]), None, None) if whole.keys() == {"detail"} else None


_Shape = Callable[[dict[str, Any]], ErrorInside | None]
_SHAPES: Final[tuple[_Shape, ...]] = (
    _minimax,
    _baidu,
    _spark_header,
    _tencent,
    _unsuccessful,
    _flat,
    _detail,
)


# --- fields


def _inside(message: str, code: Any, kind: Any) -> ErrorInside:
    number = _number(code)
    if number in SPARK_UNSAFE or number in ZHIPU_UNSAFE:
        return _made(400, message, UNSAFE)
    status = next(_statuses(number, f"{kind or ''} {code or ''}".lower()))
    told = None if code is None or isinstance(code, dict | list) else str(code)
    return _made(status, message, told, kind if isinstance(kind, str) and kind else None)


def _statuses(number: int | None, words: str) -> Iterator[int]:
    """The statuses that the parts of an error speak for, the surest first."""
    if number is not None:
        known = SPARK.get(number) or ZHIPU.get(number)
        if known:
            yield known
        if 400 <= number <= 599:
            yield 502 if number in {401, 407} else number
    yield from (status for word, status in WORDS if word in words)
    yield 502


def _made(status: int, message: str, code: str | None, kind: str | None = None) -> ErrorInside:
    return ErrorInside(
        status, message or UpstreamError.message, kind or TYPES.get(status, UpstreamError.type), code
    )


def _text(*offered: Any) -> str:
    """The first that says something, without ids."""
    for text in offered:
        if isinstance(text, str) and text.strip():
            return _ID.sub("", text).strip()[:_MESSAGE_CHARS_MAX]
    return ""


def _number(code: Any) -> int | None:
    if isinstance(code, bool):
        return None
    if isinstance(code, int):
        return code
    return (
        int(code) if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10 else None
    )

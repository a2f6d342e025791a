"""Errors in successful responses, in the shape of OpenAI and in those of vendors."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from proxy.errors import ErrorEnvelope, UpstreamError
from proxy.wire.repairs.registry import CLIENTS, Repair
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    is_empty,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)
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
    """An error from a successful response: the status that it should have had, and the fields of OpenAI."""

    status: int
    message: str
    type: str
    code: str | None = None

    def envelope(self) -> ErrorEnvelope:
        """Return the error as OpenAI's clients read it."""
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}


# If any of these is there, the response answers something, whatever stands beside it.
_ANSWERED: Final = ("choices", "data", "results", "result", "output", "embeddings")
_SUCCESS: Final = frozenset({"", "0", "200", "success", "ok", "none"})
# Clients decide by the words and digits of an error, so ids must not stand in it.
_ID: Final = re.compile(
    r"(?:(?<!\s)\s++)?[(\[（](?:sid|(?:cid|request)[ _-]?id|traceid)\b[^)\]）]{0,200}[)\]）]", re.IGNORECASE
)
_MESSAGE_CHARS_MAX: Final = 2000


TRUE_ERRORS: Final = Repair(
    "true_errors",
    "Turns a successful response with an error, HTML, no JSON, no answer or nothing into an error with a "
    "true status, and an event that is not JSON into an error event.",
    clients=("RAGFlow, which takes them for an empty answer", "Dify", "Open WebUI", "FastGPT", "LangChain"),
    sets=CLIENTS,
    stages=("answer", "stream"),
)
VENDOR_ERRORS: Final = Repair(
    "vendor_errors",
    "Turns the error shapes of Spark, Baidu, MiniMax and others in a successful response into OpenAI errors.",
    clients=("all",),
    sets=CLIENTS,
    stages=("answer", "stream"),
)


def read_openai_error(answer: Members) -> ErrorInside | None:
    """Return the error of an answer `{"error": ...}` that answers nothing."""
    if is_empty(answer.get("error")) or _answers(answer):
        return None
    error = read_value(answer.get("error"))
    if isinstance(error, dict):
        kind = error.get("type") or error.get("status")
        return _inside(_text(error.get("message"), error.get("msg")), error.get("code"), kind)
    return _inside(_text(error, _whole(answer).get("message")), None, None)


def read_error_beside(answer: Members) -> ErrorInside | None:
    """Return the error that ends an answer, beside or inside choices that say nothing or end with "error".

    OpenRouter writes `{"error": {...}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}`.
    """
    choices = [open_object(choice) or {} for choice in open_list(answer.get("choices")) or ()]
    failed = [choice for choice in choices if bytes(choice.get("finish_reason", NULL)) == b'"error"']
    inside = next((choice["error"] for choice in choices if not is_empty(choice.get("error"))), None)
    error = answer["error"] if not is_empty(answer.get("error")) else inside
    if error is None:
        return None if not failed else _made(502, "", "error")
    if failed or inside is not None or not any(map(_says_something, choices)):
        return read_openai_error({"error": error})
    return None


def read_text_beside(chunk: Members) -> Members | None:
    """Return the text of a chunk that also holds an error; None if there is none."""
    choices = [open_object(choice) or {} for choice in open_list(chunk.get("choices")) or ()]
    if not any(map(_says_something, choices)):
        return None
    open_choices = [
        {**{name: value for name, value in choice.items() if name != "error"}, "finish_reason": NULL}
        for choice in choices
    ]
    kept = {name: value for name, value in chunk.items() if name != "error"}
    return {**kept, "choices": write(open_choices)}


def _says_something(choice: Members) -> bool:
    message = open_object(choice.get("message")) or open_object(choice.get("delta")) or choice
    names = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "text")
    return any(not is_empty(message.get(name)) for name in names)


def read_vendor_error(answer: Members) -> ErrorInside | None:
    """Return the error of an answer in the shape of a vendor that answers nothing."""
    if not is_empty(answer.get("error")) or _answers(answer):
        return None
    whole = _whole(answer)
    return next((error for shape in _SHAPES if (error := shape(whole)) is not None), None)


def read_minimax_refusal(answer: Members) -> ErrorInside | None:
    """Return MiniMax's error beside choices, whose text comes before the error."""
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
    """`{"code": 10012, "message": "...", "sid": "..."}`, also with other names, or with a code in words."""
    code = next((whole[name] for name in _CODE_NAMES if whole.get(name) is not None), None)
    if code is None or isinstance(code, bool | dict | list) or str(code).lower() in _SUCCESS:
        return None
    text = _text(*(whole.get(name) for name in _TEXT_NAMES))
    return _inside(text, code, whole.get("type")) if text else None


def _failed(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"status": "error", "message": "..."}`, also with a number of HTTP."""
    status = whole.get("status")
    is_error = isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599
    if not is_error and str(status).lower() not in {"error", "fail", "failed", "failure"}:
        return None
    text = _text(*(whole.get(name) for name in _TEXT_NAMES))
    return _inside(text, status if is_error else None, None) if text else None


def _only_text(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"message": "..."}` alone, or with the id of the request: API gateways write it."""
    names = {name for name in whole if "id" not in name.lower()}
    return _inside(_text(*whole.values()), None, None) if names in ({"message"}, {"msg"}) else None


def _unsuccessful(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"success": false}`, `{"errors": [{"code", "message"}]}` or `{"object": "error", "message"}`."""
    errors = whole.get("errors")
    if whole.get("success") is not False and whole.get("object") != "error" and not errors:
        return None
    first = errors[0] if isinstance(errors, list) and errors else whole
    first = first if isinstance(first, dict) else {"message": first}
    return _inside(_text(first.get("message"), first.get("msg")), first.get("code"), first.get("type"))


def _detail(whole: dict[str, Any]) -> ErrorInside | None:
    """`{"detail": "..."}` alone; FastAPI writes a list of `{"loc", "msg"}` for a request it rejects."""
    if whole.keys() != {"detail"}:
        return None
    detail = whole["detail"]
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _inside(_text(detail[0].get("msg")), 422, None)
    return _inside(_text(detail), None, None)


_Shape = Callable[[dict[str, Any]], ErrorInside | None]
_SHAPES: Final[tuple[_Shape, ...]] = (
    _minimax,
    _baidu,
    _spark_header,
    _tencent,
    _unsuccessful,
    _flat,
    _failed,
    _detail,
    _only_text,
)
_CODE_NAMES: Final = ("code", "errcode", "errorCode", "err_code", "retcode", "ret", "ret_code", "statusCode")
_TEXT_NAMES: Final = (
    "message",
    "msg",
    "errmsg",
    "errorMessage",
    "errorMsg",
    "err_msg",
    "error_msg",
    "reason",
)


# --- fields


def _inside(message: str, code: Any, kind: Any) -> ErrorInside:
    number = _number(code)
    if number in SPARK_UNSAFE or number in ZHIPU_UNSAFE:
        return _made(400, message, UNSAFE)
    status = next(_statuses(number, f"{kind or ''} {code or ''}".lower()))
    name = None if code is None or isinstance(code, dict | list) else str(code)
    return _made(status, message, name, kind if isinstance(kind, str) and kind else None)


def _statuses(number: int | None, words: str) -> Iterator[int]:
    """Yield the statuses that the parts of an error suggest, the most certain first."""
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
    """Return the first text that is not empty, without ids."""
    for text in offered:
        if isinstance(text, str) and text.strip():
            return _ID.sub("", text[: 2 * _MESSAGE_CHARS_MAX]).strip()[:_MESSAGE_CHARS_MAX]
    return ""


def _number(code: Any) -> int | None:
    if isinstance(code, bool):
        return None
    if isinstance(code, int):
        return code
    return (
        int(code) if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10 else None
    )

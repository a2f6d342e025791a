"""Find errors in successful responses, in OpenAI's shape and in those of vendors."""

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from proxy.errors import ErrorEnvelope, UpstreamError
from proxy.wire.repairs.repair import CLIENTS, Repair
from proxy.wire.repairs.shallow_json import (
    NULL,
    SHORT_BYTES,
    Members,
    first_byte,
    is_empty,
    open_list,
    open_object,
    read_value,
    write,
)
from proxy.wire.success import is_success

UNSAFE: Final = "content_filter"
"""OpenAI's code for content that a filter stopped."""

# A vendor that rejects the proxy's own token answers 401; the caller gets 502, as its key is not at fault.
_BAD_GATEWAY: Final = 502

_SPARK: Final[dict[int, int]] = {
    **dict.fromkeys((10003, 10004, 10005, 10163, 10404, 10907), 400),
    **dict.fromkeys((10006, 10007, 11201, 11202, 11203), 429),
    **dict.fromkeys((10008, 10010, 10011, 10012, 10110), 503),
    **dict.fromkeys((10013, 10014, 10019, 10021), 400),
    **dict.fromkeys((10016, 11200), 403),
}
"""https://www.xfyun.cn/doc/spark/%E6%8E%A5%E5%8F%A3%E8%AF%B4%E6%98%8E.html"""
_SPARK_UNSAFE: Final = frozenset({10013, 10014, 10019, 10021})

_BAIDU: Final[dict[int, int]] = {
    **dict.fromkeys((2, 336100), 503),
    **dict.fromkeys((4, 17, 18, 19, 336501, 336502), 429),
    6: 403,
    **dict.fromkeys((100, *range(336001, 336010), 336103), 400),
    **dict.fromkeys((13, 14, 15, 110, 111), _BAD_GATEWAY),
}
"""https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh"""

_MINIMAX: Final[dict[int, int]] = {
    1001: 504,
    **dict.fromkeys((1002, 1039, 1041, 2056), 429),
    **dict.fromkeys((1004, 2049), _BAD_GATEWAY),
    1008: 402,
    **dict.fromkeys((1026, 1027, 1042, 2013), 400),
}
"""https://platform.minimaxi.com/document/error%20code"""
_MINIMAX_UNSAFE: Final = frozenset({1026, 1027})

_ZHIPU: Final[dict[int, int]] = {
    **dict.fromkeys((*range(1000, 1005), *range(1110, 1113)), _BAD_GATEWAY),
    1113: 402,
    **dict.fromkeys((1210, 1212, 1213, 1214, 1215, 1261, 1301), 400),
    1211: 404,
    1220: 403,
    **dict.fromkeys((1302, 1303, 1304, 1305, 1308), 429),
}
"""https://docs.bigmodel.cn/cn/faq/api-code"""
_ZHIPU_UNSAFE: Final = frozenset({1301})

_WORDS: Final = (
    ("rate_limit", 429),
    ("ratelimit", 429),
    ("throttl", 429),
    ("quota", 429),
    ("too_many", 429),
    ("toomany", 429),
    ("authentication", _BAD_GATEWAY),
    ("unauthorized", _BAD_GATEWAY),
    ("api_key", _BAD_GATEWAY),
    ("apikey", _BAD_GATEWAY),
    ("not_found", 404),
    ("notfound", 404),
    ("permission", 403),
    ("accessdenied", 403),
    ("arrearage", 402),
    ("overloaded", 503),
    ("unavailable", 503),
    ("timeout", 504),
    ("filter", 400),
    ("inspection", 400),
    ("context_length", 400),
    ("invalid", 400),
    ("badrequest", 400),
)
"""Statuses by words in a type or a code, in lower case; the first match decides."""

_TYPES: Final = {
    400: "invalid_request_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_error",
}
"""OpenAI's error type by status; for any other status it is `upstream_error`."""


class EmbeddedError(msgspec.Struct, frozen=True):
    """An error in a successful response: the status that it should have had, and OpenAI's fields."""

    status: int
    message: str
    type: str
    code: str | None = None

    def envelope(self) -> ErrorEnvelope:
        """Return the error in OpenAI's envelope."""
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}


# A response with any of these members has a result, whatever other members it has.
_RESULTS: Final = (
    *("choices", "data", "results", "result", "output", "embeddings"),
    *("text", "segments"),  # of a transcription
)
_NO_CODES: Final = frozenset({"", "none"})
# Clients decide by the words and digits of a message whether to retry, so ids are removed.
_ID: Final = re.compile(
    r"(?:(?<!\s)\s++)?[(\[（](?:sid|(?:cid|request)[ _-]?id|traceid)\b[^)\]）]{0,200}[)\]）]", re.IGNORECASE
)
_MESSAGE_CHARS_MAX: Final = 2000


TRUE_ERRORS: Final = Repair(
    "true_errors",
    "Turns a successful response that contains an error, HTML, no JSON, no result or nothing into an "
    "error with the right status, and an event that is not JSON into an error event.",
    clients=("RAGFlow, which reads them as an empty response", "Dify", "Open WebUI", "FastGPT", "LangChain"),
    sets=CLIENTS,
    stages=("response", "stream"),
)
VENDOR_ERRORS: Final = Repair(
    "vendor_errors",
    "Turns errors in the shapes of Spark, Baidu, MiniMax and others in a successful response into "
    "OpenAI errors.",
    clients=("all",),
    sets=CLIENTS,
    stages=("response", "stream"),
)


def holds_error(members: Members) -> bool:
    """Whether `error` holds an error. Some gateways write `"error": false` or 0 into every response."""
    written = members.get("error")
    if first_byte(written) in {b'"', b"[", b"{"}:
        return not is_empty(written)
    return bool(read_value(written))


def read_openai_error(response: Members) -> EmbeddedError | None:
    """Return the error of a response `{"error": ...}` without a result."""
    if not holds_error(response) or _has_result(response):
        return None
    error = read_value(response.get("error"))
    if isinstance(error, dict):
        kind = error.get("type") or error.get("status")
        return _classified(_text(error.get("message"), error.get("msg")), error.get("code"), kind)
    return _classified(_text(error, read_value(response.get("message"))), None, None)


def read_error_beside(response: Members) -> EmbeddedError | None:
    """Return the error next to or inside choices that are empty or have the finish_reason "error".

    OpenRouter writes `{"error": {...}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}`.
    """
    choices = [open_object(choice) or {} for choice in open_list(response.get("choices")) or ()]
    failed = [choice for choice in choices if bytes(choice.get("finish_reason", NULL)) == b'"error"']
    inside = next((choice["error"] for choice in choices if holds_error(choice)), None)
    error = response["error"] if holds_error(response) else inside
    if error is None:
        return None if not failed else _error(502, "", "error")
    if failed or inside is not None or not any(map(_has_content, choices)):
        return read_openai_error({"error": error})
    return None


def read_text_beside(chunk: Members) -> Members | None:
    """Return a chunk without its error if it also holds text; otherwise None."""
    choices = [open_object(choice) or {} for choice in open_list(chunk.get("choices")) or ()]
    if not any(map(_has_content, choices)):
        return None
    open_choices = [
        {**{name: value for name, value in choice.items() if name != "error"}, "finish_reason": NULL}
        for choice in choices
    ]
    kept = {name: value for name, value in chunk.items() if name != "error"}
    return {**kept, "choices": write(open_choices)}


def _has_content(choice: Members) -> bool:
    message = open_object(choice.get("message")) or open_object(choice.get("delta")) or choice
    names = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "text")
    return any(not is_empty(message.get(name)) for name in names)


def read_vendor_error(response: Members) -> EmbeddedError | None:
    """Return the error of a response without a result, in the shape of a vendor."""
    if holds_error(response) or _has_result(response):
        return None
    whole = _whole(response)
    return next((error for shape in _SHAPES if (error := shape(whole)) is not None), None)


def read_minimax_rejection(response: Members) -> EmbeddedError | None:
    """Return MiniMax's error next to choices, whose text precedes the error."""
    base = response.get("base_resp")
    return None if base is None else _minimax({"base_resp": read_value(base)})


def _has_result(response: Members) -> bool:
    return any(not is_empty(response.get(name)) for name in _RESULTS)


def _whole(response: Members) -> dict[str, object]:
    """Parse the members of a response; without its lists and objects if it is longer than any error is."""
    is_long = sum(memoryview(value).nbytes for value in response.values()) > SHORT_BYTES
    return {
        name: None if is_long and first_byte(value) in {b"[", b"{"} else read_value(value)
        for name, value in response.items()
    }


# --- shapes


def _minimax(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"base_resp": {"status_code": 1004, "status_msg": "..."}}`."""
    base = whole.get("base_resp")
    code = _number(base.get("status_code")) if isinstance(base, dict) else None
    if not code or not isinstance(base, dict):
        return None
    status = _MINIMAX.get(code, 502)
    return _error(status, _text(base.get("status_msg")), UNSAFE if code in _MINIMAX_UNSAFE else str(code))


def _baidu(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"error_code": 336003, "error_msg": "..."}`."""
    code = _number(whole.get("error_code"))
    if not code:
        return None
    text = _text(whole.get("error_msg"), whole.get("error_message"), whole.get("error_description"))
    return _error(_BAIDU.get(code, 502), text, str(code))


def _spark_header(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"header": {"code": 10013, "message": "...", "sid": "..."}}`, Spark's shape on WebSockets."""
    header = whole.get("header")
    return _flat(header) if isinstance(header, dict) else None


def _tencent(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"Response": {"Error": {"Code": "...", "Message": "..."}, "RequestId": "..."}}`."""
    response = whole.get("Response")
    error = response.get("Error") if isinstance(response, dict) else None
    if not isinstance(error, dict):
        return None
    return _classified(_text(error.get("Message")), error.get("Code"), None)


def _flat(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"code": 10012, "message": "...", "sid": "..."}`, also with other names or with a string as code."""
    code = next((whole[name] for name in _CODE_NAMES if whole.get(name) is not None), None)
    if code is None or isinstance(code, bool | dict | list) or str(code).lower() in _NO_CODES:
        return None
    text = _text(*(whole.get(name) for name in _TEXT_NAMES))
    if not text or is_success(str(code)) or is_success(text):
        return None
    return _classified(text, code, whole.get("type"))


def _failed(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"status": "error", "message": "..."}`, also with an HTTP status."""
    status = whole.get("status")
    is_error = isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599
    if not is_error and str(status).lower() not in {"error", "fail", "failed", "failure"}:
        return None
    text = _text(*(whole.get(name) for name in _TEXT_NAMES))
    return _classified(text, status if is_error else None, None) if text else None


def _only_text(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"message": "..."}` alone or with a request id, as API gateways write it."""
    names = {name for name in whole if "id" not in name.lower()}
    if names not in ({"message"}, {"msg"}):
        return None
    text = _text(*(whole[name] for name in names))
    return None if is_success(text) else _classified(text, None, None)


def _unsuccessful(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"success": false}`, `{"errors": [{"code", "message"}]}` or `{"object": "error", "message"}`."""
    errors = whole.get("errors")
    if whole.get("success") is not False and whole.get("object") != "error" and not errors:
        return None
    first = errors[0] if isinstance(errors, list) and errors else whole
    first = first if isinstance(first, dict) else {"message": first}
    return _classified(_text(first.get("message"), first.get("msg")), first.get("code"), first.get("type"))


def _detail(whole: dict[str, object]) -> EmbeddedError | None:
    """`{"detail": "..."}` alone. For an invalid request FastAPI writes a list of `{"loc", "msg"}`."""
    if whole.keys() != {"detail"}:
        return None
    detail = whole["detail"]
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _classified(_text(detail[0].get("msg")), 422, None)
    return _classified(_text(detail), None, None)


_Shape = Callable[[dict[str, object]], EmbeddedError | None]
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


def _classified(message: str, code: object, kind: object) -> EmbeddedError:
    number = _number(code)
    if number in _SPARK_UNSAFE or number in _ZHIPU_UNSAFE:
        return _error(400, message, UNSAFE)
    status = next(_statuses(number, f"{kind or ''} {code or ''}".lower()))
    name = None if code is None or isinstance(code, dict | list) else str(code)
    return _error(status, message, name, kind if isinstance(kind, str) and kind else None)


def _statuses(number: int | None, words: str) -> Iterator[int]:
    """Yield the statuses that an error suggests, the most certain first."""
    if number is not None:
        known = _SPARK.get(number) or _ZHIPU.get(number)
        if known:
            yield known
        if 400 <= number <= 599:
            yield 502 if number in {401, 407} else number
    yield from (status for word, status in _WORDS if word in words)
    yield 502


def _error(status: int, message: str, code: str | None, kind: str | None = None) -> EmbeddedError:
    return EmbeddedError(
        status, message or UpstreamError.message, kind or _TYPES.get(status, UpstreamError.type), code
    )


def _text(*offered: object) -> str:
    """Return the first string that is not empty, without ids."""
    for text in offered:
        if isinstance(text, str) and text.strip():
            return _ID.sub("", text[: 2 * _MESSAGE_CHARS_MAX]).strip()[:_MESSAGE_CHARS_MAX]
    return ""


def _number(code: object) -> int | None:
    if isinstance(code, bool):
        return None
    if isinstance(code, int):
        return code
    return (
        int(code) if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10 else None
    )


REPAIRS: Final = (TRUE_ERRORS, VENDOR_ERRORS)

"""Why an answer ended badly, in words for a visitor (pure).

The vendor's own words stay out: they hold ids, model names and addresses.
"""

from dataclasses import dataclass
from typing import Final

from proxy.wire.repairs.shallow_json import Members, read_value
from proxy.wire.repairs.vendor_errors import (
    UNSAFE,
    EmbeddedError,
    read_minimax_refusal,
    read_openai_error,
    read_vendor_error,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that ends here, after what was already said.

    Args:
        message: A sentence in Chinese and in English, fit to be shown.
        code: The vendor's code, for the log.
    """

    message: str
    code: str | None


_STOPPED: Final = "内容未通过安全审核，后续无法显示。The content was stopped by a safety check."
_BUSY: Final = "当前提问的人较多，请稍后再试。The service is busy, please try again in a moment."
_AWAY: Final = "服务暂时不可用，请稍后再试。The service is temporarily unavailable, please try again."
_SLOW: Final = "模型长时间没有回应，请重试。The model took too long to answer, please try again."
_TOO_LONG: Final = "对话太长了，请新建对话后再试。The conversation is too long, please start a new one."
_REFUSED: Final = "服务无法处理这个请求。The service could not handle this request."
_NOT_ALLOWED: Final = "服务的权限或额度不足。The service has no permission or quota left for this."

_BY_STATUS: Final = {
    400: _REFUSED,
    402: _NOT_ALLOWED,
    403: _NOT_ALLOWED,
    404: _REFUSED,
    408: _SLOW,
    413: _TOO_LONG,
    422: _REFUSED,
    429: _BUSY,
    504: _SLOW,
}
_TOO_LONG_SIGNS: Final = ("context_length", "10907", "336007", "too_many_tokens")
_DAILY_LIMIT: Final = frozenset({"11201"})
_MEMBERS_OF_AN_ANSWER: Final = frozenset({"choices", "data", "results", "result", "output", "embeddings"})
_BAD_ENDS: Final = {
    "sensitive": _STOPPED,  # Zhipu
    "content_filter": _STOPPED,
    "safety": _STOPPED,
    "network_error": _AWAY,  # Zhipu
    "insufficient_system_resource": _BUSY,  # DeepSeek
    "error": _AWAY,
}


def find_failure(members: Members) -> Failure | None:
    """The error in a payload, also beside an answer: an audit strikes while one is being given."""
    if any(read_value(members.get(name)) is True for name in ("input_sensitive", "output_sensitive")):
        return Failure(_STOPPED, UNSAFE)  # MiniMax
    beside = {name: value for name, value in members.items() if name not in _MEMBERS_OF_AN_ANSWER}
    error = read_openai_error(beside) or read_minimax_refusal(beside) or read_vendor_error(beside)
    return None if error is None else Failure(_words(error), error.code)


def finish_failure(reason: str) -> Failure | None:
    """The failure that a finish_reason stands for, where it is none of the good ones."""
    words = _BAD_ENDS.get(reason.lower())
    if words is None:
        return None
    return Failure(words, UNSAFE if words == _STOPPED else reason)


def _words(error: EmbeddedError) -> str:
    code = (error.code or "").lower()
    if code == UNSAFE or "filter" in code or "inspection" in code:
        return _STOPPED
    if any(sign in code for sign in _TOO_LONG_SIGNS):
        return _TOO_LONG
    if code in _DAILY_LIMIT:
        return _NOT_ALLOWED
    return _BY_STATUS.get(error.status, _AWAY)

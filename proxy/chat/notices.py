"""Notices of the chat to a visitor, each with its code, and the errors that they explain (pure).

A vendor's own words are not shown: they contain ids, model names and addresses.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from proxy.errors import (
    Aborted,
    BadResponse,
    CircuitOpen,
    CredentialError,
    Draining,
    Overloaded,
    ProxyError,
    RateLimited,
    TokenRejected,
    Unreachable,
    UpstreamForbidden,
    UpstreamTimeout,
)
from proxy.wire.repairs.shallow_json import Members, read_value
from proxy.wire.repairs.vendor_errors import (
    UNSAFE,
    EmbeddedError,
    read_minimax_rejection,
    read_openai_error,
    read_vendor_error,
)


class Notice(msgspec.Struct, frozen=True):
    """A notice to a visitor: a code for pages that translate it, and words for others.

    Args:
        code: The code, which our page translates.
        words: The notice in Chinese and in English, with `{n}` for the number.
        number: The number in the words.
    """

    code: str
    words: tuple[str, str]
    number: int | None = None

    def with_number(self, number: int) -> "Notice":
        """Return the notice with a number."""
        return replace(self, number=number)

    @property
    def text(self) -> str:
        """The words in both languages, as the article's page shows them."""
        return "".join(self.words).replace("{n}", str(self.number))

    @property
    def fields(self) -> dict[str, object]:
        """The code and the number, for the JSON that carries the notice."""
        number = {} if self.number is None else {"number": self.number}
        return {"reason": self.code, **number}


BUSY: Final = Notice(
    "busy",
    (
        "上一个问题还在回答中，请等它结束，或先停止。",
        "An answer is still being written: wait for it, or stop it first.",
    ),
)
PROMPT_TOO_LONG: Final = Notice(
    "prompt_too_long", ("问题太长，最多 {n} 个字。", "The question is too long: {n} characters at most.")
)
NOTHING_TO_ANSWER: Final = Notice(
    "nothing_to_answer", ("还没有可以重新回答的问题。", "There is no question yet to answer again.")
)
NO_ANSWER: Final = Notice(
    "no_answer", ("模型没有给出回答，请再试一次。", "The model gave no answer, please try again.")
)
REJECTED: Final = Notice(
    "rejected",
    ("模型拒绝了这次请求（状态码 {n}）。", "The model rejected this request with the status {n}."),
)
UNREACHABLE: Final = Notice(
    "unreachable",
    ("暂时连不上模型，请稍后再试。", "The model cannot be reached at the moment, please try again."),
)
TIMED_OUT: Final = Notice(
    "timed_out", ("模型长时间没有回应，请重试。", "The model took too long to answer, please try again.")
)
OVERLOADED: Final = Notice(
    "overloaded",
    ("当前提问的人较多，请稍后再试。", "Too many are asking at the moment, please try again."),
)
CUT_OFF: Final = Notice("cut_off", ("回答中断了，请重试。", "The answer was cut off, please try again."))
RESTARTING: Final = Notice(
    "restarting",
    ("服务正在重启，请稍后再问。", "The service is restarting, please ask again in a moment."),
)
FORBIDDEN: Final = Notice(
    "model_forbidden",
    ("这个模型暂不可用，请联系管理员。", "This model is not available here: please tell the operator."),
)
BROKEN: Final = Notice("broken", ("出了点问题，请重试。", "Something went wrong, please try again."))
STORE_CORRUPT: Final = Notice(
    "store_corrupt",
    (
        "保存的对话无法读取，请联系管理员，或新建对话。",
        "The stored conversation cannot be read: please tell the operator, or start a new one.",
    ),
)
TOO_MANY: Final = "Too many requests!"
"""The article's own words."""

_UNSAFE: Final = Notice(
    "unsafe", ("内容未通过安全审核，后续无法显示。", "The content was stopped by a safety check.")
)
_BUSY_SERVICE: Final = Notice(
    "model_busy",
    ("当前提问的人较多，请稍后再试。", "The service is busy, please try again in a moment."),
)
_UNAVAILABLE: Final = Notice(
    "unavailable",
    ("服务暂时不可用，请稍后再试。", "The service is temporarily unavailable, please try again."),
)
_DIALOGUE_TOO_LONG: Final = Notice(
    "dialogue_too_long",
    ("对话太长了，请新建对话后再试。", "The conversation is too long, please start a new one."),
)
BAD_REQUEST: Final = Notice(
    "bad_request", ("服务无法处理这个请求。", "The service could not handle this request.")
)
_NOT_ALLOWED: Final = Notice(
    "not_allowed", ("服务的权限或额度不足。", "The service has no permission or quota left for this.")
)

_BY_ERROR: Final[tuple[tuple[type[ProxyError], Notice], ...]] = (
    (Draining, RESTARTING),
    (UpstreamTimeout, TIMED_OUT),
    (Unreachable, UNREACHABLE),
    (UpstreamForbidden, FORBIDDEN),
    (CredentialError, UNREACHABLE),
    (CircuitOpen, UNREACHABLE),
    (Overloaded, OVERLOADED),
    (RateLimited, OVERLOADED),
)
_BY_STATUS: Final = {
    400: BAD_REQUEST,
    402: _NOT_ALLOWED,
    403: _NOT_ALLOWED,
    404: BAD_REQUEST,
    408: TIMED_OUT,
    413: _DIALOGUE_TOO_LONG,
    422: BAD_REQUEST,
    429: _BUSY_SERVICE,
    504: TIMED_OUT,
}
_TOO_LONG_CODES: Final = ("context_length", "10907", "336007", "too_many_tokens")
_DAILY_LIMIT_CODES: Final = frozenset({"11201"})
_BY_FINISH_REASON: Final = {
    "sensitive": _UNSAFE,  # Zhipu
    "content_filter": _UNSAFE,
    "safety": _UNSAFE,
    "network_error": _UNAVAILABLE,  # Zhipu
    "insufficient_system_resource": _BUSY_SERVICE,  # DeepSeek
    "error": _UNAVAILABLE,
}
_ANSWER_MEMBERS: Final = frozenset({"choices", "data", "results", "result", "output", "embeddings"})


class Failure(msgspec.Struct, frozen=True):
    """The reason why an answer ends early.

    Args:
        notice: The text for the visitor.
        code: The vendor's code, for the log.
    """

    notice: Notice
    code: str | None


def explain(error: ProxyError) -> Notice:
    """Return the notice for a failed exchange."""
    return _explain_kind(type(error))


def _explain_kind(error: type[ProxyError]) -> Notice:
    return next((notice for kind, notice in _BY_ERROR if issubclass(error, kind)), CUT_OFF)


_BY_CODE: Final = {
    kind.code: _explain_kind(kind)
    for kind in (
        Aborted,
        BadResponse,
        CircuitOpen,
        Draining,
        Overloaded,
        TokenRejected,
        Unreachable,
        UpstreamForbidden,
        UpstreamTimeout,
    )
}
"""Errors of our own relay, which writes them into a stream that has begun."""


def find_failure(members: Members) -> Failure | None:
    """Return the error in a payload, which may also contain text if a safety check stops an answer."""
    if any(read_value(members.get(name)) is True for name in ("input_sensitive", "output_sensitive")):
        return Failure(_UNSAFE, UNSAFE)  # MiniMax
    others = {name: value for name, value in members.items() if name not in _ANSWER_MEMBERS}
    error = read_openai_error(others) or read_minimax_rejection(others) or read_vendor_error(others)
    return None if error is None else Failure(_explain_vendor_error(error), error.code)


def finish_failure(reason: str) -> Failure | None:
    """Return the failure that a `finish_reason` means, or None for a normal end."""
    notice = _BY_FINISH_REASON.get(reason.lower())
    if notice is None:
        return None
    return Failure(notice, UNSAFE if notice is _UNSAFE else reason)


def _explain_vendor_error(error: EmbeddedError) -> Notice:
    code = (error.code or "").lower()
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == UNSAFE or "filter" in code or "inspection" in code:
        return _UNSAFE
    if any(sign in code for sign in _TOO_LONG_CODES):
        return _DIALOGUE_TOO_LONG
    if code in _DAILY_LIMIT_CODES:
        return _NOT_ALLOWED
    return _BY_STATUS.get(error.status, _UNAVAILABLE)

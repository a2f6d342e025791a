"""What the chat itself says to a visitor, in Chinese and in English: no vendor's words, no ids (pure)."""

from typing import Final

from proxy.errors import (
    CredentialError,
    Draining,
    Overloaded,
    ProxyError,
    RateLimited,
    Unreachable,
    UpstreamForbidden,
    UpstreamTimeout,
)

BUSY: Final = (
    "上一个问题还在回答中，请等它结束，或先停止。"
    "An answer is still being written: wait for it, or stop it first."
)
TOO_LONG: Final = "问题太长，最多 {limit} 个字。The question is too long: {limit} characters at most."
NOTHING_TO_ANSWER: Final = "还没有可以重新回答的问题。There is no question yet to answer again."
SILENT: Final = "模型没有给出回答，请再试一次。The model gave no answer, please try again."
REFUSED: Final = (
    "模型拒绝了这次请求（状态码 {status}）。The model refused this request with the status {status}."
)
UNREACHABLE: Final = (
    "暂时连不上模型，请稍后再试。The model cannot be reached at the moment, please try again."
)
SLOW: Final = "模型长时间没有回应，请重试。The model took too long to answer, please try again."
CROWDED: Final = "当前提问的人较多，请稍后再试。Too many are asking at the moment, please try again."
CUT: Final = "回答中断了，请重试。The answer was cut off, please try again."
RESTARTING: Final = "服务正在重启，请稍后再问。The service is restarting, please ask again in a moment."
FORBIDDEN: Final = (
    "这个模型暂不可用，请联系管理员。This model is not available here: please tell the operator."
)
BROKEN: Final = "出了点问题，请重试。Something went wrong, please try again."
TOO_MANY: Final = "Too many requests!"
"""The article's own words."""

_MEANINGS: Final[tuple[tuple[type[ProxyError], str], ...]] = (
    (Draining, RESTARTING),
    (UpstreamTimeout, SLOW),
    (Unreachable, UNREACHABLE),
    (UpstreamForbidden, FORBIDDEN),
    (CredentialError, UNREACHABLE),
    (Overloaded, CROWDED),
    (RateLimited, CROWDED),
)


def explain(error: ProxyError) -> str:
    """What a failed exchange means to a visitor."""
    return next((words for kind, words in _MEANINGS if isinstance(error, kind)), CUT)

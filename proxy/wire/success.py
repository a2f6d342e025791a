"""How vendors write in a response that a request succeeded (pure)."""

from typing import Final

_CODES: Final = frozenset({"200", "20000"})
_WORDS: Final = frozenset(
    {"success", "succ", "succeeded", "successful", "ok", "成功", "操作成功", "请求成功", "调用成功"}
)
_CHARACTERS_MAX: Final = 64


def is_success(text: str) -> bool:
    """Whether a code, a status or a message only says that a request succeeded.

    No other digits do: Zhipu writes the code 1000 for a failed authentication, other vendors for success.
    """
    if len(text) > _CHARACTERS_MAX:
        return False
    said = text.strip(" .!。！").lower()
    return said in _WORDS or said in _CODES or (bool(said) and not said.strip("0"))

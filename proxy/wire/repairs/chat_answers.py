"""Repairs of whole chat answers, and of the usage of any."""

from collections.abc import Callable

import msgspec

from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    change_items,
    is_empty,
    is_null,
    open_list,
    open_object,
    read_value,
    write,
)

_Change = Callable[[Members], Members | None]
_PROMPT, _COMPLETION, _TOTAL = "prompt_tokens", "completion_tokens", "total_tokens"


def fill_content(answer: Members) -> Members | None:
    """An empty text for a message that has neither content nor tool calls."""
    return _change_messages(answer, _fill_message)


def index_answer_tool_calls(answer: Members) -> Members | None:
    """Every tool call with its place in the list as `index`; a lone call becomes a list."""
    return _change_messages(answer, _index_message)


def fill_usage(answer: Members, *, completion: bool) -> Members | None:
    """Numbers for usage that is absent or null: a total from its parts, else 0.

    Args:
        answer: One that succeeded; others are left alone.
        completion: Whether `completion_tokens` belongs to this kind of answer.
    """
    if is_null(answer.get("choices")) and is_null(answer.get("data")):
        return None
    written = answer.get("usage")
    usage = {} if is_null(written) else open_object(written)
    if usage is None:
        return None
    wanted = (_PROMPT, _COMPLETION, _TOTAL) if completion else (_PROMPT, _TOTAL)
    missing = [name for name in wanted if is_null(usage.get(name))]
    if not missing:
        return None
    parts = sum(_count(usage.get(name)) for name in (_PROMPT, _COMPLETION))
    filled = {name: write(parts if name == _TOTAL else 0) for name in missing}
    return {**answer, "usage": write({**usage, **filled})}


def listed_calls(written: msgspec.Raw | None) -> tuple[list[msgspec.Raw], bool]:
    """The tool calls, and whether they stood without a list."""
    if open_object(written) is not None and written is not None:
        return [written], True
    return open_list(written) or [], False


def has_index(call: Members) -> bool:
    """Whether a tool call says where it belongs."""
    return bytes(call.get("index", NULL))[:1].isdigit()


def _change_messages(answer: Members, change: _Change) -> Members | None:
    choices = change_items(answer.get("choices"), lambda choice: _change_message(choice, change))
    return None if choices is None else {**answer, "choices": choices}


def _change_message(choice: Members, change: _Change) -> Members | None:
    message = open_object(choice.get("message"))
    new = None if message is None else change(message)
    return None if new is None else {**choice, "message": write(new)}


def _fill_message(message: Members) -> Members | None:
    if not is_null(message.get("content")):
        return None
    if not (is_empty(message.get("tool_calls")) and is_empty(message.get("function_call"))):
        return None  # null is right beside a call
    return {**message, "content": write("")}


def _index_message(message: Members) -> Members | None:
    calls, alone = listed_calls(message.get("tool_calls"))
    changed = alone
    for place, written in enumerate(calls):
        call = open_object(written)
        if call is not None and not has_index(call):
            calls[place] = write({**call, "index": write(place)})
            changed = True
    return {**message, "tool_calls": write(calls)} if changed else None


def _count(written: msgspec.Raw | None) -> int:
    count = read_value(written)
    return count if isinstance(count, int) and not isinstance(count, bool) else 0

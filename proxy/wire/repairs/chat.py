"""Repairs of chat answers and completions: whole answers, and the chunks of streams.

A whole answer holds `choices[].message`, a chunk `choices[].delta`. Both are called a message here.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.registry import CLIENTS, Repair, StreamState
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    change_items,
    first_byte,
    is_empty,
    is_null,
    is_text,
    open_list,
    open_object,
    read_value,
    write,
)
from proxy.wire.repairs.tool_calls import PartChange, ToolCall, ToolCalls, read_index
from proxy.wire.repairs.vendor_errors import read_vendor_error

_FIRST: Final = msgspec.Raw(b"0")
_CHOICES_MAX: Final = 64
"""How many choices of one stream have their tool calls remembered."""

_Change = Callable[[Members], Members | None]


# --- messages


FILL_MESSAGE: Final = Repair(
    "fill_message",
    "Writes the message of a choice that stands under `delta` or `text`.",
    clients=("RAGFlow", "Dify", "LangChain", "all that read `message` unasked"),
    sets=CLIENTS,
)


@FILL_MESSAGE.on_answers(Shape.CHAT)
def fill_message(answer: Members, _: Call) -> Members | None:
    """Write the message that a choice lacks, if it stands elsewhere."""
    return _change_choices(answer, lambda choice: _move(choice, "message", ("delta", "text")))


FILL_DELTA: Final = Repair(
    "fill_delta",
    "Writes the delta of a chunk that is null, absent, or stands under `message` or `text`.",
    clients=("RAGFlow", "Dify"),
    sets=("ragflow", "dify", "open_webui", "llamaindex"),
)


@FILL_DELTA.on_chunks(Shape.CHAT)
def fill_delta(chunk: Members, _: StreamState) -> list[Members] | None:
    """Write the delta that a choice lacks, empty if there is none anywhere."""

    def fill(choice: Members) -> Members | None:
        moved = _move(choice, "delta", ("message", "text"))
        if moved is None and open_object(choice.get("delta")) is None:
            moved = {**choice, "delta": write({})}
        return moved

    return _one(_change_choices(chunk, fill))


def _move(choice: Members, name: str, others: tuple[str, str]) -> Members | None:
    """Write a message from where it stands instead; None if there is nothing to move."""
    if open_object(choice.get(name)) is not None:
        return None
    message, text = (choice.get(other) for other in others)
    kept = {key: value for key, value in choice.items() if key not in others}
    if message is not None and open_object(message) is not None:
        return {**kept, name: message}
    return {**kept, name: write({"content": text})} if first_byte(text) == b'"' else None


FLAT_CONTENT: Final = Repair(
    "flat_content",
    "Writes content that is a list of parts or an object as one text.",
    clients=("RAGFlow", "Dify", "FastGPT", "Continue"),
    sets=CLIENTS,
)


@FLAT_CONTENT.on_answers(Shape.CHAT)
def flat_answer_content(answer: Members, _: Call) -> Members | None:
    """Write the content of each message as a text."""
    return _change_messages(answer, "message", _flatten)


@FLAT_CONTENT.on_chunks(Shape.CHAT)
def flat_chunk_content(chunk: Members, _: StreamState) -> list[Members] | None:
    """Write the content of each delta as a text."""
    return _one(_change_messages(chunk, "delta", _flatten))


def _flatten(message: Members) -> Members | None:
    written = message.get("content")
    if first_byte(written) not in {b"[", b"{"}:
        return None
    content = read_value(written)
    parts = content if isinstance(content, list) else [content]
    text = "".join(_text_of(part, "text", "content") for part in parts)
    thinking = "".join(_text_of(part, "thinking") for part in parts)
    flat = {**message, "content": write(text)}
    if thinking and not is_text(message.get("reasoning_content")):
        flat["reasoning_content"] = write(thinking)
    return flat


def _text_of(part: object, *names: str) -> str:
    """Return the text of a part, `{"type": "text", "text": "..."}`; Mistral nests thoughts a level deeper."""
    if isinstance(part, dict):
        found = next((part[name] for name in names if name in part), None)
        inner = found if isinstance(found, list) else [found]
        return "".join(_text_of(each, "text") if isinstance(each, dict) else _plain(each) for each in inner)
    return _plain(part) if "text" in names else ""


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, bool | dict | list) else str(value)


# --- tool calls


FUNCTION_CALL: Final = Repair(
    "function_call_as_tool_call",
    "Writes a `function_call` as a tool call, if the request has `tools`.",
    clients=("RAGFlow, tools", "Dify, tools"),
    sets=CLIENTS,
)


@FUNCTION_CALL.on_answers(Shape.CHAT)
def answer_function_call(answer: Members, call: Call) -> Members | None:
    """Write the function call of a message as a tool call."""
    return _change_choices(answer, lambda choice: _as_tool_call(choice, "message")) if call.tools else None


@FUNCTION_CALL.on_chunks(Shape.CHAT)
def chunk_function_call(chunk: Members, state: StreamState) -> list[Members] | None:
    """Write the function call of a delta as a tool call."""
    if not state.call.tools:
        return None
    return _one(_change_choices(chunk, lambda choice: _as_tool_call(choice, "delta")))


def _as_tool_call(choice: Members, name: str) -> Members | None:
    message = open_object(choice.get(name))
    if message is None or not is_empty(message.get("tool_calls")):
        return None
    reason = choice.get("finish_reason")
    changed = dict(choice)
    if reason is not None and bytes(reason) == b'"function_call"':
        changed["finish_reason"] = write("tool_calls")
    function = message.get("function_call")
    if open_object(function):
        kept = {key: value for key, value in message.items() if key not in {"function_call", "tool_calls"}}
        call = {"index": 0, "type": "function", "function": function}
        changed[name] = write({**kept, "tool_calls": [call]})
    return changed if changed != choice else None


INDEX_TOOL_CALLS: Final = Repair(
    "index_tool_calls",
    "Gives each tool call an index of its own, and puts a tool call without a list into one.",
    clients=(
        "RAGFlow (streams; up to v0.24 whole answers too)",
        "Dify",
        "Open WebUI 0.12.4",
        "LlamaIndex (llms-openai 0.8.3)",
    ),
    sets=("ragflow", "dify", "open_webui", "llamaindex"),
)


@INDEX_TOOL_CALLS.on_answers(Shape.CHAT)
def index_answer_tool_calls(answer: Members, _: Call) -> Members | None:
    """Write the position of each tool call as its index."""
    return _change_messages(answer, "message", _index_calls)


def _index_calls(message: Members) -> Members | None:
    calls, changed = _listed(message.get("tool_calls"))
    for position, written in enumerate(calls):
        call = open_object(written)
        if call is not None and read_index(call) is None:
            calls[position] = write({**call, "index": position})
            changed = True
    return {**message, "tool_calls": write(calls)} if changed else None


@INDEX_TOOL_CALLS.on_chunks(Shape.CHAT)
def index_chunk_tool_calls(chunk: Members, state: StreamState) -> list[Members] | None:
    """Write an index into each part of a tool call."""
    return _one(_change_calls(chunk, state, "index", lambda part, call, _: _write_index(part, call)))


def _write_index(part: Members, call: ToolCall) -> Members | None:
    return None if read_index(part) == call.index else {**part, "index": write(call.index)}


FILL_TOOL_CALLS: Final = Repair(
    "fill_tool_calls",
    "Writes the id and the type that tool calls lack, and takes null members out of their later parts.",
    clients=("RAGFlow, which sends the id back to the upstream", "Dify, which rejects null members"),
    sets=CLIENTS,
)


@FILL_TOOL_CALLS.on_answers(Shape.CHAT)
def fill_answer_tool_calls(answer: Members, _: Call) -> Members | None:
    """Write the id and the type of each tool call."""
    return _change_messages(answer, "message", lambda message: _fill_calls(answer, message))


def _fill_calls(answer: Members, message: Members) -> Members | None:
    calls, changed = _listed(message.get("tool_calls"))
    for position, written in enumerate(calls):
        call = open_object(written)
        if call is not None and not (is_text(call.get("id")) and is_text(call.get("type"))):
            calls[position] = write(_named(call, answer, position))
            changed = True
    return {**message, "tool_calls": write(calls)} if changed else None


def _named(call: Members, answer: Members, position: object) -> Members:
    """Write an id, which has to be unique in one conversation, and a type."""
    answer_id = read_value(answer.get("id"))
    made = f"call_{answer_id if isinstance(answer_id, str) else ''}_{position}"
    named = dict(call)
    if not is_text(call.get("id")):
        named["id"] = write(made)
    if not is_text(call.get("type")):
        named["type"] = write("function")
    return named


@FILL_TOOL_CALLS.on_chunks(Shape.CHAT)
def fill_chunk_tool_calls(chunk: Members, state: StreamState) -> list[Members] | None:
    """Write the id and the type of each tool call that begins, and drop null members of those that go on."""

    def fill(part: Members, call: ToolCall, begins: bool) -> Members | None:  # noqa: FBT001
        filled = _named(part, chunk, call.index) if begins else _without_nulls(part)
        function = open_object(filled.get("function"))
        if function is None:
            filled["function"] = write({"arguments": ""})
        elif not begins and "name" in function and bytes(function["name"]) in {b"null", call.name}:
            filled["function"] = write({key: one for key, one in function.items() if key != "name"})
        if begins and function is not None and is_text(function.get("name")):
            call.name = bytes(function["name"])
        return filled if filled != part else None

    return _one(_change_calls(chunk, state, "fill", fill))


def _without_nulls(part: Members) -> Members:
    return {name: value for name, value in part.items() if not is_null(value)}


TEXT_ARGUMENTS: Final = Repair(
    "text_arguments",
    "Writes the arguments of a tool call that are an object, null or left out as JSON text.",
    clients=("RAGFlow, tools", "Dify, tools", "all that parse the arguments as text"),
    sets=CLIENTS,
)


@TEXT_ARGUMENTS.on_answers(Shape.CHAT)
def text_answer_arguments(answer: Members, _: Call) -> Members | None:
    """Write the arguments of each tool call as text."""
    return _change_messages(answer, "message", _write_arguments)


def _write_arguments(message: Members) -> Members | None:
    calls = change_items(message.get("tool_calls"), lambda call: _change_function(call, _whole_arguments))
    changed = {} if calls is None else {"tool_calls": calls}
    function = open_object(message.get("function_call"))
    new = _whole_arguments(function) if function else None
    if new is not None:
        changed["function_call"] = write(new)
    return {**message, **changed} if changed else None


def _whole_arguments(function: Members) -> Members | None:
    if is_text(function.get("arguments")):
        return None
    written = function.get("arguments")
    return {**function, "arguments": write("{}" if is_empty(written) else _json_text(written))}


@TEXT_ARGUMENTS.on_chunks(Shape.CHAT)
def text_chunk_arguments(chunk: Members, state: StreamState) -> list[Members] | None:
    """Write arguments as text, and `{}` for calls that end without any."""
    new = _change_calls(chunk, state, "arguments", _part_arguments)
    current = chunk if new is None else new
    choices = _choices(current)
    ends = [_end_calls(choice, state) for choice in choices]
    if not any(ends):
        return _one(new)
    last = {**current, "choices": write([end for end in ends if end is not None])}
    before = [
        choice if end is None else {**choice, "finish_reason": NULL}
        for choice, end in zip(choices, ends, strict=True)
        if end is None or not is_empty(choice.get("delta"))
    ]
    if not before:
        return [last]
    usage = {"usage": NULL} if "usage" in current else {}
    return [{**current, **usage, "choices": write(before)}, last]


def _part_arguments(part: Members, call: ToolCall, _: bool) -> Members | None:  # noqa: FBT001
    function = open_object(part.get("function"))
    written = None if function is None else function.get("arguments")
    if function is None or written is None:
        return None
    is_string = first_byte(written) == b'"'
    text = "" if is_string or is_null(written) else _json_text(written)
    call.has_arguments = call.has_arguments or bool(text) or is_text(written)
    return None if is_string else {**part, "function": write({**function, "arguments": text})}


def _end_calls(choice: Members, state: StreamState) -> Members | None:
    """Write a choice that gives `{}` to each tool call without arguments, if the choice ends here."""
    calls = state.tool_calls.get(("arguments", bytes(choice.get("index", _FIRST))))
    if calls is None or not is_text(choice.get("finish_reason")):
        return None
    bare = [call for call in calls.calls if not call.has_arguments]
    if not bare:
        return None
    for call in bare:
        call.has_arguments = True
    parts = [
        {
            "index": call.index,
            **({"id": msgspec.Raw(call.id)} if call.id else {}),
            "function": {"arguments": "{}"},
        }
        for call in bare
    ]
    return {**choice, "delta": write({"tool_calls": parts})}


def _json_text(written: bytes | None) -> str:
    return "" if written is None else bytes(written).decode("utf-8", "replace")


def _change_function(call: Members, change: _Change) -> Members | None:
    new = change(open_object(call.get("function")) or {})
    return None if new is None else {**call, "function": write(new)}


def _listed(written: msgspec.Raw | None) -> tuple[list[msgspec.Raw], bool]:
    """Return the tool calls, and whether they were one call without a list."""
    if written is not None and open_object(written) is not None:
        return [written], True
    return open_list(written) or [], False


def _change_calls(chunk: Members, state: StreamState, purpose: str, change: PartChange) -> Members | None:
    """Change the parts of tool calls in a chunk.

    Args:
        chunk: The chunk.
        state: Of the stream.
        purpose: Each repair remembers the tool calls for itself, as it sees them after the repairs before it.
        change: Given a part, its call, and whether the call begins with it, returns the new part or None.
    """

    def change_choice(choice: Members) -> Members | None:
        delta = open_object(choice.get("delta"))
        if delta is None or is_null(delta.get("tool_calls")):
            return None
        parts, changed = _listed(delta["tool_calls"])
        key = (purpose, bytes(choice.get("index", _FIRST)))
        calls = state.tool_calls.get(key)
        if calls is None:
            if len(state.tool_calls) >= _CHOICES_MAX:
                state.tool_calls.clear()
            calls = state.tool_calls[key] = ToolCalls()
        for position, written in enumerate(parts):
            part = open_object(written)
            new = None if part is None else change(part, *calls.find(part))
            if new is not None:
                parts[position], changed = write(new), True
        return {**choice, "delta": write({**delta, "tool_calls": parts})} if changed else None

    return _change_choices(chunk, change_choice)


# --- the end of a choice


FILL_CONTENT: Final = Repair(
    "fill_content",
    "Writes an empty text where a message without tool calls has null or no content.",
    clients=("RAGFlow, tools and vision", "Dify"),
    sets=("ragflow", "dify"),
)


@FILL_CONTENT.on_answers(Shape.CHAT)
def fill_content(answer: Members, _: Call) -> Members | None:
    """Write an empty text into messages that have neither content nor tool calls."""
    return _change_messages(answer, "message", _fill_content)


def _fill_content(message: Members) -> Members | None:
    if not is_null(message.get("content")):
        return None
    if not (is_empty(message.get("tool_calls")) and is_empty(message.get("function_call"))):
        return None  # null is right beside a call
    return {**message, "content": write("")}


FILL_FINISH: Final = Repair(
    "fill_finish",
    "Writes the finish_reason that a whole answer lacks.",
    clients=("RAGFlow", "LangChain"),
    sets=CLIENTS,
)


@FILL_FINISH.on_answers(Shape.CHAT, Shape.COMPLETION)
def fill_finish(answer: Members, _: Call) -> Members | None:
    """Write the finish_reason that a choice lacks: `tool_calls` if it has some, else `stop`."""
    return _change_choices(answer, _finish)


def _finish(choice: Members) -> Members | None:
    if is_text(choice.get("finish_reason")):
        return None
    calls = is_empty((open_object(choice.get("message")) or {}).get("tool_calls"))
    return {**choice, "finish_reason": write("stop" if calls else "tool_calls")}


SPLIT_FINISH: Final = Repair(
    "split_finish",
    "Splits a chunk with both content and a finish_reason into two.",
    clients=("RAGFlow, vision", "Continue, which holds back chunks with usage"),
    sets=("ragflow", "continue"),
)


@SPLIT_FINISH.on_chunks(Shape.CHAT)
def split_finish(chunk: Members, _: StreamState) -> list[Members] | None:
    """Return the content first, then the finish_reason with the usage."""
    content = change_items(chunk.get("choices"), _without_finish)
    if content is None:
        return None
    ended = [_finish_alone(choice) for choice in _choices(chunk) if _without_finish(choice) is not None]
    first = {**chunk, "choices": content}
    if "usage" in chunk:
        first["usage"] = NULL
    return [first, {**chunk, "choices": write(ended)}]


def _without_finish(choice: Members) -> Members | None:
    delta = open_object(choice.get("delta"))
    if delta is None or not is_text(delta.get("content")) or not is_text(choice.get("finish_reason")):
        return None
    return {**choice, "finish_reason": NULL}


def _finish_alone(choice: Members) -> Members:
    end = {**choice, "delta": write({})}
    if "logprobs" in choice:
        end["logprobs"] = NULL  # they belong to the content
    return end


# --- usage


FILL_USAGE: Final = Repair(
    "fill_usage",
    "Writes whole numbers where the usage is absent, null, text or named otherwise.",
    clients=("RAGFlow, embeddings and vision", "Dify", "Cherry Studio, embeddings"),
    sets=("ragflow", "dify", "cherry_studio"),
)
_PROMPT, _COMPLETION, _TOTAL = "prompt_tokens", "completion_tokens", "total_tokens"
USAGE_OF_CHAT: Final = (_PROMPT, _COMPLETION, _TOTAL)
USAGE_OF_EMBEDDINGS: Final = (_PROMPT, _TOTAL)
_OTHER_NAMES: Final = {_PROMPT: "input_tokens", _COMPLETION: "output_tokens"}


@FILL_USAGE.on_answers(Shape.CHAT, Shape.COMPLETION)
def fill_answer_usage(answer: Members, _: Call) -> Members | None:
    """Write the usage that a whole answer lacks."""
    if is_null(answer.get("choices")):
        return None
    return fill_usage(answer, USAGE_OF_CHAT)


@FILL_USAGE.on_chunks(Shape.CHAT, Shape.COMPLETION)
def fill_chunk_usage(chunk: Members, _: StreamState) -> list[Members] | None:
    """Correct the numbers of a usage that a chunk holds."""
    if not open_object(chunk.get("usage")):
        return None
    return _one(fill_usage(chunk, USAGE_OF_CHAT))


def fill_usage(answer: Members, names: Sequence[str]) -> Members | None:
    """Write whole numbers for these names: from what is there, and the total as the sum of its parts."""
    written = answer.get("usage")
    usage = open_object(written) or {}
    counts = {name: _count(usage.get(name)) for name in names}
    if all(count is not None and _is_count(usage[name]) for name, count in counts.items()):
        return None
    for name, other in _OTHER_NAMES.items():
        if name in counts and counts[name] is None:
            counts[name] = _count(usage.get(other))
    parts = (counts.get(_PROMPT) or 0) + (counts.get(_COMPLETION) or 0)
    filled = {
        name: usage[name]
        if name in usage and _is_count(usage[name])
        else write(parts if name == _TOTAL and count is None else count or 0)
        for name, count in counts.items()
    }
    return {**answer, "usage": write({**usage, **filled})}


def _is_count(written: msgspec.Raw) -> bool:
    return bytes(written).isdigit()


def _count(written: msgspec.Raw | None) -> int | None:
    """Return a number of tokens, also from text or a fraction; None if there is none."""
    value = read_value(written)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1 << 53 else None


USAGE_ONCE: Final = Repair(
    "usage_once",
    "Leaves usage on the last chunk alone, where an upstream writes it on every chunk.",
    clients=("RAGFlow, which adds them up", "Continue, which loses the text beside it"),
    sets=("ragflow", "continue"),
)


@USAGE_ONCE.on_chunks(Shape.CHAT, Shape.COMPLETION)
def usage_once(chunk: Members, state: StreamState) -> list[Members] | None:
    """Take usage out of every chunk but the last.

    If no later chunk carries usage, the stream ends with a chunk that does, provided that the caller asked.
    """
    if open_object(chunk.get("usage")) is None:
        return None
    choices = _choices(chunk)
    if not choices or any(is_text(choice.get("finish_reason")) for choice in choices):
        state.withheld_usage = None
        return None
    if state.call.usage_asked:
        state.withheld_usage = {**chunk, "choices": write([])}
    return [{**chunk, "usage": NULL}]


DROP_UNASKED_CHUNKS: Final = Repair(
    "drop_unasked_chunks",
    "Drops chunks without choices, such as pings, except for the usage that the client asked for.",
    clients=("RAGFlow, vision", "Dify"),
    sets=("ragflow", "dify"),
)


@DROP_UNASKED_CHUNKS.on_chunks(Shape.CHAT, Shape.COMPLETION)
def drop_unasked_chunks(chunk: Members, state: StreamState) -> list[Members] | None:
    """Drop a chunk without choices, unless it is an error or holds the usage that the caller asked for."""
    choices = chunk.get("choices")
    if not (is_null(choices) or open_list(choices) == []):
        return None
    if not is_null(chunk.get("error")) or read_vendor_error(chunk) is not None:
        return None
    if state.call.usage_asked and not is_null(choices):
        return None
    has_usage = state.call.usage_asked and open_object(chunk.get("usage")) is not None
    return [{**chunk, "choices": write([])}] if has_usage else []


# --- choices


def _one(chunk: Members | None) -> list[Members] | None:
    return None if chunk is None else [chunk]


def _choices(chunk: Members) -> list[Members]:
    return [
        choice
        for written in open_list(chunk.get("choices")) or ()
        if (choice := open_object(written)) is not None
    ]


def _change_choices(answer: Members, change: _Change) -> Members | None:
    choices = change_items(answer.get("choices"), change)
    return None if choices is None else {**answer, "choices": choices}


def _change_messages(answer: Members, name: str, change: _Change) -> Members | None:
    """Change the message or the delta of each choice."""

    def change_choice(choice: Members) -> Members | None:
        message = open_object(choice.get(name))
        new = None if message is None else change(message)
        return None if new is None else {**choice, name: write(new)}

    return _change_choices(answer, change_choice)

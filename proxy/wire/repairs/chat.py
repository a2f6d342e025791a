"""Repairs of chat completions and completions: whole responses, and the chunks of streams.

A whole response holds `choices[].message`, a chunk `choices[].delta`. Both are called a message here.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.deltas import ValueJoiner, Values
from proxy.wire.repairs.repair import CLIENTS, Repair, StreamState, on_chunks, on_responses
from proxy.wire.repairs.shallow_json import (
    ITEMS_MAX,
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
from proxy.wire.repairs.tool_calls import (
    PartChange,
    ToolCall,
    ToolCalls,
    calls_function,
    fingerprint,
    is_whole,
    read_index,
)

_FIRST: Final = msgspec.Raw(b"0")
_CHOICES_MAX: Final = 64
"""How many choices of one stream have their tool calls tracked."""

_Change = Callable[[Members], Members | None]


# --- messages


@on_responses(Shape.CHAT)
def fill_message(response: Members, _: Call) -> Members | None:
    """Add the message to each choice that holds it under another name."""
    return change_items(response, "choices", lambda choice: _move(choice, "message", ("delta", "text")))


FILL_MESSAGE: Final = Repair(
    "fill_message",
    "Adds the `message` to a choice that holds it under `delta` or `text`.",
    fill_message,
    clients=("RAGFlow", "Dify", "LangChain", "all that read `message` without a check"),
    sets=CLIENTS,
)


@on_chunks(Shape.CHAT)
def fill_delta(chunk: Members, _: StreamState) -> Members | None:
    """Add a delta to each choice without one; it is empty if the choice holds none under another name."""

    def fill(choice: Members) -> Members | None:
        moved = _move(choice, "delta", ("message", "text"))
        if moved is None and open_object(choice.get("delta")) is None:
            moved = {**choice, "delta": write({})}
        return moved

    return change_items(chunk, "choices", fill)


FILL_DELTA: Final = Repair(
    "fill_delta",
    "Adds a `delta` to a chunk that lacks it, from `message` or `text` if one of them is there.",
    fill_delta,
    clients=("RAGFlow", "Dify"),
    sets=("ragflow", "dify", "open_webui", "llamaindex"),
)


def _move(choice: Members, name: str, others: tuple[str, str]) -> Members | None:
    """Move a message to `name` from one of the other members; None if there is nothing to move."""
    if open_object(choice.get(name)) is not None:
        return None
    message, text = (choice.get(other) for other in others)
    kept = {key: value for key, value in choice.items() if key not in others}
    if message is not None and open_object(message) is not None:
        return {**kept, name: message}
    return {**kept, name: write({"content": text})} if first_byte(text) == b'"' else None


@on_responses(Shape.CHAT)
def flat_response_content(response: Members, _: Call) -> Members | None:
    """Write the content of each message as one string."""
    return _change_messages(response, "message", _flatten)


@on_chunks(Shape.CHAT)
def flat_chunk_content(chunk: Members, _: StreamState) -> Members | None:
    """Write the content of each delta as one string."""
    return _change_messages(chunk, "delta", _flatten)


FLAT_CONTENT: Final = Repair(
    "flat_content",
    "Joins content that is a list of parts or an object into one string, unless it holds more than texts.",
    flat_response_content,
    flat_chunk_content,
    clients=("RAGFlow", "Dify", "FastGPT", "Continue"),
    sets=CLIENTS,
)


def _flatten(message: Members) -> Members | None:
    """Write the texts in the content as one; None if it is a text, or holds something that would be lost."""
    written = message.get("content")
    if written is None or first_byte(written) not in {b"[", b"{"}:
        return None
    joiner, values = ValueJoiner(ITEMS_MAX), Values()
    if not joiner.gather_texts(values, written):
        return None
    texts = joiner.join_members(values)
    added = {
        name: text for name, text in texts.items() if name != "content" and not is_text(message.get(name))
    }
    return {**message, "content": texts.get("content", write("")), **added}


# --- tool calls


@on_responses(Shape.CHAT)
def response_function_call(response: Members, call: Call) -> Members | None:
    """Write the function call of a message as a tool call."""
    if not call.tools:
        return None
    return change_items(response, "choices", lambda choice: _as_tool_call(choice, "message"))


@on_chunks(Shape.CHAT)
def chunk_function_call(chunk: Members, state: StreamState) -> Members | None:
    """Write the function call of a delta as a tool call."""
    if not state.call.tools:
        return None
    return change_items(chunk, "choices", lambda choice: _as_tool_call(choice, "delta"))


FUNCTION_CALL: Final = Repair(
    "function_call_as_tool_call",
    "Converts a `function_call` into a tool call if the request has `tools`.",
    response_function_call,
    chunk_function_call,
    clients=("RAGFlow, with tools", "Dify, with tools"),
    sets=CLIENTS,
)


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


@on_responses(Shape.CHAT)
def index_response_tool_calls(response: Members, _: Call) -> Members | None:
    """Give each tool call its position as index."""

    def add_index(call: Members, position: int) -> Members | None:
        index = read_index(call)
        return _with_index(call, position if index is None else index)

    return _change_messages(response, "message", lambda message: _change_calls(message, add_index))


@on_chunks(Shape.CHAT)
def index_chunk_tool_calls(chunk: Members, state: StreamState) -> Members | None:
    """Give each part of a tool call the index of the call."""

    def add_index(part: Members, call: ToolCall, _: bool) -> Members | None:  # noqa: FBT001
        return _with_index(part, call.index)

    return _change_parts(chunk, state, "index", add_index)


def _with_index(call: Members, index: int) -> Members | None:
    """Write the index of a tool call as a whole number; None if it is."""
    written = write(index)
    return None if call.get("index") == written else {**call, "index": written}


INDEX_TOOL_CALLS: Final = Repair(
    "index_tool_calls",
    "Gives each tool call its own index, and wraps a single tool call into a list.",
    index_response_tool_calls,
    index_chunk_tool_calls,
    clients=(
        "RAGFlow (streams; up to v0.24 also whole responses)",
        "Dify",
        "Open WebUI 0.12.4",
        "LlamaIndex (llms-openai 0.8.3)",
    ),
    sets=("ragflow", "dify", "open_webui", "llamaindex"),
)


@on_responses(Shape.CHAT)
def fill_response_tool_calls(response: Members, _: Call) -> Members | None:
    """Add the id and the type that a tool call lacks."""

    def fill(call: Members, position: int) -> Members | None:
        filled = _identify(call, response, position)
        return filled if filled != call else None

    return _change_messages(response, "message", lambda message: _change_calls(message, fill))


def _identify(call: Members, response: Members, position: int) -> Members:
    """Add an id, which has to be unique in one conversation, and a type."""
    response_id = read_value(response.get("id"))
    filled = dict(call)
    if not is_text(call.get("id")):
        filled["id"] = write(f"call_{response_id if isinstance(response_id, str) else ''}_{position}")
    if not is_text(call.get("type")):
        filled["type"] = write("function" if calls_function(call) else "custom")
    return filled


@on_chunks(Shape.CHAT)
def fill_chunk_tool_calls(chunk: Members, state: StreamState) -> Members | None:
    """Add id and type to the first part of each tool call, and drop null members of the later parts."""

    def fill(part: Members, call: ToolCall, begins: bool) -> Members | None:  # noqa: FBT001
        filled = _identify(part, chunk, call.index) if begins else _without_nulls(part)
        function = open_object(filled.get("function"))
        if not call.is_function:
            return filled if filled != part else None
        if function is None:
            filled["function"] = write({"arguments": ""})
        elif not begins and "name" in function and fingerprint(function["name"]) in {b"null", call.name}:
            filled["function"] = write({key: one for key, one in function.items() if key != "name"})
        return filled if filled != part else None

    return _change_parts(chunk, state, "fill", fill)


FILL_TOOL_CALLS: Final = Repair(
    "fill_tool_calls",
    "Adds missing ids and types to tool calls, and drops null members from their later parts.",
    fill_response_tool_calls,
    fill_chunk_tool_calls,
    clients=("RAGFlow, which sends the id back to the upstream", "Dify, which rejects null members"),
    sets=CLIENTS,
)


def _without_nulls(part: Members) -> Members:
    return {name: value for name, value in part.items() if not is_null(value)}


@on_responses(Shape.CHAT)
def text_response_arguments(response: Members, _: Call) -> Members | None:
    """Write the arguments of each tool call as a string."""
    return _change_messages(response, "message", _write_arguments)


def _write_arguments(message: Members) -> Members | None:
    changed = change_items(message, "tool_calls", _write_call_arguments)
    function = open_object(message.get("function_call"))
    new = _whole_arguments(function) if function else None
    return changed if new is None else {**(changed or message), "function_call": write(new)}


def _write_call_arguments(call: Members) -> Members | None:
    if not calls_function(call):
        return None
    new = _whole_arguments(open_object(call.get("function")) or {})
    return None if new is None else {**call, "function": write(new)}


def _whole_arguments(function: Members) -> Members | None:
    if is_text(function.get("arguments")):
        return None
    written = function.get("arguments")
    return {**function, "arguments": write("{}" if is_empty(written) else _json_text(written))}


@on_chunks(Shape.CHAT)
def text_chunk_arguments(chunk: Members, state: StreamState) -> Members | list[Members] | None:
    """Write arguments as a string, and add `{}` to calls that end without arguments."""
    new = _change_parts(chunk, state, "arguments", _part_arguments)
    current = chunk if new is None else new
    choices = open_choices(current)
    ends = [_end_calls(choice, state) for choice in choices]
    if not any(ends):
        return new
    last = {**current, "choices": write([end for end in ends if end is not None])}
    before = [
        choice if end is None else {**choice, "finish_reason": NULL}
        for choice, end in zip(choices, ends, strict=True)
        if end is None or not is_empty(choice.get("delta"))
    ]
    if not before:
        return last
    usage = {"usage": NULL} if "usage" in current else {}
    return [{**current, **usage, "choices": write(before)}, last]


TEXT_ARGUMENTS: Final = Repair(
    "text_arguments",
    "Writes the arguments of a tool call as JSON text if they are an object, null or missing.",
    text_response_arguments,
    text_chunk_arguments,
    clients=("RAGFlow, with tools", "Dify, with tools", "all that parse the arguments as text"),
    sets=CLIENTS,
)


def _part_arguments(part: Members, _call: ToolCall, _: bool) -> Members | None:  # noqa: FBT001
    function = open_object(part.get("function"))
    written = None if function is None else function.get("arguments")
    if function is None or written is None:
        return None
    if first_byte(written) == b'"':
        return None
    text = "" if is_null(written) else _json_text(written)
    return {**part, "function": write({**function, "arguments": text})}


def _end_calls(choice: Members, state: StreamState) -> Members | None:
    """Return a last choice with `{}` for each tool call without arguments; None if none is needed."""
    calls = state.tool_calls.get(("arguments", fingerprint(choice.get("index", _FIRST))))
    if calls is None or not is_text(choice.get("finish_reason")):
        return None
    bare = [call for call in calls.calls if call.is_function and not call.has_arguments]
    if not bare:
        return None
    for call in bare:
        call.has_arguments = True
    parts = [
        {
            "index": call.index,
            **({"id": msgspec.Raw(call.id)} if call.id and is_whole(call.id) else {}),
            "function": {"arguments": "{}"},
        }
        for call in bare
    ]
    return {**choice, "delta": write({"tool_calls": parts})}


def _json_text(written: bytes | None) -> str:
    return "" if written is None else bytes(written).decode("utf-8", "replace")


def _change_calls(message: Members, change: Callable[[Members, int], Members | None]) -> Members | None:
    """Change the tool calls of a message, and wrap a single call without a list into one."""
    written = message.get("tool_calls")
    changed = written is not None and open_object(written) is not None
    calls = [written] if changed else open_list(written) or []
    for position, each in enumerate(calls):
        call = open_object(each)
        new = None if call is None else change(call, position)
        if new is not None:
            calls[position], changed = write(new), True
    return {**message, "tool_calls": write(calls)} if changed else None


def _change_parts(chunk: Members, state: StreamState, repair: str, change: PartChange) -> Members | None:
    """Change the parts of tool calls in a chunk.

    Args:
        state: The state of the stream.
        repair: The repair. Each repair tracks the calls separately, because it sees the parts as the repairs
            before it have changed them.
        change: Returns the new part, or None to keep it.
    """

    def change_choice(choice: Members) -> Members | None:
        delta = open_object(choice.get("delta"))
        if delta is None or is_null(delta.get("tool_calls")):
            return None
        key = (repair, fingerprint(choice.get("index", _FIRST)))
        if key not in state.tool_calls:
            if len(state.tool_calls) >= _CHOICES_MAX:
                state.tool_calls.clear()
            state.tool_calls[key] = ToolCalls()
        calls = state.tool_calls[key]
        new = _change_calls(delta, lambda part, _: change(part, *calls.find(part)))
        return None if new is None else {**choice, "delta": write(new)}

    return change_items(chunk, "choices", change_choice)


# --- the end of a choice


@on_responses(Shape.CHAT)
def fill_content(response: Members, _: Call) -> Members | None:
    """Write an empty string into messages that have neither content nor tool calls."""
    return _change_messages(response, "message", _fill_content)


FILL_CONTENT: Final = Repair(
    "fill_content",
    "Writes an empty string as the content of a message that has neither content nor tool calls.",
    fill_content,
    clients=("RAGFlow, with tools and vision", "Dify"),
    sets=("ragflow", "dify"),
)


def _fill_content(message: Members) -> Members | None:
    if not is_null(message.get("content")):
        return None
    if not (is_empty(message.get("tool_calls")) and is_empty(message.get("function_call"))):
        return None  # Null is correct next to a tool call.
    return {**message, "content": write("")}


@on_responses(Shape.CHAT, Shape.COMPLETION)
def fill_finish(response: Members, _: Call) -> Members | None:
    """Add the finish_reason that a choice lacks: `tool_calls` if it has tool calls, otherwise `stop`."""
    return change_items(response, "choices", _finish)


FILL_FINISH: Final = Repair(
    "fill_finish",
    "Adds a missing finish_reason to a whole response.",
    fill_finish,
    clients=("RAGFlow", "LangChain"),
    sets=CLIENTS,
)


def _finish(choice: Members) -> Members | None:
    if is_text(choice.get("finish_reason")):
        return None
    has_no_calls = is_empty((open_object(choice.get("message")) or {}).get("tool_calls"))
    return {**choice, "finish_reason": write("stop" if has_no_calls else "tool_calls")}


@on_chunks(Shape.CHAT)
def split_finish(chunk: Members, _: StreamState) -> Members | list[Members] | None:
    """Return a chunk with the content, then a chunk with the finish_reason and the usage."""
    content = change_items(chunk, "choices", _without_finish)
    if content is None:
        return None
    ended = [_finish_alone(choice) for choice in open_choices(chunk) if _without_finish(choice) is not None]
    usage = {"usage": NULL} if "usage" in chunk else {}
    return [{**content, **usage}, {**chunk, "choices": write(ended)}]


SPLIT_FINISH: Final = Repair(
    "split_finish",
    "Splits a chunk with both content and a finish_reason into two.",
    split_finish,
    clients=("RAGFlow, for vision", "Continue, which delays chunks with usage"),
    sets=("ragflow", "continue"),
)


def _without_finish(choice: Members) -> Members | None:
    delta = open_object(choice.get("delta"))
    if delta is None or not is_text(delta.get("content")) or not is_text(choice.get("finish_reason")):
        return None
    return {**choice, "finish_reason": NULL}


def _finish_alone(choice: Members) -> Members:
    end = {**choice, "delta": write({})}
    if "logprobs" in choice:
        end["logprobs"] = NULL  # They belong to the content.
    return end


# --- choices


def open_choices(chunk: Members) -> list[Members]:
    """Return the choices of a chunk that are objects."""
    return [
        choice
        for written in open_list(chunk.get("choices")) or ()
        if (choice := open_object(written)) is not None
    ]


def _change_messages(response: Members, name: str, change: _Change) -> Members | None:
    """Change the message or the delta of each choice."""

    def change_choice(choice: Members) -> Members | None:
        message = open_object(choice.get(name))
        new = None if message is None else change(message)
        return None if new is None else {**choice, name: write(new)}

    return change_items(response, "choices", change_choice)


REPAIRS: Final = (
    FILL_MESSAGE,
    FILL_DELTA,
    FLAT_CONTENT,
    FUNCTION_CALL,
    INDEX_TOOL_CALLS,
    FILL_TOOL_CALLS,
    TEXT_ARGUMENTS,
    FILL_CONTENT,
    FILL_FINISH,
    SPLIT_FINISH,
)

"""Repairs of request bodies."""

from typing import Final

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.repair import ReadIds, Repair, Repairs, find_steps, on_requests
from proxy.wire.repairs.shallow_json import (
    IDS_MAX,
    NULL,
    Members,
    TooManyItems,
    change_items,
    first_byte,
    holds_too_much,
    is_empty,
    is_null,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)

_IDS_PATTERN: Final = rb'"input"\s*:\s*\[\s*[\[0-9]'
"""An embedding request without it does not begin with token ids."""
IDS_OF_ALL_MAX: Final = 1_000_000
"""A request of more token ids in all of its texts is not repaired."""
_LANGCHAIN: Final = (
    "LangChain, OpenAIEmbeddings with check_embedding_ctx_length=True (langchain-openai 1.7.4)",
)
_REJECTED: Final = (
    "`input` holds token ids, and this upstream reads text only; in LangChain, create the embeddings with "
    "OpenAIEmbeddings(check_embedding_ctx_length=False)"
)
_WITH_TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})


def reject_ids(_: list[int]) -> str:
    """Reject any token ids.

    Raises:
        InvalidRequest: Always.
    """
    raise InvalidRequest(_REJECTED, param="input")


def repair_request(
    repairs: Repairs, shape: Shape | None, body: bytes, read_ids: ReadIds = reject_ids
) -> bytes:
    """Repair a JSON request body. Returns the same object if nothing changed.

    Args:
        repairs: The repairs that are enabled.
        shape: The shape of the request; None if no repair applies.
        body: The whole body.
        read_ids: Returns the text of token ids, for `decode_token_ids`.

    Raises:
        InvalidRequest: The body holds token ids that are rejected (`refuse_token_ids`) or not known.
    """
    steps = [step for step in find_steps(repairs, "request", shape) if step.pattern.search(body)]
    if not steps or holds_too_much(body):
        return body
    changed = False
    try:
        request = open_object(body)
        if request is None:
            return body
        for step in steps:
            new = step.change(request, read_ids)
            if new is not None:
                request, changed = new, True
    except TooManyItems:
        return body
    return to_json(request) if changed else body


@on_requests(Shape.CHAT, Shape.EMBEDDINGS, Shape.COMPLETION, pattern=rb'"drop_params"')
def drop_params(request: Members, _: ReadIds) -> Members | None:
    """Drop the field."""
    return _without(request, frozenset({"drop_params"})) if "drop_params" in request else None


DROP_PARAMS: Final = Repair(
    "drop_params",
    "Drops the field `drop_params` from a request, which strict gateways reject with 400.",
    drop_params,
    clients=("RAGFlow v0.21.0 to v0.27.0, embeddings (ragflow#18584)",),
    sets=("ragflow",),
)


@on_requests(Shape.CHAT, pattern=rb'"tools"\s*:\s*(?:\[\s*\]|null)')
def drop_empty_tools(request: Members, _: ReadIds) -> Members | None:
    """Drop the fields."""
    return _without(request, _WITH_TOOLS) if "tools" in request and is_empty(request["tools"]) else None


DROP_EMPTY_TOOLS: Final = Repair(
    "drop_empty_tools",
    "Drops an empty `tools` from a request, together with `tool_choice` and `parallel_tool_calls`.",
    drop_empty_tools,
    clients=("RAGFlow v0.27 and later, with models marked as supporting tools",),
    sets=("ragflow",),
)


@on_requests(Shape.CHAT, pattern=rb'"index"\s*:')
def drop_tool_call_index(request: Members, _: ReadIds) -> Members | None:
    """Drop the index of each tool call."""
    return change_items(request, "messages", _without_index)


DROP_TOOL_CALL_INDEX: Final = Repair(
    "drop_tool_call_index",
    "Drops `index` from the tool calls that a client sends back in its history.",
    drop_tool_call_index,
    clients=("RAGFlow, with agents and models with tools",),
    sets=("ragflow",),
)


def _without_index(message: Members) -> Members | None:
    return change_items(
        message, "tool_calls", lambda call: _without(call, frozenset({"index"})) if "index" in call else None
    )


@on_requests(Shape.CHAT, pattern=rb":\s*null")
def fill_history(request: Members, _: ReadIds) -> Members | None:
    """Remove nulls from the messages and their tool calls."""
    return change_items(request, "messages", _without_nulls)


FILL_HISTORY: Final = Repair(
    "fill_history",
    "Replaces null content in a client's messages by an empty string, and drops their other null "
    "members, which strict gateways reject with 400.",
    fill_history,
    clients=("RAGFlow, with agents and models with tools",),
    sets=("ragflow",),
)


def _without_nulls(message: Members) -> Members | None:
    kept = {
        name: write("") if is_null(value) else value
        for name, value in message.items()
        if name == "content" or not is_null(value)
    }
    kept = change_items(kept, "tool_calls", _call_without_nulls) or kept
    return kept if kept != message else None


def _call_without_nulls(call: Members) -> Members | None:
    kept = {name: value for name, value in call.items() if not is_null(value)}
    return kept if kept != call else None


@on_requests(Shape.CHAT, Shape.COMPLETION, pattern=rb'"stream"\s*:\s*true')
def ask_usage(request: Members, _: ReadIds) -> Members | None:
    """Ask for the usage of a stream."""
    options = open_object(request.get("stream_options")) or {}
    if bytes(request.get("stream", NULL)) != b"true" or bytes(options.get("include_usage", NULL)) == b"true":
        return None
    return {**request, "stream_options": write({**options, "include_usage": True})}


ASK_USAGE: Final = Repair(
    "ask_usage",
    "Requests the usage of every stream, so that it can be counted.",
    ask_usage,
    clients=(
        "all, if keys have a token budget; drop_unasked_chunks hides the usage from clients that did not ask",
    ),
)


def _without(members: Members, names: frozenset[str]) -> Members:
    return {name: value for name, value in members.items() if name not in names}


# --- token ids in place of text: https://platform.openai.com/docs/api-reference/embeddings/create


@on_requests(Shape.EMBEDDINGS, pattern=_IDS_PATTERN)
def decode_token_ids(request: Members, read_ids: ReadIds) -> Members | None:
    """Replace token ids by their texts. Lists of other things are left to the upstream."""
    items = open_list(request.get("input"), IDS_MAX)
    if not items:
        return None
    if bytes(request["input"]).count(b",") > IDS_OF_ALL_MAX:
        raise TooManyItems
    ids = _ids([read_value(item) for item in items]) if first_byte(items[0]) not in {b"[", b'"'} else None
    if ids is not None:
        return {**request, "input": write(read_ids(ids))}
    texts = [_text(item, read_ids) for item in items]
    return {**request, "input": write(texts)} if texts != items else None


DECODE_TOKEN_IDS: Final = Repair(
    "decode_token_ids",
    "Replaces token ids in an embedding request by their text; needs the extra `tiktoken`.",
    decode_token_ids,
    clients=_LANGCHAIN,
)


@on_requests(Shape.EMBEDDINGS, pattern=_IDS_PATTERN)
def refuse_token_ids(request: Members, _: ReadIds) -> None:
    """Reject a request that holds token ids."""
    # Token ids are a list of numbers, or a list of such lists. A JSON string begins with a quote.
    if any(not bytes(item).startswith(b'"') for item in open_list(request.get("input"), IDS_MAX) or ()):
        reject_ids([])


REFUSE_TOKEN_IDS: Final = Repair(
    "refuse_token_ids",
    "Rejects token ids in an embedding request with a 400 that names the option to change.",
    refuse_token_ids,
    clients=_LANGCHAIN,
    sets=("langchain",),
)


def _text(item: msgspec.Raw, read_ids: ReadIds) -> msgspec.Raw:
    ids = _ids(read_value(item))
    return item if ids is None else write(read_ids(ids))


def _ids(value: object) -> list[int] | None:
    """Return the value if it is a list of whole numbers."""
    if not isinstance(value, list) or not value:
        return None
    return value if all(type(number) is int and number >= 0 for number in value) else None


REPAIRS: Final = (
    DROP_PARAMS,
    DROP_EMPTY_TOOLS,
    DROP_TOOL_CALL_INDEX,
    FILL_HISTORY,
    ASK_USAGE,
    DECODE_TOKEN_IDS,
    REFUSE_TOKEN_IDS,
)

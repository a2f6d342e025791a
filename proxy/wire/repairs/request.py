"""Repairs of request bodies."""

import re
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from proxy.wire.endpoints import Shape
from proxy.wire.repairs.catalogue import DECODE_TOKEN_IDS, Repairs
from proxy.wire.repairs.rerank import to_tei
from proxy.wire.repairs.shallow_json import NULL, Members, change_items, is_empty, open_object, to_json, write
from proxy.wire.repairs.token_ids import IDS_SIGN, ReadIds, decode_token_ids, refuse_ids, refuse_token_ids

_WITHOUT_TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_CHAT: Final = frozenset({Shape.CHAT})
_EMBEDDINGS: Final = frozenset({Shape.EMBEDDINGS})


class _RequestRepair(NamedTuple):
    shapes: frozenset[Shape]
    sign: re.Pattern[bytes]
    """Without it a body is not even parsed."""
    change: Callable[[Members], Members | None]


def repair_request(
    repairs: Repairs, shape: Shape | None, body: bytes, read_ids: ReadIds = refuse_ids
) -> bytes:
    """A JSON request body as the upstream takes it; the same object where nothing changed.

    Args:
        repairs: What is on.
        shape: Of the request; None where no repair applies.
        body: The whole body.
        read_ids: What token ids say, for `decode_token_ids`.

    Raises:
        InvalidRequest: it holds token ids that are not taken (`refuse_token_ids`) or not known.
    """
    wanted = [repair for name in repairs.request if _fits(repair := _find(name, read_ids), shape, body)]
    request = open_object(body) if wanted else None
    if request is None:
        return body
    changed = False
    for repair in wanted:
        new = repair.change(request)
        if new is not None:
            request, changed = new, True
    return to_json(request) if changed else body


def _find(name: str, read_ids: ReadIds) -> _RequestRepair:
    if name == DECODE_TOKEN_IDS:
        return _RequestRepair(_EMBEDDINGS, IDS_SIGN, partial(decode_token_ids, read_ids=read_ids))
    return _REPAIRS[name]


def _fits(repair: _RequestRepair, shape: Shape | None, body: bytes) -> bool:
    return shape in repair.shapes and repair.sign.search(body) is not None


def _without(members: Members, names: frozenset[str]) -> Members:
    return {name: value for name, value in members.items() if name not in names}


def _drop_params(request: Members) -> Members | None:
    return _without(request, frozenset({"drop_params"})) if "drop_params" in request else None


def _drop_empty_tools(request: Members) -> Members | None:
    return _without(request, _WITHOUT_TOOLS) if "tools" in request and is_empty(request["tools"]) else None


def _drop_tool_call_index(request: Members) -> Members | None:
    messages = change_items(request.get("messages"), _strip_message)
    return None if messages is None else {**request, "messages": messages}


def _strip_message(message: Members) -> Members | None:
    calls = change_items(message.get("tool_calls"), _strip_call)
    return None if calls is None else {**message, "tool_calls": calls}


def _strip_call(call: Members) -> Members | None:
    return _without(call, frozenset({"index"})) if "index" in call else None


def _ask_usage(request: Members) -> Members | None:
    options = open_object(request.get("stream_options")) or {}
    if bytes(request.get("stream", NULL)) != b"true" or bytes(options.get("include_usage", NULL)) == b"true":
        return None
    return {**request, "stream_options": write({**options, "include_usage": True})}


_REPAIRS: Final = {
    "drop_params": _RequestRepair(
        _CHAT | _EMBEDDINGS | {Shape.COMPLETION}, re.compile(rb'"drop_params"'), _drop_params
    ),
    "drop_empty_tools": _RequestRepair(
        _CHAT, re.compile(rb'"tools"\s*:\s*(?:\[\s*\]|null)'), _drop_empty_tools
    ),
    "drop_tool_call_index": _RequestRepair(_CHAT, re.compile(rb'"index"\s*:'), _drop_tool_call_index),
    "ask_usage": _RequestRepair(_CHAT | {Shape.COMPLETION}, re.compile(rb'"stream"\s*:\s*true'), _ask_usage),
    "refuse_token_ids": _RequestRepair(_EMBEDDINGS, IDS_SIGN, refuse_token_ids),
    "tei_rerank": _RequestRepair(frozenset({Shape.RERANK}), re.compile(rb'"documents"'), to_tei),
}

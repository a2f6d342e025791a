"""Repairs of embeddings."""

import base64
import re
import struct
from typing import Final

import msgspec

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.repair import BARE_LIST, CLIENTS, Repair, on_responses
from proxy.wire.repairs.shallow_json import (
    Members,
    change_items,
    first_byte,
    is_empty,
    open_list,
    open_object,
    read_value,
    write,
)

_NOT_OF_NUMBERS: Final = b"0123456789.,eE+- \t\r\n"
_DIGIT: Final = re.compile(rb"\d")
_VECTOR_CHARACTERS_MAX: Final = 1 << 20
"""A longer text is no vector: 200,000 numbers take as much."""
_VECTOR_NAMES: Final = ("embedding", "vector", "values")


@on_responses(Shape.EMBEDDINGS)
def embedding_shapes(response: Members, call: Call) -> Members | None:
    """Write each vector as an item of `data`."""
    name, found = _find_vectors(response)
    if not found:
        return None
    items = [_item(written, place) for place, written in enumerate(found)]
    if items == open_list(response.get("data")):
        return None
    kept = {key: value for key, value in response.items() if key not in {name, BARE_LIST}}
    kept.setdefault("object", write("list"))
    kept.setdefault("model", write(call.model or ""))
    return {**kept, "data": write(items)}


EMBEDDING_SHAPES: Final = Repair(
    "embedding_shapes",
    "Converts the embeddings of Ollama, llama.cpp, TEI, Cohere and others to OpenAI's list under `data`.",
    embedding_shapes,
    clients=("all",),
    sets=CLIENTS,
)


def _find_vectors(response: Members) -> tuple[str, list[msgspec.Raw]]:
    for name in ("data", "embeddings", "embedding", BARE_LIST):
        written = response.get(name)
        members = open_object(written)
        if members is not None and "float" in members:  # {"float": [[...]]}, as Cohere writes it
            written = members["float"]
        elif members is not None and written is not None:
            return name, [written]
        items = open_list(written)
        if items:
            alone = written is not None and first_byte(items[0]) not in {b"{", b"[", b'"'}
            return name, [written] if alone and written is not None else items
    return "", []


def _item(written: msgspec.Raw, place: int) -> msgspec.Raw:
    """Return an item that holds its vector under `embedding`."""
    members = open_object(written)
    if members is None:
        return write({"object": "embedding", "index": place, "embedding": written})
    if "embedding" in members:
        return written
    name = next((name for name in _VECTOR_NAMES if name in members), None)
    if name is None:
        return written
    index = members.get("index", members.get("text_index", write(place)))
    return write({"object": "embedding", "index": index, "embedding": members[name]})


@on_responses(Shape.EMBEDDINGS)
def float_embeddings(response: Members, call: Call) -> Members | None:
    """Write each vector as a list of numbers."""
    return change_items(response, "data", lambda item: _with_numbers(item, call))


FLOAT_EMBEDDINGS: Final = Repair(
    "float_embeddings",
    "Converts embeddings in base64, in a string or in a nested list to numbers, unless the client "
    "asked for base64.",
    float_embeddings,
    clients=("RAGFlow", "Dify", "Open WebUI 0.12.4", "all that request `float`"),
    sets=CLIENTS,
)


def _with_numbers(item: Members, call: Call) -> Members | None:
    written = item.get("embedding")
    members = open_object(written)
    if members is not None:  # {"values": [...]}
        written = next((members[name] for name in ("values", "float") if name in members), written)
    if first_byte(written) == b'"' and not call.base64:
        numbers = _decode(read_value(written))
        return None if numbers is None else {**item, "embedding": write(numbers)}
    inner = open_list(written)
    if inner is not None and len(inner) == 1 and first_byte(inner[0]) == b"[":
        return {**item, "embedding": inner[0]}
    return {**item, "embedding": written} if members is not None and written is not None else None


def _decode(text: object) -> list[float] | None:
    """Decode OpenAI's base64 of little-endian 32-bit floats, or a list of numbers in a string."""
    if not isinstance(text, str) or len(text) > _VECTOR_CHARACTERS_MAX:
        return None
    if text.lstrip().startswith("["):
        numbers = read_value(text.encode())
        return numbers if isinstance(numbers, list) else None
    try:
        data = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    except (ValueError, struct.error):
        return None


@on_responses(Shape.EMBEDDINGS)
def sort_embeddings(response: Members, _: Call) -> Members | None:
    """Sort the items by index.

    If indexes are missing or repeated, they define no order, so each item gets its position as index.

    Raises:
        InvalidResponse: An index is not a whole number, so that the order is not known.
    """
    items = [open_object(item) for item in open_list(response.get("data")) or ()]
    found = [item for item in items if item is not None]
    if len(found) != len(items):
        return None  # not a list of objects
    indexes = [_index(item) for item in found]
    given = {index for index in indexes if index is not None}
    if len(given) != len(found):
        filled = [{**item, "index": write(place)} for place, item in enumerate(found)]
        return {**response, "data": write(filled)}
    order = sorted(range(len(found)), key=lambda place: indexes[place] or 0)
    written = [bytes(item["index"]) for item in found]
    if order == [*range(len(found))] and written == [str(index).encode() for index in indexes]:
        return None
    return {**response, "data": write([{**found[place], "index": write(indexes[place])} for place in order])}


SORT_EMBEDDINGS: Final = Repair(
    "sort_embeddings",
    "Sorts embeddings by index, adds missing indexes, and turns indexes that are not whole numbers into an "
    "error.",
    sort_embeddings,
    clients=(
        "RAGFlow (needs the index; up to v0.25.6 also the order)",
        "Dify",
        "Open WebUI 0.12.4",
        "LlamaIndex (embeddings-openai 0.7.0)",
    ),
    sets=("ragflow", "dify", "open_webui", "llamaindex"),
)


def _index(item: Members) -> int | None:
    """Return the index of an item, also one written as a string or as a fraction; None if it has none."""
    if is_empty(item.get("index")):
        return None
    index = read_value(item["index"])
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if not isinstance(index, int) or isinstance(index, bool):
        raise InvalidResponse("an embedding whose index is not a whole number")
    return index


@on_responses(Shape.EMBEDDINGS)
def check_embeddings(response: Members, call: Call) -> None:
    """Reject embeddings that do not match the inputs.

    Raises:
        InvalidResponse: Their number differs from that of the inputs, or one is not a list of numbers.
    """
    items = open_list(response.get("data"))
    if items is None:
        return
    if call.inputs is not None and len(items) != call.inputs:
        raise InvalidResponse("another number of embeddings than of inputs")
    for item in items:
        vector = (open_object(item) or {}).get("embedding")
        is_base64 = call.base64 and first_byte(vector) == b'"'
        if vector is None or not (is_base64 or _is_of_numbers(bytes(vector))):
            raise InvalidResponse("an embedding that is not a list of numbers")


CHECK_EMBEDDINGS: Final = Repair(
    "check_embeddings",
    "Turns embeddings whose number differs from that of the inputs, or that are not numbers, into an error.",
    check_embeddings,
    clients=("RAGFlow and Dify, which assign them to the wrong texts",),
    sets=CLIENTS,
)


def _is_of_numbers(vector: bytes) -> bool:
    """Whether valid JSON is a list of one or more numbers."""
    return vector.translate(None, _NOT_OF_NUMBERS) == b"[]" and _DIGIT.search(vector) is not None


REPAIRS: Final = (EMBEDDING_SHAPES, FLOAT_EMBEDDINGS, SORT_EMBEDDINGS, CHECK_EMBEDDINGS)

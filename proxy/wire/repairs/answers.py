"""Repairs of whole answers: errors inside a 200 first, then what clients miss in an answer."""

import json
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.catalogue import Repairs
from proxy.wire.repairs.chat_answers import fill_content, fill_usage, index_answer_tool_calls
from proxy.wire.repairs.embeddings import sort_embeddings
from proxy.wire.repairs.rerank import from_tei
from proxy.wire.repairs.shallow_json import Members, open_object, to_json
from proxy.wire.repairs.vendor_errors import ErrorInside, read_openai_error, read_vendor_error

_CHAT: Final = frozenset({Shape.CHAT})


class _AnswerRepair(NamedTuple):
    shapes: frozenset[Shape]
    change: Callable[[Members], Members | None]


def repair_answer(
    repairs: Repairs, shape: Shape | None, method: str, body: bytes, top_n: object = None
) -> bytes | ErrorInside:
    """Return a whole answer as clients read it: the same object if nothing changed.

    Args:
        repairs: What is on.
        shape: Of the answer; None where no repair applies.
        method: Of the request. An answer to GET holds stored objects and not the answer of a model, so only
            its errors are repaired.
        body: The whole uncompressed body of an answer with status 200.
        top_n: How many results a rerank request asked for.

    Returns:
        The body, or the error that it contains.

    Raises:
        InvalidResponse: The body is empty, HTML, not JSON (`true_errors`), or not valid UTF-8 (`utf8`).
    """
    if not repairs.answer or shape is None:
        return body
    if "utf8" in repairs.answer:
        _check_utf8(body)
    if "tei_rerank" in repairs.answer and shape is Shape.RERANK:
        body = from_tei(body, top_n)
    answer = open_object(body)
    if "true_errors" in repairs.answer:
        _check_json(body, answer)
    if answer is None:
        return body
    error = _find_error(repairs, answer)
    if error is not None or method != "POST":
        return error or body
    return _repaired(repairs, shape, answer, body)


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidResponse("text that is not valid UTF-8") from error


def _check_json(body: bytes, answer: Members | None) -> None:
    if answer is not None:
        return
    if not body.strip():
        raise InvalidResponse("an empty body with status 200")
    try:
        json.loads(body)  # a list, or what is only not quite JSON, is the client's to judge
    except (ValueError, RecursionError) as error:
        kind = "HTML" if body.lstrip().startswith(b"<") else "a body that is not JSON"
        raise InvalidResponse(f"{kind} with status 200") from error


def _find_error(repairs: Repairs, answer: Members) -> ErrorInside | None:
    error = read_openai_error(answer) if "true_errors" in repairs.answer else None
    return error or (read_vendor_error(answer) if "vendor_errors" in repairs.answer else None)


def _repaired(repairs: Repairs, shape: Shape, answer: Members, body: bytes) -> bytes:
    changed = False
    for name in repairs.answer:
        repair = _REPAIRS.get(name)
        new = repair.change(answer) if repair is not None and shape in repair.shapes else None
        if new is not None:
            answer, changed = new, True
    return to_json(answer) if changed else body


def _fill_usage(answer: Members) -> Members | None:
    return fill_usage(answer, completion="data" not in answer)


_REPAIRS: Final = {
    "sort_embeddings": _AnswerRepair(frozenset({Shape.EMBEDDINGS}), sort_embeddings),
    "fill_content": _AnswerRepair(_CHAT, fill_content),
    "fill_usage": _AnswerRepair(frozenset({*_CHAT, Shape.COMPLETION, Shape.EMBEDDINGS}), _fill_usage),
    "index_tool_calls": _AnswerRepair(_CHAT, index_answer_tool_calls),
}

"""Repairs of whole answers: errors inside a 200 first, then what clients miss in an answer."""

import json
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.errors import BadResponse
from proxy.wire.event_stream import EVENT_STREAM
from proxy.wire.repairs.catalogue import Repairs
from proxy.wire.repairs.chat_answers import fill_content, fill_usage, index_answer_tool_calls
from proxy.wire.repairs.embeddings import sort_embeddings
from proxy.wire.repairs.rerank import from_tei
from proxy.wire.repairs.shallow_json import Members, open_object, to_json
from proxy.wire.repairs.vendor_errors import ErrorInside, read_openai_error, read_vendor_error

JSON_ENDPOINTS: Final = frozenset(
    {"chat/completions", "completions", "embeddings", "models", "moderations", "rerank"}
)
"""They answer with JSON, or with a stream of it, and with nothing else."""
_CHAT: Final = frozenset({"chat/completions"})
_OK: Final = 200


class _AnswerRepair(NamedTuple):
    endpoints: frozenset[str]
    change: Callable[[Members], Members | None]


def repair_answer(
    repairs: Repairs, endpoint: str, status: int, content_type: bytes, body: bytes, top_n: object = None
) -> bytes | ErrorInside:
    """A whole answer as clients read it; the same object where nothing changed.

    Args:
        repairs: What is on.
        endpoint: The path below the version, such as `chat/completions`.
        status: Any other than 200 is left alone.
        content_type: As it came; event streams are left alone.
        body: The whole body, not compressed, of an answer that has one (not to HEAD or OPTIONS).
        top_n: How many results a rerank asked for.

    Returns:
        The body, or the error that it turned out to be.

    Raises:
        BadResponse: it is empty, HTML, no JSON (`true_errors`), or not valid UTF-8 (`utf8`).
    """
    if status != _OK or not repairs.answer or endpoint not in JSON_ENDPOINTS:
        return body
    if content_type.strip().lower().startswith(EVENT_STREAM):
        return body
    if "utf8" in repairs.answer:
        _check_utf8(body)
    if "tei_rerank" in repairs.answer and endpoint == "rerank":
        body = from_tei(body, top_n)
    answer = open_object(body)
    if "true_errors" in repairs.answer:
        _check_json(body, answer)
    if answer is None:
        return body
    return _find_error(repairs, answer) or _repaired(repairs, endpoint, answer, body)


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadResponse(reason=f"an answer that is not valid UTF-8 (byte {error.start})") from error


def _check_json(body: bytes, answer: Members | None) -> None:
    if answer is not None:
        return
    if not body.strip():
        raise BadResponse(reason="an empty answer with status 200")
    try:
        json.loads(body)  # a list, or what is only not quite JSON, is the client's to judge
    except (ValueError, RecursionError) as error:
        raise BadResponse(reason="an answer with status 200 that is no JSON") from error


def _find_error(repairs: Repairs, answer: Members) -> ErrorInside | None:
    error = read_openai_error(answer) if "true_errors" in repairs.answer else None
    return error or (read_vendor_error(answer) if "vendor_errors" in repairs.answer else None)


def _repaired(repairs: Repairs, endpoint: str, answer: Members, body: bytes) -> bytes:
    changed = False
    for name in repairs.answer:
        repair = _REPAIRS.get(name)
        new = repair.change(answer) if repair is not None and endpoint in repair.endpoints else None
        if new is not None:
            answer, changed = new, True
    return to_json(answer) if changed else body


def _fill_usage(answer: Members) -> Members | None:
    return fill_usage(answer, completion="data" not in answer)


_REPAIRS: Final = {
    "sort_embeddings": _AnswerRepair(frozenset({"embeddings"}), sort_embeddings),
    "fill_content": _AnswerRepair(_CHAT, fill_content),
    "fill_usage": _AnswerRepair(frozenset({*_CHAT, "completions", "embeddings"}), _fill_usage),
    "index_tool_calls": _AnswerRepair(_CHAT, index_answer_tool_calls),
}

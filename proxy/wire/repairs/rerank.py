"""Repairs of rerank requests and responses.

Clients expect the shape of Cohere and Jina: https://docs.cohere.com/reference/rerank. Hugging Face's Text
Embeddings Inference (TEI) uses another: https://huggingface.github.io/text-embeddings-inference/
"""

from typing import Final

import msgspec

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.repair import BARE_LIST, CLIENTS, ReadIds, Repair, on_requests, on_responses
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    first_byte,
    open_list,
    open_object,
    read_value,
    write,
)

_SCORES: Final = ("relevance_score", "score", "relevanceScore", "similarity", "logit")


@on_requests(Shape.RERANK, pattern=rb'"documents"')
def to_tei(request: Members, _: ReadIds) -> Members | None:
    """Translate a request for TEI; None if the documents are not texts.

    The request makes TEI truncate texts that are too long, as Cohere and Jina do by default.
    """
    documents = open_list(request.get("documents"))
    if documents is None or "query" not in request:
        return None
    texts = [_text(document) for document in documents]
    if not all(first_byte(text) == b'"' for text in texts):
        return None
    return_text = read_value(request.get("return_documents")) is True
    members = {"texts": write(texts), "return_text": write(return_text), "truncate": write(value=True)}
    return {"query": request["query"], **members}


def _text(document: msgspec.Raw) -> msgspec.Raw:
    members = open_object(document)
    return document if members is None else members.get("text", NULL)


@on_responses(Shape.RERANK)
def from_tei(response: Members, call: Call) -> Members | None:
    """Translate TEI's response, `[{"index", "score", "text"?}]`, into results, the best first."""
    items = open_list(response.get(BARE_LIST))
    if items is None:
        return None
    ranks = [open_object(item) for item in items]
    found = [rank for rank in ranks if rank is not None and {"index", "score"} <= rank.keys()]
    if len(found) != len(items):
        return None
    found.sort(key=_score, reverse=True)
    # The type is compared because `true` is an int in Python.
    wanted = call.top_n if type(call.top_n) is int and call.top_n > 0 else None
    return {"results": write([_tei_result(rank) for rank in found[:wanted]])}


TEI_RERANK: Final = Repair(
    "tei_rerank",
    "Translates rerank requests for Hugging Face's TEI, and its responses back.",
    to_tei,
    from_tei,
    clients=("all, if the upstream is TEI (ragflow#10012)",),
)


def _score(rank: Members) -> float:
    score = read_value(rank["score"])
    return score if isinstance(score, int | float) else float("-inf")


def _tei_result(rank: Members) -> Members:
    result = {"index": rank["index"], "relevance_score": rank["score"]}
    return {**result, "document": write({"text": rank["text"]})} if "text" in rank else result


@on_responses(Shape.RERANK)
def rerank_shapes(response: Members, _: Call) -> Members | None:
    """Write each rank as an item of `results`."""
    for name in ("results", "data", "rankings", "ranks", "scores", BARE_LIST):
        items = open_list(response.get(name))
        if not items:
            continue
        results = [_result(item, place) for place, item in enumerate(items)]
        if name == "results" and results == items:
            return None
        kept = {key: value for key, value in response.items() if key != name}
        return {**kept, "results": write(results)}
    return None


RERANK_SHAPES: Final = Repair(
    "rerank_shapes",
    "Converts ranks under `data`, `rankings`, `scores` or in a bare list, and scores under other "
    "names, to `results` with `relevance_score`.",
    rerank_shapes,
    clients=("RAGFlow, which reads them as scores of zero", "Dify", "Open WebUI 0.12.4", "FastGPT"),
    sets=CLIENTS,
)


def _result(written: msgspec.Raw, place: int) -> msgspec.Raw:
    rank = open_object(written)
    if rank is None:
        return write({"index": place, "relevance_score": written})
    name = next((name for name in _SCORES if name in rank), None)
    if name is None:
        return written
    changed = {key: value for key, value in rank.items() if key != name}
    changed["relevance_score"] = _number(rank[name])
    if first_byte(rank.get("index")) == b'"':
        changed["index"] = _number(rank["index"])
    same = changed.keys() == rank.keys() and all(changed[key] == rank[key] for key in rank)
    return written if same else write(changed)


def _number(written: msgspec.Raw) -> msgspec.Raw:
    """Turn a number in a string into a number; return any other value as it is."""
    text = read_value(written)
    if not isinstance(text, str):
        return written
    number = read_value(text.encode())
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return msgspec.Raw(text.strip().encode()) if is_number else written


@on_responses(Shape.RERANK)
def check_rerank(response: Members, call: Call) -> None:
    """Reject results that do not rank the documents.

    Raises:
        InvalidResponse: The index of a result is not that of a document, or its score is not a number.
    """
    for written in open_list(response.get("results")) or ():
        rank = open_object(written) or {}
        index, score = read_value(rank.get("index")), read_value(rank.get("relevance_score"))
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise InvalidResponse("a rerank result without an index")
        if call.documents is not None and index >= call.documents:
            raise InvalidResponse("a rerank result for a document that was not sent")
        if not isinstance(score, int | float) or isinstance(score, bool):
            raise InvalidResponse("a rerank result without a score")


CHECK_RERANK: Final = Repair(
    "check_rerank",
    "Turns rerank results without a score or a valid document index into an error.",
    check_rerank,
    clients=("RAGFlow, which reads them as scores of zero",),
    sets=CLIENTS,
)


REPAIRS: Final = (TEI_RERANK, RERANK_SHAPES, CHECK_RERANK)

"""Rerank as Hugging Face's Text Embeddings Inference (TEI) has it, from and to the shape of Cohere and Jina.

https://huggingface.github.io/text-embeddings-inference/ and https://docs.cohere.com/reference/rerank
"""

import msgspec

from proxy.wire.repairs.shallow_json import NULL, Members, open_list, open_object, read_value, to_json, write


def to_tei(request: Members) -> Members | None:
    """A request in TEI's words; None where the documents are no texts.

    Too long texts are cut, as Cohere and Jina do unasked and TEI only if asked.
    """
    documents = open_list(request.get("documents"))
    if documents is None or "query" not in request:
        return None
    texts = [_text(document) for document in documents]
    if not all(bytes(text).startswith(b'"') for text in texts):
        return None
    return_text = read_value(request.get("return_documents")) is True
    asked = {"texts": write(texts), "return_text": write(return_text), "truncate": write(value=True)}
    return {"query": request["query"], **asked}


def from_tei(body: bytes, top_n: object) -> bytes:
    """A whole answer of TEI, `[{"index", "score", "text"?}]`, as `{"results": [...]}`; any other as it is.

    Args:
        body: The whole answer.
        top_n: How many results the client asked for, the best first; all where it is no positive number.
    """
    items = open_list(body)
    if items is None:
        return body
    ranks = [open_object(item) for item in items]
    found = [rank for rank in ranks if rank is not None and {"index", "score"} <= rank.keys()]
    if len(found) != len(items):
        return body
    found.sort(key=_score, reverse=True)
    wanted = top_n if type(top_n) is int and top_n > 0 else None  # true is an int as well
    return to_json({"results": [_result(rank) for rank in found[:wanted]]})


def _text(document: msgspec.Raw) -> msgspec.Raw:
    members = open_object(document)
    return document if members is None else members.get("text", NULL)


def _score(rank: Members) -> float:
    score = read_value(rank["score"])
    return score if isinstance(score, int | float) else float("-inf")


def _result(rank: Members) -> Members:
    result = {"index": rank["index"], "relevance_score": rank["score"]}
    return {**result, "document": write({"text": rank["text"]})} if "text" in rank else result

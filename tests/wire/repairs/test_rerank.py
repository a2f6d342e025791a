"""Reranking: requests and responses are translated between Cohere's shape and TEI's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, repair_request, repair_response, resolve

TEI = resolve(["tei_rerank"])


def asked(body: bytes) -> bytes:
    once = repair_request(TEI, Shape.RERANK, body)
    assert repair_request(TEI, Shape.RERANK, once) is once
    return once


def answered(body: bytes, top_n: object = None, shape: Shape = Shape.RERANK) -> bytes:
    answer = repair_response(TEI, Call(shape, top_n=top_n), body)
    assert isinstance(answer, bytes)
    return answer


@pytest.mark.parametrize(
    ("return_documents", "return_text"), [("true", "true"), ("false", "false"), ("null", "false")]
)
def test_a_request_is_translated_for_tei(return_documents: str, return_text: str) -> None:
    body = (
        f'{{"model": "m", "query": "问?", "documents": ["\\u4e00", {{"text": "b"}}], "top_n": 1,'
        f' "return_documents": {return_documents}}}'
    )
    assert asked(body.encode()) == (
        f'{{"query":"问?","texts":["\\u4e00","b"],"return_text":{return_text},"truncate":true}}'.encode()
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "q", "documents": "text"}',
        b'{"query": "q", "documents": [{"image": "https://img.example/a.png"}]}',
        b'{"query": "q", "documents": [1]}',
        b'{"documents": ["a"]}',
        b'{"query": "q", "texts": ["documents"]}',
    ],
)
def test_a_request_without_texts_is_left_to_the_upstream(body: bytes) -> None:
    assert asked(body) is body


def test_a_response_becomes_coheres_with_the_best_first_and_unchanged_numbers() -> None:
    body = b'[{"index": 1, "score": 1.0e-05, "text": "b"}, {"index": 0, "score": 0.90, "text": "a"}]'
    assert answered(body) == (
        b'{"results":[{"index":0,"relevance_score":0.90,"document":{"text":"a"}},'
        b'{"index":1,"relevance_score":1.0e-05,"document":{"text":"b"}}]}'
    )


@pytest.mark.parametrize(
    "body",
    [b"[1]", b'[{"index": 0}]', b'{"results": []}', b'{"error": "m", "error_type": "e"}', b"", b"<html>"],
)
def test_another_response_does_not_change(body: bytes) -> None:
    assert answered(body) is body


def test_a_list_from_another_endpoint_stays() -> None:
    body = b'[{"index": 0, "score": 1}]'
    assert answered(body, shape=Shape.EMBEDDINGS) is body


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    st.none() | st.integers() | st.text(max_size=3) | st.booleans(),
)
def test_top_n_limits_the_results(scores: list[float], top_n: Any) -> None:
    ranks = [{"index": index, "score": score} for index, score in enumerate(scores)]
    results = json.loads(answered(json.dumps(ranks).encode(), top_n))["results"]
    wanted = top_n if type(top_n) is int and top_n > 0 else len(scores)
    assert [result["relevance_score"] for result in results] == sorted(scores, reverse=True)[:wanted]
    assert all(scores[result["index"]] == result["relevance_score"] for result in results)


SCORES = [0.25, 0.75]
RANKED = Call(Shape.RERANK, documents=2)
ALL = resolve(["rerank_shapes", "check_rerank", "unwrap_answer"])


def ranks(name: str) -> list[dict[str, Any]]:
    return [{"index": index, name: score} for index, score in enumerate(SCORES)]


@pytest.mark.parametrize(
    "answer",
    [
        {"results": ranks("score")},
        {"data": ranks("relevance_score")},
        {"output": {"results": ranks("relevance_score")}},
        {"rankings": ranks("logit")},
        {"scores": SCORES},
        SCORES,
        ranks("score"),
        {"results": [{"index": str(n), "relevance_score": str(score)} for n, score in enumerate(SCORES)]},
    ],
)
def test_ranks_in_other_shapes_become_results(answer: object) -> None:
    repaired = repair_response(ALL, RANKED, json.dumps(answer).encode())
    assert isinstance(repaired, bytes)
    assert json.loads(repaired)["results"] == ranks("relevance_score")


def test_valid_results_stay_byte_for_byte() -> None:
    body = b'{"results": [{"index": 1, "relevance_score": 1.0e-05, "document": {"text": "b"}}]}'
    assert repair_response(ALL, RANKED, body) is body


@pytest.mark.parametrize(
    "rank",
    [
        {"relevance_score": 0.5},
        {"index": 0},
        {"index": 2, "relevance_score": 0.5},
        {"index": -1, "relevance_score": 0.5},
        {"index": 0, "relevance_score": None},
        {"index": True, "relevance_score": 0.5},
        None,
    ],
)
def test_a_result_without_an_index_or_a_score_is_an_error(rank: object) -> None:
    with pytest.raises(InvalidResponse):
        repair_response(resolve(["check_rerank"]), RANKED, json.dumps({"results": [rank]}).encode())

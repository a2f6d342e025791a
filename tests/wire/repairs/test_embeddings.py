"""Embeddings: in order, each with its index, vectors byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, repair_answer, resolve

SORTED = resolve(["sort_embeddings"])


def repaired(body: bytes) -> bytes:
    once = repair_answer(SORTED, Call(Shape.EMBEDDINGS), body)
    assert isinstance(once, bytes)
    assert repair_answer(SORTED, Call(Shape.EMBEDDINGS), once) is once
    return once


def test_reversed_embeddings_are_sorted_and_their_numbers_kept() -> None:
    assert repaired(
        b'{"data":[{"index":1,"embedding":[1.0e-05, -0.50]},{"index":0,"embedding":"AAAA"}],"model":"m"}'
    ) == (b'{"data":[{"index":0,"embedding":"AAAA"},{"index":1,"embedding":[1.0e-05, -0.50]}],"model":"m"}')


@pytest.mark.parametrize("index", ["", '"index":null,', '"index":0,', '"index":"0",'])
def test_without_an_order_of_their_own_the_place_is_the_index(index: str) -> None:
    body = f'{{"data":[{{{index}"embedding":[1]}},{{{index}"embedding":[2]}}]}}'.encode()
    items = json.loads(repaired(body))["data"]
    assert [(item["index"], item["embedding"]) for item in items] == [(0, [1]), (1, [2])]


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [2]}]}',
        b'{"data": []}',
        b'{"data": [[1], [2]]}',
        b'{"data": null}',
        b'{"embedding": [1]}',
        b"[1]",
    ],
)
def test_what_is_in_order_or_no_list_of_embeddings_stays(body: bytes) -> None:
    assert repair_answer(SORTED, Call(Shape.EMBEDDINGS), body) is body


@given(st.lists(st.integers(-2, 5) | st.none(), max_size=6))
def test_no_embedding_is_lost(indexes: list[int | None]) -> None:
    data = [{"index": index, "embedding": [place]} for place, index in enumerate(indexes)]
    items = json.loads(repaired(json.dumps({"data": data}).encode()))["data"]
    assert sorted(item["embedding"][0] for item in items) == list(range(len(indexes)))
    assert [item["index"] for item in items] == sorted({item["index"] for item in items})

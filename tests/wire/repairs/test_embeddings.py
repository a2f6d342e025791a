"""Embeddings: in order, each with its index, vectors unchanged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import Call, read_call, repair_response, resolve
from tests.integration.fault_table.calls import in_base64

SORTED = resolve(["sort_embeddings"])


def repaired(body: bytes) -> bytes:
    once = repair_response(SORTED, Call(Shape.EMBEDDINGS), body)
    assert isinstance(once, bytes)
    assert repair_response(SORTED, Call(Shape.EMBEDDINGS), once) is once
    return once


def test_reversed_embeddings_are_sorted_and_their_numbers_kept() -> None:
    assert repaired(
        b'{"data":[{"index":1,"embedding":[1.0e-05, -0.50]},{"index":0,"embedding":"AAAA"}],"model":"m"}'
    ) == (b'{"data":[{"index":0,"embedding":"AAAA"},{"index":1,"embedding":[1.0e-05, -0.50]}],"model":"m"}')


@pytest.mark.parametrize(("first", "second"), [("1.0", "0.0"), ("1e0", "-0.0"), ('"1"', "0"), ('"1"', '"0"')])
def test_whole_numbers_in_any_spelling_are_indexes(first: str, second: str) -> None:
    body = f'{{"data":[{{"index":{first},"embedding":[2]}},{{"index":{second},"embedding":[1]}}]}}'.encode()
    assert repaired(body) == b'{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]}'
    body = f'{{"data":[{{"index":{second},"embedding":[1]}},{{"index":{first},"embedding":[2]}}]}}'.encode()
    assert repaired(body) == b'{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[2]}]}'


@pytest.mark.parametrize("index", ["0.5", '"a"', "true", '{"of": 1}', "[1]", "1e999"])
def test_an_index_that_is_no_whole_number_is_an_error(index: str) -> None:
    body = f'{{"data":[{{"index":{index},"embedding":[2]}},{{"index":0,"embedding":[1]}}]}}'.encode()
    with pytest.raises(InvalidResponse):
        repaired(body)


@pytest.mark.parametrize("index", ["", '"index":null,', '"index":"",', '"index":0,', '"index":"0",'])
def test_without_usable_indexes_the_position_becomes_the_index(index: str) -> None:
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
def test_sorted_embeddings_and_other_responses_do_not_change(body: bytes) -> None:
    assert repair_response(SORTED, Call(Shape.EMBEDDINGS), body) is body


@given(st.lists(st.integers(-2, 5) | st.none(), max_size=6))
def test_no_embedding_is_lost(indexes: list[int | None]) -> None:
    data = [{"index": index, "embedding": [place]} for place, index in enumerate(indexes)]
    items = json.loads(repaired(json.dumps({"data": data}).encode()))["data"]
    assert sorted(item["embedding"][0] for item in items) == list(range(len(indexes)))
    assert [item["index"] for item in items] == sorted({item["index"] for item in items})


VECTORS = [[0.5, 0.25], [0.125, -1.0]]
ITEMS = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(VECTORS)]
ASKED = Call(Shape.EMBEDDINGS, inputs=2, model="m")
BAD_VECTORS: list[object] = [None, [], [None], ["0.5"], [[0.5], [1]], {}, "x", 1]


def vectors(answer: object, *names: str, call: Call = ASKED) -> Any:
    repaired = repair_response(resolve(names), call, json.dumps(answer).encode())
    assert isinstance(repaired, bytes)
    return [item["embedding"] for item in json.loads(repaired)["data"]]


@pytest.mark.parametrize(
    "answer",
    [
        VECTORS,
        [{"index": n, "embedding": [vector]} for n, vector in enumerate(VECTORS)],
        {"data": VECTORS},
        {"embeddings": VECTORS},
        {"embeddings": {"float": VECTORS}},
        {"data": [{"index": n, "vector": vector} for n, vector in enumerate(VECTORS)]},
        {"data": [{"index": n, "embedding": {"values": vector}} for n, vector in enumerate(VECTORS)]},
        {"output": {"embeddings": [{"text_index": n, "embedding": v} for n, v in enumerate(VECTORS)]}},
    ],
)
def test_embeddings_in_other_shapes_become_a_list_under_data(answer: object) -> None:
    assert vectors(answer, "embedding_shapes", "float_embeddings", "unwrap_answer") == VECTORS


@pytest.mark.parametrize(
    "alone", [{"embedding": VECTORS[0]}, {"data": {"embedding": VECTORS[0]}}, VECTORS[0]]
)
def test_one_embedding_alone_becomes_a_list(alone: object) -> None:
    assert vectors(alone, "embedding_shapes") == VECTORS[:1]


@pytest.mark.parametrize("write", [in_base64, json.dumps, lambda vector: [vector]])
def test_numbers_are_written_unless_base64_was_asked_for(write: Callable[[list[float]], object]) -> None:
    answer = {"data": [{**item, "embedding": write(VECTORS[n])} for n, item in enumerate(ITEMS)]}
    assert vectors(answer, "float_embeddings") == VECTORS
    if write is in_base64:
        asked = Call(Shape.EMBEDDINGS, base64=True)
        assert vectors(answer, "float_embeddings", "check_embeddings", call=asked) == [*map(write, VECTORS)]


@pytest.mark.parametrize(
    "items",
    [
        ITEMS[:1],
        [*ITEMS, ITEMS[0]],
        [],
        *([ITEMS[0], {**ITEMS[1], "embedding": bad}] for bad in BAD_VECTORS),
        [ITEMS[0], {"index": 1}],
    ],
)
def test_embeddings_that_cannot_be_those_of_the_inputs_are_an_error(items: object) -> None:
    with pytest.raises(InvalidResponse):
        vectors({"data": items}, "check_embeddings")


def test_embeddings_of_numbers_pass_the_check_byte_for_byte() -> None:
    body = b'{"data": [{"embedding": [1.0e-05, -0.50, 3]}, {"embedding": [ 0 ]}]}'
    assert repair_response(resolve(["check_embeddings"]), ASKED, body) is body


@pytest.mark.parametrize("number", [1, 2])
def test_any_number_of_embeddings_passes_if_an_input_is_an_object(number: int) -> None:
    """Jina embeds each text and image, other vendors all of them as one."""
    sent = read_call(Shape.EMBEDDINGS, b'{"input": [{"text": "a"}, {"image": "b"}]}')
    assert vectors({"data": ITEMS[:number]}, "check_embeddings", call=sent) == VECTORS[:number]

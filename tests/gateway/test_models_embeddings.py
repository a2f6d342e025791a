"""Embeddings: vectors, and the forms of input."""

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.http import GatewayError
from proxy.gateway.models import EmbeddingItem, items_of, pack_vector
from tests.gateway.caller import Caller


def unpack(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)


@given(
    st.text(st.sampled_from("ab 你"), max_size=5) | st.lists(st.integers(0, 2**32), min_size=1),
    st.integers(1, 4096),
)
def test_vectors_have_their_size_and_length_one(item: EmbeddingItem, dimensions: int) -> None:
    vector = unpack(pack_vector(item, dimensions))
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-5)


def test_the_same_input_gives_the_same_vector_and_another_another() -> None:
    assert pack_vector("你好", 256) == pack_vector("你好", 256)
    assert pack_vector("你好", 256) != pack_vector("您好", 256)
    assert pack_vector("[1]", 256) != pack_vector([1], 256)


def test_four_forms_of_input() -> None:
    assert items_of("a") == ["a"]
    assert items_of(["a", "b"]) == ["a", "b"]
    assert items_of([1, 2]) == [[1, 2]]
    assert items_of([[1, 2], [3]]) == [[1, 2], [3]]


@pytest.mark.parametrize("mixture", [[], ["a", 1], [1, [2]], ["a", [1]]])
def test_mixtures_are_400(mixture: list[str | int | list[int]]) -> None:
    with pytest.raises(GatewayError) as caught:
        items_of(mixture)
    assert (caught.value.status, caught.value.param) == (400, "input")


async def test_the_view_answers_in_order(caller: Caller) -> None:
    body = {"input": ["one two", "三"], "model": "bge", "dimensions": 3}
    response = await caller.client.post("/v1/embeddings", json=body, headers=caller.headers)
    reply = await response.get_json()
    assert response.status_code == 200
    assert [item["index"] for item in reply["data"]] == [0, 1]
    assert [tuple(item["embedding"]) for item in reply["data"]] == [
        unpack(pack_vector("one two", 3)),
        unpack(pack_vector("三", 3)),
    ]
    assert reply["object"] == "list"
    assert reply["model"] == "bge"
    assert reply["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert caller.gateway.stats.embedding_requests == 1


async def test_base64_is_the_packed_vector(caller: Caller) -> None:
    body = {"input": [5, 6], "encoding_format": "base64"}
    response = await caller.client.post("/v1/embeddings", json=body, headers=caller.headers)
    item = (await response.get_json())["data"][0]
    assert item["object"] == "embedding"
    assert base64.b64decode(item["embedding"]) == pack_vector([5, 6], 256)

"""Token ids in embedding requests: read back where that is asked for, refused where that is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import repair_request, resolve


def spell(ids: list[int]) -> str:
    """An encoding in which every id is a character."""
    return "".join(map(chr, ids))


def decoded(sent: Any, *more: str, shape: Shape = Shape.EMBEDDINGS) -> Any:
    body = json.dumps({"model": "m", "input": sent, "n": 1.50}).encode()
    return json.loads(repair_request(resolve(["decode_token_ids", *more]), shape, body, spell))["input"]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ([72, 105], "Hi"),
        ([[72, 105], [20320, 22909]], ["Hi", "你好"]),
        ([[72], "text"], ["H", "text"]),
        ([[72, 105]], ["Hi"]),
    ],
)
def test_token_ids_become_the_texts_that_they_stand_for(sent: object, text: object) -> None:
    assert decoded(sent) == text
    assert decoded(sent, "refuse_token_ids") == text  # nothing is left to refuse


@pytest.mark.parametrize(
    "sent", ["text", ["a", "b"], [], [[]], [1.5, 2], [[1], [True]], [-1, 2], {"a": 1}, None]
)
def test_what_is_no_list_of_ids_stays(sent: object) -> None:
    if sent == [[1], [True]]:
        assert decoded(sent) == ["\x01", [True]]
    else:
        assert decoded(sent) == sent


def test_only_embeddings_are_read_and_only_where_it_is_on() -> None:
    body = b'{"input":[[72]],"n":1.50}'
    assert repair_request(resolve(["decode_token_ids"]), Shape.CHAT, body, spell) is body
    assert repair_request(resolve(["ragflow"]), Shape.EMBEDDINGS, body, spell) is body
    assert (
        repair_request(resolve(["decode_token_ids"]), Shape.EMBEDDINGS, body, spell)
        == b'{"input":["H"],"n":1.50}'
    )


def test_without_an_encoding_ids_are_refused_and_never_passed_on_in_silence() -> None:
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length"):
        repair_request(resolve(["decode_token_ids"]), Shape.EMBEDDINGS, b'{"input":[1,2]}')


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_no_text_is_lost_or_moved(texts: list[str]) -> None:
    assert decoded([[ord(letter) for letter in text] for text in texts]) == texts

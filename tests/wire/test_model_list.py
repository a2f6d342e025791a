"""Lists of models: lenient reading, strict writing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.model_list import MODELS_MAX, ModelEntry, filter_listing, listing, merge, read_entries, single


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"object": "list", "data": [{"id": "a", "object": "model", "created": 7, "owned_by": "x"}]},
         [ModelEntry("a", 7, "x")]),
        ({"data": [{"id": "a", "created": None, "owned_by": None}]}, [ModelEntry("a")]),
        ({"data": [{"id": "a", "max_model_len": 32768, "created": 7.0}]},
         [ModelEntry("a", 7, context_length=32768)]),
        ({"data": [{"id": "a", "context_length": None, "context_window": 8192}]},
         [ModelEntry("a", context_length=8192)]),
        ({"models": ["a", "b"]}, [ModelEntry("a"), ModelEntry("b")]),
        (["a", {"id": "b"}], [ModelEntry("a"), ModelEntry("b")]),
        ({"data": [{"id": ""}, {"id": 5}, {}, None, 5, "", {"id": "a", "created": True, "owned_by": ""}]},
         [ModelEntry("a")]),
        ({"data": []}, []),
    ],
)  # fmt: skip
def test_lists_of_upstreams_are_read(answer: object, expected: list[ModelEntry]) -> None:
    assert read_entries(json.dumps(answer).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": {}}', b"5", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_a_list_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        read_entries(body)


def test_each_model_is_listed_once_and_gaps_are_filled() -> None:
    ours = [ModelEntry("a", owned_by="us"), ModelEntry("b", context_length=5)]
    theirs = [ModelEntry("a", 7, "them", 4096), ModelEntry("b", context_length=6), ModelEntry("c")]
    assert merge([ours, theirs]) == [
        ModelEntry("a", owned_by="us", context_length=4096),
        ModelEntry("b", context_length=5),
        ModelEntry("c"),
    ]


@given(
    st.lists(
        st.builds(
            ModelEntry,
            st.text(min_size=1),
            st.integers(0, 1 << 40),
            st.text(min_size=1),
            st.none() | st.integers(1, 1 << 30),
        )
    )
)
def test_a_written_list_has_no_nulls_and_can_be_read(entries: list[ModelEntry]) -> None:
    body = listing(entries)
    answer = json.loads(body)
    assert set(answer) == {"object", "data"}
    assert answer["object"] == "list"
    for written in answer["data"]:
        assert written["object"] == "model"
        assert [type(written[key]) for key in ("id", "created", "owned_by")] == [str, int, str]
        assert None not in written.values()
    assert read_entries(body) == entries
    assert [json.loads(single(entry)) for entry in entries] == answer["data"]


@pytest.mark.parametrize("form", ['{"data": %s}', "%s"])
def test_a_list_of_too_many_models_is_rejected(form: str) -> None:
    most = (form % json.dumps(["m"] * MODELS_MAX)).encode()
    assert len(read_entries(most)) == MODELS_MAX
    assert filter_listing(most, "m".__eq__).count(b'"m"') == MODELS_MAX
    longer = (form % json.dumps(["m"] * (MODELS_MAX + 1))).encode()
    with pytest.raises(ValueError, match="too many models"):
        read_entries(longer)
    with pytest.raises(ValueError, match="too many models"):
        filter_listing(longer, "m".__eq__)

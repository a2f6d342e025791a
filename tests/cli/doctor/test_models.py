"""Models: what a name says about its model, and which base URL was probably meant."""

import pytest

from proxy.cli.doctor.models import NAMES_MAX, candidates, first_of, is_for_chat, kind_of, model_names


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("deepseek-chat", "chat"),
        ("bge-reranker-v2-m3", "rerank"),  # before "bge"
        ("BAAI/bge-m3", "embedding"),
        ("text-embedding-3-small", "embedding"),
        ("whisper-1", "speech"),
        ("qwen2.5-vl-72b", "vision"),
        ("gpt-4o", "vision"),
        ("evlab-chat", "chat"),  # no word `vl`
    ],
)
def test_a_kind_is_guessed_from_the_name(model: str, kind: str) -> None:
    assert kind_of(model) == kind
    assert is_for_chat(model) is (kind in {"chat", "vision"})


def test_the_first_of_a_kind_is_found() -> None:
    models = ["bge-m3", "whisper-1", "gpt-4o", "deepseek-chat"]
    assert first_of("chat", models) == "gpt-4o"
    assert first_of("embedding", models) == "bge-m3"
    assert first_of("rerank", models) is None


@pytest.mark.parametrize(
    ("base_url", "meant"),
    [
        ("http://a/v1/v1", ["http://a/v1", "http://a/v1", "http://a/v1"]),
        ("http://a", ["http://a/v1"]),
        ("http://a/v1/", ["http://a"]),
        ("http://a/api", ["http://a/api/v1", "http://a/v1"]),
        ("http://a/api/v3", ["http://a/v1"]),
    ],
)
def test_base_urls_that_may_have_been_meant(base_url: str, meant: list[str]) -> None:
    assert [url for _, url in candidates(base_url)] == meant


@pytest.mark.parametrize("value", [None, [], {}, {"data": None}, {"data": {"id": "m"}}, "data"])
def test_an_invalid_list_of_models_has_no_names(value: object) -> None:
    assert model_names(value) is None


def test_names_are_read_leniently_and_their_number_is_limited() -> None:
    assert model_names({"data": [{"id": "a"}, {}, "b", {"id": 3}, None]}) == ["a", "3"]
    assert model_names({"data": [{"id": "m"}] * (NAMES_MAX + 5)}) == ["m"] * NAMES_MAX

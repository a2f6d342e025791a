"""The endpoint table: every row can be reached, and its properties are consistent."""

import pytest

from proxy.wire.endpoints import (
    BARE_SEGMENTS,
    CHAT_COMPLETIONS,
    ENDPOINT_NAMES,
    FIXED_PATHS,
    OTHER,
    TABLE,
    Charge,
    Endpoint,
    ModelPlace,
    Shape,
    StreamEnd,
    match,
)
from tests.endpoints import endpoint_of

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.name}-{'-'.join(sorted(row.methods))}")


def example(pattern: str) -> str:
    """Return a path that matches a pattern."""
    return pattern.replace("**", "/below/it").replace("//", "/").replace("*", "id-1").replace("{model}", "a")


@ROWS
def test_every_row_is_found_by_its_paths(row: Endpoint) -> None:
    for pattern in row.paths or (row.name,):
        for method in row.methods or {"GET", "POST", "PUT", "PATCH", "DELETE"}:
            found = endpoint_of(example(pattern), method)
            assert found.name == row.name
            assert found is row or (
                not row.methods and found.methods
            )  # A row with this method takes precedence.


@ROWS
def test_head_is_treated_like_get(row: Endpoint) -> None:
    for pattern in row.paths or (row.name,):
        assert endpoint_of(example(pattern), "HEAD") is endpoint_of(example(pattern), "GET")


@ROWS
def test_the_properties_of_a_row_are_consistent(row: Endpoint) -> None:
    assert not row.heartbeats or row.stream is not None
    assert not row.form or row.model is ModelPlace.BODY
    assert not row.for_limited_keys or row.model is not ModelPlace.HIDDEN
    assert (row.charge is Charge.NOTHING) <= (row.model in {ModelPlace.NONE, ModelPlace.PATH})
    assert (row.model is ModelPlace.NONE) <= (row.charge is Charge.NOTHING)
    assert not row.uncounted or row.model is ModelPlace.HIDDEN
    assert not row.background or row.model is ModelPlace.BODY
    assert row.name == row.name.lower()


@pytest.mark.parametrize("shape", Shape)
def test_named_repairs_apply_at_one_endpoint_of_their_shape(shape: Shape) -> None:
    (row,) = (row for row in TABLE if row.shape is shape)
    assert row.name == shape


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "chat/completions"),
        ("PUT", "chat/completions"),
        ("DELETE", "embeddings"),
        ("POST", "models"),
        ("POST", "models/x:generateContent"),
        ("POST", "embeddings/x"),
        ("OPTIONS", "completions"),
    ],
)
def test_another_method_or_a_path_below_has_no_properties_of_the_endpoint(method: str, path: str) -> None:
    found = endpoint_of(path, method)
    assert (found.shape, found.heartbeats) == (None, False)
    assert found.stream is not StreamEnd.FINISH
    assert found.name in ENDPOINT_NAMES


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "batches"),
        ("POST", "threads/runs"),
        ("POST", "threads/t-1/runs"),
        ("POST", "assistants"),
        ("POST", "evals/e-1/runs"),
        ("POST", "fine_tuning/jobs"),
        ("POST", "realtime/client_secrets"),
        ("POST", "realtime/calls"),
        ("POST", "chatkit/sessions"),
        ("POST", "agents/sessions"),
        ("POST", "live/sessions"),
        ("POST", "videos/v-1/remix"),
        ("POST", "engines/gpt-b/completions"),
        ("POST", "deployments/gpt-b/chat/completions"),
        ("POST", "models/secret:generateContent"),
        ("POST", "models/secret/predict"),
        ("POST", "openai/deployments/gpt-b/chat/completions"),
        ("POST", "v1beta/models/x:generateContent"),
        ("POST", "messages"),
        ("PUT", "chat/completions"),
        ("POST", ""),
    ],
)
def test_endpoints_with_hidden_models_are_closed_to_limited_keys(method: str, path: str) -> None:
    found = endpoint_of(path, method)
    assert found.model is ModelPlace.HIDDEN
    assert not found.for_limited_keys


def test_a_name_covers_what_is_below_it() -> None:
    assert CHAT_COMPLETIONS.is_in(["embeddings", "chat/completions"])
    assert endpoint_of("audio/speech").is_in(["audio"])
    assert not endpoint_of("audio").is_in(["audio/speech"])
    assert not endpoint_of("completions").is_in(["chat/completions", "completion"])
    assert not OTHER.is_in(ENDPOINT_NAMES)


def test_openais_first_segments_are_served_bare() -> None:
    """OpenAI's specification and SDK. Of `chat`, all but one path belongs to the web chat."""
    assert set(BARE_SEGMENTS) >= {
        "agents", "assistants", "audio", "batches", "chatkit", "completions", "containers",
        "content_provenance_checks", "conversations", "decisions", "embeddings", "evals", "files",
        "fine_tuning", "images", "live", "models", "moderations", "organization", "projects", "realtime",
        "rerank", "responses", "safety", "skills", "threads", "uploads", "vaults", "vector_stores", "videos",
        "webhook_endpoints", "webhook_event_types",
    }  # fmt: skip
    assert not {"chat", "engines", "deployments", "other", "v1", "v2"} & set(BARE_SEGMENTS)


def test_a_model_in_the_path_is_found_where_the_pattern_has_it() -> None:
    assert match("GET", ["models", "a", "b"]).model == slice(1, None)
    assert match("POST", ["engines", "a", "completions"]).model == slice(1, 2)
    assert match("GET", ["models"]).model is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", ["models/a", "models/a/b", "engines/a/x", "fine_tuning/checkpoints/a/permissions"]
)
def test_the_id_of_a_model_is_found_for_every_method(method: str, path: str) -> None:
    segments = path.split("/")
    place = match(method, segments).model
    assert place is not None
    assert "a" in segments[place]


def test_the_fast_look_up_finds_the_same_endpoint() -> None:
    for (method, path), endpoint in FIXED_PATHS.items():
        assert match(method, path.decode()[1:].split("/")).endpoint is endpoint

"""Paths: which are refused, and what is left of the others for the upstream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.paths import BARE_SEGMENTS, Target, check_target, find_target

MOUNTS = ["", "/agent/api/llm_proxy"]


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("version", ["/v1", "/v1/v1", ""])
def test_every_mount_leads_to_the_same_endpoint(mount: str, version: str) -> None:
    target = find_target(f"{mount}{version}/chat/completions".encode())
    assert target == Target("chat/completions", b"/chat/completions")


@pytest.mark.parametrize("segment", BARE_SEGMENTS)
def test_bare_mount_takes_openais_first_segments(segment: str) -> None:
    assert find_target(f"/{segment}/x".encode()) == Target(f"{segment}/x", f"/{segment}/x".encode())


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/chat",
        b"/chat/stream",
        b"/other",
        b"/v1",
        b"/agent/api/llm_proxyxmodels",
        b"/livez",
        b"/v2/models",
    ],
)
def test_what_is_not_openais_is_not_found(path: bytes) -> None:
    with pytest.raises(NotFound):
        find_target(path)


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("base", ["", "/v1"])
def test_coheres_rerank_is_the_rerank_of_every_version(mount: str, base: str) -> None:
    assert find_target(f"{mount}{base}/v2/rerank".encode()) == Target("rerank", b"/rerank")


def test_any_path_below_v1_is_taken() -> None:
    assert find_target(b"/v1/some/new/api") == Target("some/new/api", b"/some/new/api")


def test_an_encoded_slash_stays_inside_its_segment() -> None:
    target = find_target(b"/v1/models/BAAI%2Fbge-m3")
    assert target == Target("models/BAAI%2Fbge-m3", b"/models/BAAI%2Fbge-m3")


def test_other_escapes_do_not_hide_an_endpoint() -> None:
    assert find_target(b"/v1/%65mbeddings") == Target("embeddings", b"/%65mbeddings")


@pytest.mark.parametrize(
    "path",
    [
        b"http://other.example/v1/models",
        b"*",
        b"//v1/models",
        b"/v1//models",
        b"/v1/models/",
        b"/v1/../admin",
        b"/v1/./models",
        b"/v1/%2e%2e/admin",
        b"/v1/%2E./admin",
        b"/v1/x%2f..%2fadmin",
        b"/v1/a\\b",
        b"/v1/a%5Cb",
        b"/v1/a%00b",
        b"/v1/a%0d%0ab",
        b"/v1/a%7f",
        b"/v1/a%zz",
        b"/v1/a%2",
        b"/v1/a#b",
    ],
)
def test_ambiguous_targets_are_refused(path: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_target(path, b"")


def test_a_fragment_in_the_query_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        check_target(b"/v1/models", b"a=1#x")


@pytest.mark.parametrize(
    "path", [b"/", b"/v1/models/gpt-4.1", b"/v1/files/a..b", b"/v1/x/%E4%BD%A0", b"/v1/a%2Fb"]
)
def test_sound_targets_pass(path: bytes) -> None:
    check_target(path, b"a=1&b=%23")


@given(st.binary(max_size=40))
def test_no_path_ever_climbs_out(tail: bytes) -> None:
    path = b"/v1/" + tail
    try:
        check_target(path, b"")
        target = find_target(path)
    except (InvalidRequest, NotFound):
        return
    assert target.path.startswith(b"/")
    assert not any(part in {"", ".", ".."} for part in target.endpoint.split("/"))

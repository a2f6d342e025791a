"""Paths: which are refused, and what is left of the others for the upstream."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.endpoints import BARE_SEGMENTS, CHAT_COMPLETIONS, EMBEDDINGS, OTHER, RERANK, Endpoint
from proxy.wire.paths import Target, check_target, find_target
from tests.endpoints import endpoint_of

MOUNTS = ["", "/agent/api/llm_proxy"]


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("version", ["/v1", "/v1/v1", ""])
def test_every_mount_leads_to_the_same_endpoint(mount: str, version: str) -> None:
    target = find_target("POST", f"{mount}{version}/chat/completions".encode())
    assert target == Target(CHAT_COMPLETIONS, b"/chat/completions")


@pytest.mark.parametrize("segment", BARE_SEGMENTS)
def test_bare_mount_takes_openais_first_segments(segment: str) -> None:
    assert find_target("POST", f"/{segment}/x".encode())[:2] == (
        endpoint_of(f"{segment}/x"),
        f"/{segment}/x".encode(),
    )


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
        find_target("GET", path)


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("base", ["", "/v1"])
def test_coheres_rerank_is_the_rerank_of_every_version(mount: str, base: str) -> None:
    assert find_target("POST", f"{mount}{base}/v2/rerank".encode()) == Target(RERANK, b"/rerank")


def test_any_path_below_v1_is_taken() -> None:
    assert find_target("GET", b"/v1/some/new/api") == Target(OTHER, b"/some/new/api")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1/models/gpt-4o", "gpt-4o"),
        (b"/models/GPT-4o", "GPT-4o"),
        (b"/v1/models/BAAI%2Fbge-m3", "BAAI/bge-m3"),
        (b"/v1/models/BAAI/bge-m3", "BAAI/bge-m3"),
        (b"/v1/models/a%20b%C3%A9", "a b\u00e9"),
        (b"/v1/models/a;b", "a;b"),
        (b"/v1/engines/org%2Fx/completions", "org/x"),
        (b"/v1/deployments/x/chat/completions", "x"),
        (b"/v1/fine_tuning/checkpoints/ft:x%2Fy/permissions", "ft:x/y"),
        (b"/v1/models", None),
        (b"/v1/chat/completions", None),
    ],
)
def test_the_model_of_a_path_is_read_and_the_path_stays(path: bytes, model: str | None) -> None:
    target = find_target("GET", path)
    assert target.model == model
    assert path.endswith(target.path)


SPELLINGS = [
    b"/v1/Chat/Completions",
    b"/v1/CHAT/completions",
    b"/v1/%63hat/completions",
    b"/v1/chat/%63%6F%6dpletions",
    b"/v1/chat;x=1/completions",
    b"/v1/chat/completions;jsessionid=1",
    b"/v1/chat/completions%3bx",
    b"/v1/v1/V1/chat/completions",
    b"/v1/v1/v1/v1/chat/completions",
    b"/v1/v1;a/chat/completions",
    b"/agent/api/llm_proxy/v1/cHaT/%43ompletions",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_hides_its_endpoint(path: bytes) -> None:
    target = find_target("POST", path)
    assert target.endpoint is CHAT_COMPLETIONS
    assert path.endswith(target.path)


@given(st.data())
def test_escapes_and_case_never_change_the_endpoint(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from([CHAT_COMPLETIONS, EMBEDDINGS, RERANK]))
    written = "/".join(data.draw(spelling(segment)) for segment in endpoint.name.split("/"))
    assert find_target("POST", f"/v1/{written}".encode()).endpoint is endpoint


@st.composite
def spelling(draw: st.DrawFn, segment: str) -> str:
    """A segment with some letters in another case, some escaped, and perhaps a path parameter."""
    written = ""
    for letter in segment:
        cased = draw(st.sampled_from([letter, letter.upper()]))
        written += draw(st.sampled_from([cased, f"%{ord(cased):02x}", f"%{ord(cased):02X}"]))
    return written + draw(st.sampled_from(["", ";", ";a=b", "%3B", "%3bx"]))


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/chat%2Fcompletions",
        b"/v1/chat%2fcompletions",
        b"/v1/embeddings%2Fx",
        b"/v1/files%2Ffile-1/content",
        b"/v1/files/a%2Fb",
        b"/v1/some%2Fnew/api",
        b"/v1/engines%2Fx/completions",
        b"/v1/engines/x/completions%2Fy",
        b"/v1/v1%2Fmodels/x",
    ],
)
def test_a_slash_is_only_encoded_inside_the_id_of_a_model(path: bytes) -> None:
    with pytest.raises(InvalidRequest):
        find_target("GET", path)


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


@given(st.sampled_from(["GET", "POST"]), st.binary(max_size=40))
def test_no_path_ever_climbs_out(method: str, tail: bytes) -> None:
    path = b"/v1/" + tail
    try:
        check_target(path, b"")
        target = find_target(method, path)
    except (InvalidRequest, NotFound):
        return
    assert target.path.startswith(b"/")
    assert isinstance(target.endpoint, Endpoint)
    assert not any(part in {b"", b".", b".."} for part in unquote_to_bytes(target.path[1:]).split(b"/"))

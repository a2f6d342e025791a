"""Paths: which are rejected, and which path and endpoint the others become."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest, NotFound
from proxy.wire.endpoints import BARE_SEGMENTS, CHAT_COMPLETIONS, EMBEDDINGS, OTHER, RERANK, Endpoint
from proxy.wire.paths import Target, check_target, find_target, loggable_path
from tests.endpoints import endpoint_of
from tests.hostile_paths import (
    HOSTILE_PATHS,
    leaves,
    like_go,
    like_tomcat,
    like_two_tomcats,
    real_nginx,
)
from tests.pace import paced

MOUNTS = ["", "/agent/api/llm_proxy"]


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("version", ["/v1", "/v1/v1", ""])
def test_every_mount_leads_to_the_same_endpoint(mount: str, version: str) -> None:
    target = find_target("POST", f"{mount}{version}/chat/completions".encode())
    assert target == Target(CHAT_COMPLETIONS, b"/chat/completions")


@pytest.mark.parametrize("segment", BARE_SEGMENTS)
def test_bare_mount_takes_openais_first_segments(segment: str) -> None:
    target = find_target("POST", f"/{segment}/x".encode())
    assert target.endpoint is endpoint_of(f"{segment}/x")
    assert target.path == f"/{segment}/x".encode()


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
def test_paths_outside_the_openai_api_are_not_found(path: bytes) -> None:
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
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_the_model_of_a_path_is_read_and_the_path_stays(method: str, path: bytes, model: str | None) -> None:
    target = find_target(method, path)
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
    """Return a segment with some letters in another case, some escaped, and perhaps a path parameter."""
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
def test_ambiguous_targets_are_rejected(path: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_target(path, b"")


def test_a_fragment_in_the_query_is_rejected() -> None:
    with pytest.raises(InvalidRequest):
        check_target(b"/v1/models", b"a=1#x")


@pytest.mark.parametrize(
    "path", [b"/", b"/v1/models/gpt-4.1", b"/v1/files/a..b", b"/v1/x/%E4%BD%A0", b"/v1/a%2Fb"]
)
def test_valid_targets_are_accepted(path: bytes) -> None:
    check_target(path, b"a=1&b=%23")


@given(st.sampled_from(["GET", "POST"]), st.binary(max_size=40))
def test_no_path_leaves_the_base_url(method: str, tail: bytes) -> None:
    path = b"/v1/" + tail
    try:
        check_target(path, b"")
        target = find_target(method, path)
    except (InvalidRequest, NotFound):
        return
    assert target.path.startswith(b"/")
    assert isinstance(target.endpoint, Endpoint)
    assert not any(part in {b"", b".", b".."} for part in unquote_to_bytes(target.path[1:]).split(b"/"))


BASE = b"/base/v1"
SOUND_PATHS = (
    "/v1/chat/completions", "/v1/v1/chat/completions", "/embeddings", "/v1/models/gpt-4.1",
    "/v1/models/BAAI%2Fbge-m3", "/v1/models/BAAI/bge-m3", "/v1/models/a..b", "/v1/models/..a",
    "/v1/models/a..", "/v1/models/.hidden", "/v1/models/a.;v=1", "/v1/models/a;b", "/v1/models/a%20b%C3%A9",
    "/v1/models/%E4%BD%A0%E5%A5%BD", "/v1/models/100%25", "/v1/models/50%2525", "/v1/models/a%3Fb",
    "/v1/models/a+b=c,d", "/v1/files/x.json", "/v1/files/a...b/content", "/v1/~user/@me/a:b;c=d,e!$&'()*+",
    "/v1/not/yet%20invented:v2", "/v1/models/x:generateContent", "/v1/models/ft:gpt-4o:org::id",
    "/agent/api/llm_proxy/v1/models/%6d", "/v1/%65mbeddings", "/v1/a-b_c~d",
)  # fmt: skip


def accepted(path: str) -> bytes | None:
    """Return the path sent to the upstream; None if the request is rejected."""
    raw = path.encode("latin-1")
    try:
        check_target(raw, b"")
        return find_target("GET", raw).path
    except (InvalidRequest, NotFound):
        return None


def test_hostile_paths_are_many() -> None:
    assert len(HOSTILE_PATHS) >= 250


@pytest.mark.parametrize("normalise", [like_tomcat, like_two_tomcats, like_go])
def test_no_hostile_path_leaves_the_base_url_by_any_normaliser(normalise: Callable[[bytes], bytes]) -> None:
    raw = [BASE + path.encode("latin-1").removeprefix(b"/v1") for path in HOSTILE_PATHS]
    assert sum(leaves(BASE, normalise(path)) for path in raw) > 40  # The purpose of the checks.
    sent = [BASE + path for text in HOSTILE_PATHS if (path := accepted(text)) is not None]
    assert [path for path in sent if leaves(BASE, normalise(path))] == []


async def test_no_hostile_path_leaves_the_base_url_in_nginx(tmp_path: Path) -> None:
    async with real_nginx(tmp_path) as nginx:
        raw = [BASE + path.encode("latin-1").removeprefix(b"/v1") for path in HOSTILE_PATHS]
        assert sum([await nginx.leaves(path) for path in raw]) > 20
        sent = [BASE + path for text in HOSTILE_PATHS if (path := accepted(text)) is not None]
        assert [path for path in sent if await nginx.leaves(path)] == []


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_hostile_paths_are_rejected_or_name_no_parent_folder(path: str) -> None:
    sent = accepted(path)
    while sent is not None:
        assert not any(set(part.partition(b";")[0]) <= set(b". ") for part in sent[1:].split(b"/"))
        decoded = unquote_to_bytes(sent)
        sent = None if decoded == sent else decoded


@pytest.mark.parametrize("path", SOUND_PATHS)
def test_valid_paths_are_forwarded_byte_for_byte(path: str) -> None:
    sent = accepted(path)
    assert sent is not None
    assert path.encode().endswith(sent)


@given(
    st.lists(st.sampled_from(["..", ".", "%2e", "%252e", ";", "%3b", "/", "%2f", "%252f", "a", "%20", "%25"]))
)
def test_no_mixture_of_dots_slashes_and_escapes_leaves_the_base_url(pieces: list[str]) -> None:
    for mount in ("/v1/", "/v1/models/", "/files/"):
        sent = accepted(mount + "".join(pieces))
        if sent is not None:
            for normalise in (like_tomcat, like_two_tomcats, like_go):
                assert not leaves(BASE, normalise(BASE + sent))


@pytest.mark.parametrize("query", [b"a=1\r\nX-Header: b", b"a\x00", b"a b", b"\xe4\xbd\xa0", b"a=1#x"])
def test_a_query_is_visible_ascii_without_a_fragment(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check_target(b"/v1/models", query)


@pytest.mark.parametrize(
    "unit", [b"%25", b"/a", b";a", b"%2e", b"%2f.a", b".", b"%c3%a9", b"%e2%80%a4x", b"a", b":", b"@:"]
)
def test_the_time_to_check_a_path_grows_with_its_length(unit: bytes) -> None:
    """A path of 64 KiB takes no longer than a whole request may, so the checks are linear."""
    path = b"/v1/models/x" + unit * ((64 << 10) // len(unit))
    since = time.process_time()
    with contextlib.suppress(InvalidRequest):
        loggable_path(path)
        check_target(path, b"")
        find_target("GET", path)
    assert time.process_time() - since < paced(0.5)


SECRET = "s3cr3t"
MARKS = [
    "?",
    "%3F",
    "%3f",
    "%253F",
    "%25253F",
    "%2525253F",
    "%EF%BC%9F",
    ";",
    "%3B",
    "&",
    "%26",
    "%23",
    "/?",
    "//",
]
PATHS_WITH_SECRETS = [
    *(f"{mount}/v1/models/m{mark}api_key={SECRET}" for mount in MOUNTS for mark in MARKS),
    f"/v1/api_key={SECRET}/models",
    f"/v1/api_key%3D{SECRET}/models",
    f"/v1/user:{SECRET}@upstream.test/models",
    f"/v1/user%3A{SECRET}%40upstream.test/models",
    f"/http://user:{SECRET}@upstream.test/v1/models",
    f"/http:/user:{SECRET}@upstream.test/v1/models",
    f"/http:%2F%2F{SECRET}@upstream.test/v1/models",
    f"http://user:{SECRET}@upstream.test/v1/models",
    f"//user:{SECRET}@upstream.test/v1/models",
    f"user:{SECRET}@upstream.test:443",
    f"{SECRET}",
    f"/sk-{SECRET}/v1/models",
    f"/v1/SK-{SECRET}/models",
    f"/v1/%73k-{SECRET}/models",
    f"/v1/models\\{SECRET}",
]


@pytest.mark.parametrize("path", PATHS_WITH_SECRETS)
def test_what_may_be_a_secret_in_a_path_is_not_logged(path: str) -> None:
    assert SECRET not in loggable_path(path.encode())


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/", "/"),
        ("*", "*"),
        ("/agent/api/llm_proxy/v1/chat/completions", "/agent/api/llm_proxy/v1/chat/completions"),
        ("/v1/models/org%2Fmodel-7b", "/v1/models/org/model-7b"),
        ("/v1/models/@cf/meta/llama-3", "/v1/models/@cf/meta/llama-3"),
        ("/v1/models/gemini-2:generateContent", "/v1/models/gemini-2:generateContent"),
        ("/v1/models/%E9%80%9A%E4%B9%89", "/v1/models/\u901a\u4e49"),
        ("/v1/files/a;/x", "/v1/files/a..."),
        ("/v1/models?api_key=1", "/v1/models..."),
    ],
)
def test_the_rest_of_a_path_is_logged_decoded(path: str, logged: str) -> None:
    assert loggable_path(path.encode()) == logged


@given(st.text(alphabet="/v1.@:;?&=%23bfFsSkK-\u00e9\uff1f", max_size=60))
def test_no_logged_path_has_a_query_or_parameters(path: str) -> None:
    logged = loggable_path(path.encode())
    assert not set("?;&=#") & set(logged)
    assert "//" not in logged

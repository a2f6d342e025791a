"""URLs of an upstream: relative below its base URL, dropped elsewhere."""

from urllib.parse import urljoin

import pytest

from proxy.wire.locations import relative_reference, relocate

BASE = "https://llm.corp.example/v1"
MOUNTED = "http://proxy/agent/api/llm_proxy/v1"


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/a/b", "/chat/completions"])
@pytest.mark.parametrize(
    ("value", "target"),
    [
        (f"{BASE}/files/f-1", "/files/f-1"),
        ("https://LLM.corp.example:443/v1/files/f-1", "/files/f-1"),
        ("//llm.corp.example/v1/files/f-1", "/files/f-1"),
        ("/v1/files/f-1?a=b#c", "/files/f-1?a=b#c"),
        ("/v1/f:1/x", "/f:1/x"),
        (" /v1/x\t", "/x"),
    ],
)
def test_a_url_below_the_base_leads_to_the_same_place_below_the_mount(
    value: str, target: str, path: str
) -> None:
    relative = relative_reference(value.encode(), BASE, path.encode())
    assert relative is not None
    assert "corp" not in relative.decode()
    assert urljoin(MOUNTED + path, relative.decode()) == MOUNTED + target


@pytest.mark.parametrize("value", [b"f-2", b"./f-2", b"../files/f-2", b"?page=2"])
def test_a_relative_url_stays_one(value: bytes) -> None:
    relative = relative_reference(value, BASE, b"/files/f-1")
    assert relative is not None
    assert urljoin(MOUNTED + "/files/f-1", relative.decode()) == urljoin(
        MOUNTED + "/files/f-1", value.decode()
    )


@pytest.mark.parametrize(
    "value",
    [
        b"http://10.0.0.7:8080/internal",
        b"http://llm.corp.example/v1/x",
        b"https://llm.corp.example:8443/v1/x",
        b"https://llm.corp.example.evil.example/v1/x",
        b"https://user@llm.corp.example/v1/x",
        b"https://llm.corp.example/v10/x",
        b"https://llm.corp.example/v1/../admin",
        b"https://llm.corp.example/v1/%2e%2e/admin",
        b"https://llm.corp.example/v1/..%2fadmin",
        b"https://llm.corp.example/v1//evil.example/x",
        b"https://llm.corp.example/",
        b"//10.0.0.7/v1/x",
        b"/admin",
        b"../../admin",
        b"javascript:alert(1)",
        b"data:text/html,x",
        b"file:///etc/passwd",
        b"\\\\10.0.0.7\\x",
        b"/v1/a b",
        b"/v1/\xe9",
        b"http://[",
        b"http://llm.corp.example:port/",
        b"",
    ],
)
def test_any_other_url_is_dropped(value: bytes) -> None:
    assert relative_reference(value, BASE, b"/files") is None
    for name in (b"Location", b"content-location"):
        assert relocate([(b"a", b"1"), (name, value)], BASE, b"/files") == [(b"a", b"1")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (
            b'<https://llm.corp.example/v1/files?after=2>; rel="next", </v1/files>; rel="first"',
            b'<./files?after=2>; rel="next", <./files>; rel="first"',
        ),
        (b'</v1/files>; rel="next", <http://10.0.0.7/>; rel="up"', None),
        (b'</v1/files>; rel="next"; anchor="http://10.0.0.7/"', None),
        (b"http://10.0.0.7/", None),
        (b"<" * 60_000, None),
    ],
)
def test_links_are_all_relative_or_none_is_kept(value: bytes, kept: bytes | None) -> None:
    assert relocate([(b"Link", value)], BASE, b"/files") == ([] if kept is None else [(b"Link", kept)])


def test_other_headers_stay_as_they_are() -> None:
    headers = [(b"x-url", b"http://10.0.0.7/")]
    assert relocate(headers, BASE, b"/files") is headers

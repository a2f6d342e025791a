"""Headers of an upstream that would affect a browser, or reveal the systems behind the proxy."""

import pytest

from tests.conftest import RunProxy
from tests.raw_caller import RawAnswer, raw_caller
from tests.raw_upstream import Conversation, Script, raw_upstream

PAGE = b"<script>fetch('/chat/session')</script>"
HTML = "Content-Type: text/html"


def answering(*headers: str, status: str = "200 OK", body: bytes = b"{}") -> Script:
    """Return an upstream that answers every request with these headers."""

    async def answer(talk: Conversation) -> None:
        has_body = talk.request.head.startswith(b"GET") and not status.startswith("304")
        await talk.answer(body if has_body else b"", *headers, status=status)

    return answer


async def returned(
    run_proxy: RunProxy, script: Script, method: str, path: str, access: str = ""
) -> RawAnswer:
    """Return the head of the response to a caller."""
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, access=access) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(method, path)
        answer = await caller.answer()
        assert len(upstream.requests) == 1
    return answer


@pytest.mark.parametrize("access", ["", 'mode = "open"'])
@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content", "404 Not Found"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/files/x.html"), ("HEAD", "/files/x/content"), ("OPTIONS", "/v1/any")]
)
async def test_a_page_of_an_upstream_runs_no_script_on_our_origin(
    run_proxy: RunProxy, method: str, path: str, status: str, access: str
) -> None:
    own_policy = "Content-Security-Policy: default-src *"
    script = answering(HTML, own_policy, "Refresh: 0; url=/chat/", status=status, body=PAGE)
    answer = await returned(run_proxy, script, method, path, access)
    assert answer.header("x-content-type-options") == ["nosniff"]
    assert answer.header("content-security-policy") == ["sandbox"]
    assert not answer.header("refresh")


@pytest.mark.parametrize(
    "status",
    ["200 OK", "201 Created", "202 Accepted", "300 Multiple Choices", "304 Not Modified"],
)
@pytest.mark.parametrize("name", ["Location", "Content-Location", "Operation-Location"])
@pytest.mark.parametrize("address", ["http://10.0.0.5:8080/v1/files/x", "//10.0.0.5/x", "http://[fd00::5]/"])
async def test_no_address_behind_the_proxy_is_revealed(
    run_proxy: RunProxy, status: str, name: str, address: str
) -> None:
    answer = await returned(run_proxy, answering(f"{name}: {address}", status=status), "GET", "/v1/files/x")
    assert not answer.header(name)
    assert answer.header("cache-control") == ["no-store"]

"""`Expect: 100-continue`: a caller gets a 100 only when its body is needed."""

import json

import pytest

from tests.conftest import KEY, RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHAT = "/v1/chat/completions"
LIMITED_KEY = "sk-canary-limited"
LIMITED = f"""
[[access.keys]]
name = "limited"
key = "{LIMITED_KEY}"
endpoints = ["embeddings"]
"""
REFUSED = {
    "an unknown key": (CHAT, "Bearer sk-nobody", 2, 401),
    "an unknown path": ("/nope", f"Bearer {KEY}", 2, 404),
    "an endpoint that the key may not use": (CHAT, f"Bearer {LIMITED_KEY}", 2, 403),
    "a body beyond the limit": (CHAT, f"Bearer {KEY}", 1 << 30, 413),
}


async def answer_with_the_body(talk: Conversation) -> None:
    """Answer with the body of the request."""
    await talk.answer(talk.request.body, "Content-Type: application/json")


def head(path: str, authorization: str, length: int) -> bytes:
    """Return the head of a request whose caller waits for a 100."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("name", REFUSED)
async def test_a_rejected_caller_gets_only_the_final_status(run_proxy: RunProxy, name: str) -> None:
    path, authorization, length, status = REFUSED[name]
    async with run_proxy("http://127.0.0.1:1", more=LIMITED) as proxy, raw_caller(proxy.url) as caller:
        await caller.write(head(path, authorization, length))
        answer = await caller.answer()
        assert answer.status == status
        assert answer.header("connection") == ["close"]
        assert "error" in json.loads(await caller.body(answer))
        assert await caller.closed() == b""


async def test_a_caller_whose_body_is_needed_gets_100_continue(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(answer_with_the_body) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.write(head(CHAT, f"Bearer {KEY}", 2))
        assert (await caller.answer()).status == 100
        await caller.write(b"{}")
        answer = await caller.answer()
        assert (answer.status, await caller.body(answer)) == (200, b"{}")

"""The total size of held bodies is limited, over all callers and for each caller."""

import json

import pytest

from tests.conftest import KEY, RunProxy
from tests.loopback import until
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
BODY = b'{"a": "%b"}' % (b"x" * 50_000)
HEAD = (
    f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    f"{JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", JSON)


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [("total_held_bytes", 503, "server_overloaded"), ("held_bytes_per_caller", 429, "rate_limit_exceeded")],
)
async def test_a_request_over_the_limit_is_rejected_and_the_others_are_served(
    run_proxy: RunProxy, limit: str, status: int, code: str
) -> None:
    more = f"[limits]\n{limit} = {2 * len(BODY)}"
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as one,
        raw_caller(proxy.url) as two,
        raw_caller(proxy.url) as three,
    ):
        held = proxy.services.worker.held
        for caller in (one, two):
            await caller.write(HEAD + BODY[:-1])
        await until(lambda: held.total == 2 * len(BODY) - 2)

        await three.send("POST", CHAT, JSON, body=BODY)
        refused = await three.answer()
        assert (refused.status, refused.header("retry-after")) == (status, ["1"])
        assert json.loads(await three.body(refused))["error"]["code"] == code

        for caller in (one, two):
            await caller.write(BODY[-1:])
            answer = await caller.answer()
            assert answer.status == 200
            await caller.body(answer)
        await until(lambda: held.total == 0)
        assert not held.by_caller


async def test_the_bytes_of_a_caller_who_leaves_are_released(run_proxy: RunProxy) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        held = proxy.services.worker.held
        async with raw_caller(proxy.url) as caller:
            await caller.write(HEAD + BODY[:-1])
            await until(lambda: held.total == len(BODY) - 1)
        await until(lambda: held.total == 0)

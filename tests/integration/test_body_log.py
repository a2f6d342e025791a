"""Bodies in the log: none by default, and otherwise both, up to their limit."""

from tests.conftest import RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

PROMPT = '{"model": "m", "messages": [{"role": "user", "content": "你是谁"}]}'.encode()
EVENTS = [b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"]


async def stream(talk: Conversation) -> None:
    """Answer with a short stream."""
    await talk.start_stream()
    for event in EVENTS:
        await talk.chunk(event)
    await talk.end()


async def logged(run_proxy: RunProxy, more: str) -> list[dict[str, object]]:
    """Return the log lines of one streamed chat."""
    async with (
        raw_upstream(stream) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", "Content-Type: application/json", body=PROMPT)
        assert await caller.body(await caller.answer()) == b"".join(EVENTS)
    return [dict(line) for line in proxy.lines]


async def test_no_body_is_logged_unless_asked_for(run_proxy: RunProxy) -> None:
    lines = await logged(run_proxy, "")
    assert "exchange" in [line["event"] for line in lines]
    assert "你是谁" not in str(lines)
    assert "[DONE]" not in str(lines)


async def test_request_and_response_bodies_are_logged_if_configured(run_proxy: RunProxy) -> None:
    lines = await logged(run_proxy, "[logs]\nbodies = true")
    bodies = [line for line in lines if line["component"] == "bodies"]
    assert [(line["event"], line["body"], line["truncated"]) for line in bodies] == [
        ("request_body", PROMPT.decode(), False),
        ("response_body", b"".join(EVENTS).decode(), False),
    ]
    assert lines[-1]["event"] == "exchange"  # it closes the account


async def test_a_logged_body_is_cut_at_its_limit(run_proxy: RunProxy) -> None:
    lines = await logged(run_proxy, "[logs]\nbodies = true\nbody_bytes = 20")
    bodies = [line for line in lines if line["component"] == "bodies"]
    assert [(line["body"], line["truncated"]) for line in bodies] == [
        (PROMPT[:20].decode(), True),
        (b"".join(EVENTS)[:20].decode(), True),
    ]

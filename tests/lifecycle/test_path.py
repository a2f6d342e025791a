"""The path of a request: calls between a view and the connector, and between the connection and an event."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import proxy
from proxy.upstream.connections import UpstreamConnector
from proxy.upstream.http1 import ArrivingResponse
from tests.conftest import RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHAT: Final = "/v1/chat/completions"
JSON: Final = "Content-Type: application/json"
EVENT: Final = b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'
ARCHITECTURE: Final = Path(proxy.__file__).parents[1] / "ARCHITECTURE.md"


def own_calls(frame: FrameType | None) -> list[str]:
    """Return the functions of this project between a frame and the connection, the innermost last."""
    calls: list[str] = []
    while frame is not None and (module := frame.f_globals["__name__"]) != "proxy.asgi":
        if module.startswith("proxy."):
            calls.insert(0, f"{module.removeprefix('proxy.')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return calls


def watch(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[list[str]]:
    """Record the callers of a method of the HTTP client."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    seen: list[list[str]] = []

    async def call(*args: Any, **kwargs: Any) -> Any:
        seen.append(own_calls(sys._getframe()))
        return await original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return seen


async def test_at_most_seven_calls_are_between_the_view_and_the_connector(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ok(talk: Conversation) -> None:
        await talk.answer(b"{}", JSON)

    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as running,
        raw_caller(running.url) as caller,
    ):
        seen = watch(monkeypatch, UpstreamConnector, "send")
        await caller.send("POST", CHAT, JSON, body=b'{"model": "m"}')
        assert (await caller.answer()).status == 200
    ((view, *calls),) = seen
    assert view == "blueprints.llm_proxy.chat_completions"
    assert len(calls) <= 7, calls
    drawn = ARCHITECTURE.read_text("utf-8")
    places = [drawn.find(f"  {call}\n") for call in (view, *calls)]
    assert -1 not in places, calls
    assert places == sorted(places), "ARCHITECTURE.md draws them in another order"


async def test_at_most_three_calls_are_between_the_connection_and_an_event(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stream(talk: Conversation) -> None:
        await talk.start_stream()
        for _ in range(3):
            await talk.chunk(EVENT)
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    async with (
        raw_upstream(stream) as upstream,
        run_proxy(upstream.url) as running,
        raw_caller(running.url) as caller,
    ):
        seen = watch(monkeypatch, ArrivingResponse, "read")
        await caller.send("POST", CHAT, JSON, body=b'{"model": "m", "stream": true}')
        answer = await caller.answer()
        assert (await caller.body(answer)).startswith(EVENT)
    streamed = [calls for calls in seen if not calls[0].startswith("blueprints.")]
    assert streamed
    assert {len(calls) for calls in streamed} == {3}, streamed

"""The thinking model: reasoning first, then an answer with Markdown."""

import json
from itertools import groupby
from typing import Any

import pytest

from proxy.gateway.completions import THINKING_MODELS, ChatMessage, ChatRequest, compose_thinking
from proxy.gateway.echo import QUOTED_CHARACTERS, PromptTurn, think
from tests.gateway.caller import Caller


def deltas(body: bytes) -> list[dict[str, Any]]:
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert events.pop() == b"[DONE]"
    return [json.loads(event)["choices"][0]["delta"] for event in events]


@pytest.mark.parametrize("model", sorted(THINKING_MODELS))
async def test_a_stream_thinks_first_and_then_answers(caller: Caller, model: str) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "天空为什么是蓝的？"}]}
    response = await caller.client.post("/v1/chat/completions", json=body, headers=caller.headers)
    got = deltas(await response.get_data(as_text=False))
    kinds = [kind for kind, _ in groupby(next(iter(delta), "") for delta in got)]

    assert kinds == ["role", "reasoning_content", "content", ""]
    answer = "".join(delta.get("content", "") for delta in got)
    assert "> 天空为什么是蓝的？\n" in answer
    for mark in ("### ", "1. **", "```python\n", "| 内容 | 来自 |\n|---|---|\n", "`行内代码`"):
        assert mark in answer


async def test_a_complete_response_has_both(caller: Caller) -> None:
    body = {"model": "x1", "messages": [{"role": "user", "content": "Why?"}]}
    response = await caller.client.post("/v1/chat/completions", json=body, headers=caller.headers)
    message = (await response.get_json())["choices"][0]["message"]

    assert message["reasoning_content"].startswith('The question is: "Why?".')
    assert message["content"].startswith("You asked:\n\n> Why?\n")


def test_joined_pieces_are_the_text_and_chinese_pieces_have_several_characters() -> None:
    thoughts, answer = think([PromptTurn("user", "写一首诗")])

    assert "".join(thoughts).endswith("一段一段显示的。\n")
    assert max(map(len, thoughts)) <= 9
    assert len(thoughts) + len(answer) < 250


def test_a_long_question_is_repeated_in_part_and_stays_a_quotation() -> None:
    _, answer = think([PromptTurn("user", "a\nb" + "c" * 1000)])

    assert "> a\n> b" + "c" * (QUOTED_CHARACTERS - 3) + "\n\n" in "".join(answer)


def test_max_tokens_may_end_it_during_the_reasoning() -> None:
    cut = compose_thinking(ChatRequest(model="x1", messages=[ChatMessage("user", "Why?")], max_tokens=3))

    assert (cut.thoughts, len(cut.pieces), cut.finish_reason) == (3, 3, "length")
    assert len(think([])[1]) > 0

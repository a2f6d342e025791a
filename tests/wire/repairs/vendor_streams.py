"""Streams as vendors write them, block by block.

The peculiarities are from the vendors' documentation and clients' bug reports: Azure's first chunk,
DeepSeek's comments, Spark's missing space and its codes, usage in odd places, calls without an index.
"""

import json
import random
from collections.abc import Callable
from typing import Any, Final

TEXT: Final = "text"
"""The stream of plain completions; all others are chats."""
DONE: Final = "data: [DONE]\n\n"
USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
WORDS: Final = ("Hello", " world", "你好", "，世界", "🙂", "\n", '"quoted"', "data: [DONE]", "<b>", "")


def _event(value: object, space: str = " ") -> str:
    return f"data:{space}{json.dumps(value, ensure_ascii=False)}\n\n"


def _chunk(delta: object, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def _words(draw: random.Random) -> list[str]:
    return [draw.choice(WORDS) for _ in range(draw.randint(1, 6))]


def _said(draw: random.Random, **more: Any) -> list[str]:
    return [_event(_chunk({"content": word}, **more)) for word in _words(draw)]


def _openai(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    more: dict[str, Any] = {"usage": None} if asked else {}
    last = [_event({**_chunk({}), "choices": [], "usage": USAGE})] if asked else []
    opening = _event(_chunk({"role": "assistant", "content": "", "refusal": None}, **more))
    return [opening, *_said(draw, **more), _event(_chunk({}, "stop", **more)), *last, DONE]


def _azure(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    first = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "prompt_filter_results": [{"prompt_index": 0}],
    }
    return [_event(first), *_openai(draw, asked)]


def _vllm(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    usage: dict[str, Any] = {"usage": USAGE}
    end = [_event({**_chunk({}), "choices": [], **usage})] if asked else []
    first = _event(_chunk({"role": "assistant"}, **usage))
    return [first, *_said(draw, **usage), _event(_chunk({"content": ""}, "stop", **usage)), *end, DONE]


def _deepseek(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    thoughts = [_event(_chunk({"content": None, "reasoning_content": word})) for word in _words(draw)]
    end = _event(_chunk({"content": ""}, "stop", usage={**USAGE, "prompt_cache_hit_tokens": 3}))
    waits = [": keep-alive\n\n"] * draw.randint(1, 4)
    return [*waits, *thoughts, *_said(draw), end, DONE]


def _qwen(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    parts = _event(_chunk({"content": [{"type": "text", "text": draw.choice(WORDS)}]}))
    usage = [_event({"choices": [], "object": "chat.completion.chunk", "usage": USAGE})]
    return [
        *_said(draw, usage=None),
        parts,
        _event(_chunk({"content": ""}, "stop", usage=None)),
        *usage,
        DONE,
    ]


def _spark(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    head = {"code": 0, "message": "Success", "sid": "cha000b"}
    said = [
        _event({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}, "")
        for word in _words(draw)
    ]
    failed = [_event({"code": 10014, "message": "audit (sid: cha000b)", "sid": "cha000b"}, "")]
    usage = _event({**head, "choices": [{"index": 0, "delta": {"content": ""}}], "usage": USAGE}, "")
    return [*said, *(failed if draw.random() < 0.3 else [usage]), DONE.replace(": ", ":")]


def _zhipu(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    first = _event(_chunk({"role": "assistant", "content": ""}, web_search=[{"link": ""}]))
    error = {"error": {"code": "1301", "message": "unsafe"}, "contentFilter": [{"level": 1}]}
    end = _event(_chunk({"content": ""}, draw.choice(["sensitive", "network_error", "stop"]), usage=USAGE))
    return [first, *_said(draw), *([_event(error)] if draw.random() < 0.2 else []), end, DONE]


def _moonshot(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    end = _chunk({}, "stop")
    end["choices"][0]["usage"] = {**USAGE, "cached_tokens": 1}
    return [*_said(draw), _event(end), DONE]


def _minimax(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    fine: dict[str, Any] = {"base_resp": {"status_code": 0, "status_msg": ""}}
    refused: dict[str, Any] = {"base_resp": {"status_code": 1027, "status_msg": "output sensitive"}}
    alone = _event({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
    last = (
        [_event(_chunk({"content": "x"}, **refused))]
        if draw.random() < 0.4
        else [alone] * (draw.random() < 0.2)
    )
    tool = _event(_chunk({"role": "tool", "content": "seen"}, messages=[]))
    return [*_said(draw, **fine), tool, *last, _event(_chunk({}, "stop", input_sensitive=False)), DONE]


def _one_api(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    empty = [_event(_chunk({"content": word}, "")) for word in _words(draw)]
    return [*empty, _event(_chunk({"content": draw.choice(WORDS)}, "stop", usage=USAGE)), DONE]


def _tools(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    calls = []
    for name in ("weather", "time")[: draw.randint(1, 2)]:
        start: dict[str, Any] = {"id": f"call_{name}", "type": "function"}
        start["function"] = {"name": name, "arguments": ""}
        more = [{"function": {"arguments": part}} for part in ('{"city":', '"北京"', "}")]
        calls += [start, *more]
    if draw.random() < 0.3:
        calls = [{**call, "index": None} for call in calls]
    lone = draw.random() < 0.2
    events = [_event(_chunk({"tool_calls": call if lone else [call]})) for call in calls]
    return [
        _event(_chunk({"role": "assistant", "content": None})),
        *events,
        _event(_chunk({}, "tool_calls")),
        DONE,
    ]


def _whole_calls(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    """Each call is whole, and has the index 0 and no id."""
    names = ["weather", "time", "weather"][: draw.randint(1, 3)]
    calls = [{"index": 0, "function": {"name": name, "arguments": '{"x":1}'}} for name in names]
    if draw.random() < 0.5:
        calls = [{**call, "type": "function"} for call in calls]
    events = [_event(_chunk({"tool_calls": [call]})) for call in calls]
    return [*events, _event(_chunk({}, "tool_calls")), DONE]


def _null_delta(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    return [_event(_chunk(None)), *_said(draw), _event(_chunk(None, "stop", usage=USAGE)), DONE]


def _sse_fields(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    bare = _openai(draw, asked)
    dressed = [f"event: message\nid: {number}\n{block}" for number, block in enumerate(bare)]
    return ["retry: 3000\n\n", *dressed, "event: ping\n\n", ": glued\n" + _event(_chunk({"content": "x"}))]


def _two_choices(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    one = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    other = {"index": 1, "delta": {"content": "b", "reasoning": "r"}, "finish_reason": "length"}
    return [_event({"choices": [one, other]}), _event({"choices": [{**one, "finish_reason": "stop"}]}), DONE]


def _text(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    """Plain completions, with usage on every chunk."""
    head = {"id": "c-1", "object": "text_completion", "usage": USAGE}
    said = [
        _event({**head, "choices": [{"index": 0, "text": word, "finish_reason": None}]})
        for word in _words(draw)
    ]
    end = {"index": 0, "text": draw.choice(WORDS), "finish_reason": "stop"}
    last = [_event({**head, "choices": []})] * asked
    return [*said, _event({**head, "choices": [end]}), *last, DONE]


def _broken(draw: random.Random, asked: bool) -> list[str]:  # noqa: FBT001
    error = draw.choice(
        [
            {"error": {"message": "busy", "type": "server_error", "code": None}},
            {"error": "busy"},
            {"error_code": 336003, "error_msg": "bad"},
            {"detail": "Not Found"},
            {"success": False, "message": "no"},
            {"object": "error", "message": "no", "code": 40001},
            {"Response": {"Error": {"Code": "LimitExceeded", "Message": "slow"}}},
        ]
    )
    said = _said(draw)
    return [*said[: draw.randint(0, len(said))], _event(error), *([DONE] if draw.random() < 0.5 else [])]


_Vendor = Callable[[random.Random, bool], list[str]]
VENDORS: Final[dict[str, _Vendor]] = {
    "openai": _openai,
    "azure": _azure,
    "vllm": _vllm,
    "deepseek": _deepseek,
    "qwen": _qwen,
    "spark": _spark,
    "zhipu": _zhipu,
    "moonshot": _moonshot,
    "minimax": _minimax,
    "one_api": _one_api,
    "tools": _tools,
    "whole_calls": _whole_calls,
    "null_delta": _null_delta,
    "sse_fields": _sse_fields,
    "two_choices": _two_choices,
    "broken": _broken,
    TEXT: _text,
}

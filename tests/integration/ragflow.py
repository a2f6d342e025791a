"""RAGFlow as a reader of answers: what it takes, what it stumbles over, how it sorts errors.

Facts of its v0.27, and of older releases where one is named; the code is ours.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.conftest import RunningProxy, RunProxy
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, Script, raw_upstream

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
JSON: Final = "Content-Type: application/json"
RAGFLOW: Final = 'repairs = ["ragflow"]'
ONE_UPSTREAM: Final = '[[routes.models]]\nmatch = "*"\nupstream = "chat"\n'
DONE: Final = b"data: [DONE]\n\n"
USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
HI: Final = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0.9,
    "stream": True,
}

Json = dict[str, Any]


# --- requests


@dataclass
class Place:
    """The proxy in front of an upstream, and RAGFlow's connection to it."""

    proxy: RunningProxy
    upstream: RawUpstream
    caller: RawCaller

    async def ask(self, body: Json, path: str = CHAT, *headers: str) -> tuple[RawAnswer, bytes]:
        """Post JSON as RAGFlow's clients do: `Accept` names JSON, even for streams."""
        said = json.dumps(body, ensure_ascii=False).encode()
        await self.caller.send("POST", path, JSON, "Accept: application/json", *headers, body=said)
        head = await self.caller.answer()
        return head, await self.caller.body(head)

    @property
    def sent_up(self) -> Json:
        """The last request to the upstream."""
        body = json.loads(self.upstream.requests[-1].body)
        assert isinstance(body, dict)
        return body


@asynccontextmanager
async def ragflow_before(
    run_proxy: RunProxy, script: Script, options: str = RAGFLOW, more: str = ""
) -> AsyncIterator[Place]:
    """Serve a script, and the proxy in front of it."""
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options=options, more=ONE_UPSTREAM + more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        yield Place(proxy, upstream, caller)


def whole(answer: object, status: str = "200 OK", *headers: str) -> Script:
    """Return an upstream that answers with this JSON."""

    async def script(talk: Conversation) -> None:
        await talk.answer(json.dumps(answer).encode(), JSON, *headers, status=status)

    return script


def streamed(*events: object) -> Script:
    """Return an upstream that streams these chunks; bytes stay unchanged."""

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        for event in events:
            await talk.chunk(
                event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
            )
        await talk.end()

    return script


# --- responses of upstreams


def chunk(finish: str | None = None, *, usage: Json | None = None, **delta: Any) -> Json:
    """Return a chunk with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [choice],
        **({"usage": usage} if usage else {}),
    }


def message(usage: Json | None = USAGE, **fields: Any) -> Json:
    """Return a whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [choice],
        **({"usage": usage} if usage else {}),
    }


# --- readers


class ErrorShown(Exception):
    """The message that users see after `**ERROR**`."""


def chunks(body: bytes) -> list[Json]:
    """Return the chunks of a stream, as the SDK does; the end marker is not required."""
    found = []
    for line in body.decode().split("\n"):
        said = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not said:
            continue
        if said == "[DONE]":
            break
        read = json.loads(said)
        if read.get("error"):
            raise ErrorShown(read["error"]["message"])
        found.append(read)
    return found


def chat_stream(body: bytes) -> tuple[str, int]:
    """Return the text, and the sum of the totals of all chunks."""
    text, tokens = "", 0
    for each in chunks(body):
        tokens += (each.get("usage") or {}).get("total_tokens", 0)
        if each["choices"]:
            text += each["choices"][0]["delta"].get("content") or ""
    return text, tokens


def vision_stream(body: bytes) -> str:
    """Read the first choice of every chunk, and the usage next to the last text."""
    text = ""
    for each in chunks(body):
        choice = each["choices"][0]
        text += choice["delta"].get("content") or ""
        if choice.get("finish_reason") == "stop" and choice["delta"].get("content"):
            assert each["usage"]["total_tokens"]
    return text


def tool_stream(body: bytes) -> dict[int, str]:
    """Return the arguments of every call by its index."""
    calls: dict[int, str] = {}
    for each in chunks(body):
        if not each["choices"]:
            continue
        for call in each["choices"][0]["delta"].get("tool_calls") or ():
            place = call["index"] + 0  # null is not an index
            calls[place] = calls.get(place, "") + call["function"]["arguments"]
    return calls


def chat(body: bytes) -> str:
    """Return the text of a whole answer."""
    content = json.loads(body)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def vision(body: bytes) -> tuple[str, int]:
    """Return the text of a whole answer, which must have a total."""
    return chat(body), json.loads(body)["usage"]["total_tokens"] + 0


def tools(body: bytes) -> dict[int, str]:
    """Return the calls of a whole answer, up to v0.24 each with its index. Without calls, require a text."""
    said = json.loads(body)["choices"][0]["message"]
    if not said.get("tool_calls"):
        said["content"].strip()
    return {call["index"] + 0: call["function"]["arguments"] for call in said.get("tool_calls") or ()}


def vectors(body: bytes) -> tuple[list[list[float]], int]:
    """Return vectors by index, up to v0.25.6 in the order of the list. The total may be absent, not null."""
    answer = json.loads(body)
    ordered = sorted(answer["data"], key=lambda item: item["index"])
    assert ordered == answer["data"]
    return [item["embedding"] for item in ordered], answer.get("usage", {"total_tokens": 0})[
        "total_tokens"
    ] + 0


_KINDS: Final = {
    "QUOTA": ("quota", "capacity", "credit", "billing", "balance"),
    "RATE_LIMIT": ("rate limit", "429", "tpm limit", "too many requests", "requests per minute"),
    "AUTH": ("auth", "key", "apikey", "401", "forbidden", "permission"),
    "INVALID": ("invalid", "bad request", "400", "format", "malformed", "parameter"),
    "SERVER": ("server", "503", "502", "504", "500", "unavailable"),
    "TIMEOUT": ("timeout",),
    "CONNECTION": ("connect", "network", "unreachable", "dns"),
}
RETRIED: Final = {"RATE_LIMIT", "SERVER"}
"""Kinds of errors after which it retries up to five times, after 20 to 300 seconds."""


def kind_of(error: str) -> str:
    """Return the kind of an error: the first one that matches its words."""
    told = error.lower()
    return next((kind for kind, words in _KINDS.items() if any(word in told for word in words)), "OTHER")

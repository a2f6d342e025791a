"""An upstream that does what the demonstration gateway never does, each by the name of a model."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.raw_upstream import Conversation, RawUpstream, raw_upstream

SETTINGS = """
[[routes.models]]
match = "odd-*"
upstream = "odd"

[upstreams.odd]
base_url = "{url}/v1"
credential = "odd"

[credentials.odd]
source = "static"
value = "static-upstream-token"
"""

JSON = "Content-Type: application/json"
CHAT = {"id": "c", "created": 1, "model": "odd"}
WORDS = ("first ", "second ")
FLAKY = "answered the second time"


@dataclass
class OddUpstream:
    """What it was asked for, by model, and who left before the end."""

    raw: RawUpstream = field(default_factory=RawUpstream)
    asked: list[str] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settings(self) -> str:
        """The part of the configuration that leads every model `odd-...` here."""
        return SETTINGS.format(url=self.raw.url)

    async def answer(self, talk: Conversation) -> None:
        """Play the part that the model names."""
        model = json.loads(talk.request.body)["model"].removeprefix("odd-")
        self.asked.append(model)
        part, _, status = model.partition("-")
        match part:
            case "status":
                await _fail(talk, int(status))
            case "flaky" if self.asked.count(model) == 1:
                await _fail(talk, 500)
            case "flaky":
                await _chat(talk, FLAKY)
            case "rerank":
                await _rerank(talk)
            case _:
                await self._break_off(talk, held=part == "held")

    async def _break_off(self, talk: Conversation, *, held: bool) -> None:
        """Stream two words; then wait until the caller leaves, or break off."""
        await talk.start_stream()
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {**CHAT, "object": "chat.completion.chunk", "choices": [choice]}
            await talk.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        if held:
            await talk.caller_left()
            self.left.set()
        else:
            talk.reset()


async def _fail(talk: Conversation, status: int) -> None:
    error = {"message": f"told to answer {status}", "type": "odd", "param": None, "code": None}
    await talk.answer(json.dumps({"error": error}).encode(), JSON, status=f"{status} Odd")


async def _chat(talk: Conversation, text: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = {**CHAT, "object": "chat.completion", "choices": [choice]}
    await talk.answer(json.dumps(answer).encode(), JSON)


async def _rerank(talk: Conversation) -> None:
    """Cohere's answer (https://docs.cohere.com/reference/rerank): the last document first."""
    count = len(json.loads(talk.request.body)["documents"])
    results = [{"index": index, "relevance_score": (index + 1) / count} for index in reversed(range(count))]
    meta = {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
    await talk.answer(json.dumps({"id": "r", "results": results, "meta": meta}).encode(), JSON)


@asynccontextmanager
async def odd_upstream() -> AsyncIterator[OddUpstream]:
    """Serve it on a free loopback port."""
    odd = OddUpstream()
    async with raw_upstream(odd.answer) as raw:
        odd.raw = raw
        yield odd

"""The upstream of a soak, which can end with all its connections and start again on the same port."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.raw_upstream import Conversation, raw_upstream
from tests.waiting import delay

LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@dataclass
class SoakUpstream:
    """Streams of numbered events, and tokens.

    Args:
        events: Of each stream.
        pause: Seconds between two events.
        token_seconds: The lifetime of a token.
    """

    events: int
    pause: float
    token_seconds: float
    url: str = ""
    fetches: int = 0
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)
    _talks: set[Conversation] = field(default_factory=set)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        self.url = (await self._running.enter_async_context(raw_upstream(self._answer, port=port))).url

    async def stop(self) -> None:
        """Stop listening, and reset all connections."""
        await self._running.aclose()
        for talk in [*self._talks]:
            talk.reset()

    async def _answer(self, talk: Conversation) -> None:
        if talk.request.target == b"/token":
            await self._answer_token(talk)
            return
        self._talks.add(talk)
        try:
            await self._stream(talk)
        finally:
            self._talks.discard(talk)

    async def _answer_token(self, talk: Conversation) -> None:
        self.fetches += 1
        expires = (time.time() + self.token_seconds) * 1000
        token = {"token": f"token-{self.fetches}", "expireTime": expires}
        await talk.answer(json.dumps({"code": 0, "data": token}).encode(), "Content-Type: application/json")

    async def _stream(self, talk: Conversation) -> None:
        nonce = json.loads(talk.request.body)["user"]
        await talk.start_stream()
        for number in range(self.events):
            event = {"choices": [], "nonce": nonce, "number": number}
            await talk.chunk(f"data: {json.dumps(event)}\n\n".encode())
            await delay(self.pause)
        await talk.chunk(LAST)
        await talk.end()


@asynccontextmanager
async def soak_upstream(events: int, pause: float, token_seconds: float) -> AsyncIterator[SoakUpstream]:
    """Serve until the end of the block."""
    upstream = SoakUpstream(events, pause, token_seconds)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()

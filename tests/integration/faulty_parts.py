"""An upstream and a token endpoint that fail as the request demands."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import Final

from tests.raw_upstream import Conversation
from tests.waiting import delay

JSON: Final = "Content-Type: application/json"
EVENT: Final = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]}\n\n'
END: Final = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
ERROR: Final = b'data: {"error": {"message": "out of memory"}}\n\n'
LONG_EVENTS: Final = 256
LONG_EVENT: Final = EVENT.replace(b'"x"', b'"%s"' % (b"x" * 1024))
TICK_SECONDS: Final = 0.1
PAUSED_SECONDS: Final = 0.5
"""An upstream that cannot write for this long is paused by backpressure."""


class FaultyUpstream:
    """An upstream that fails as the model of the request demands, and closes the connection."""

    def __init__(self, elsewhere: str) -> None:
        self.elsewhere = elsewhere
        self.revoked: dict[str, str] = {}
        """The first token of each model."""
        self.is_down = False
        self.may_answer = asyncio.Event()
        self.sent = Counter[str]()
        self.paused = 0

    async def __call__(self, talk: Conversation) -> None:
        model = json.loads(talk.request.body)["model"]
        self.sent[model] += 1
        await getattr(self, model.rpartition("/")[2])(talk)
        talk.writer.close()

    async def _events(self, talk: Conversation, *events: bytes) -> None:
        await talk.start_stream()
        for event in events:
            await talk.chunk(event)

    async def whole(self, talk: Conversation) -> None:
        await self._events(talk, EVENT, END)
        await talk.end()

    async def long(self, talk: Conversation) -> None:
        await self._events(talk, *[LONG_EVENT] * LONG_EVENTS, END)
        await talk.end()

    async def byte_by_byte(self, talk: Conversation) -> None:
        await self._events(talk, *(bytes([byte]) for byte in EVENT + END))
        await talk.end()

    async def floods(self, talk: Conversation) -> None:
        await talk.start_stream()
        try:
            while True:
                async with asyncio.timeout(PAUSED_SECONDS):
                    await talk.chunk(LONG_EVENT * 64)
        except TimeoutError:
            self.paused += 1
        await talk.caller_left()

    async def ticks(self, talk: Conversation) -> None:
        await talk.start_stream()
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.chunk(EVENT)
                await delay(TICK_SECONDS)

    async def waits(self, talk: Conversation) -> None:
        await self.may_answer.wait()
        await self.whole(talk)

    async def silent(self, talk: Conversation) -> None:
        await talk.caller_left()

    async def stalls(self, talk: Conversation) -> None:
        await self._events(talk, EVENT)
        await talk.caller_left()

    async def resets(self, talk: Conversation) -> None:
        talk.reset()

    async def fails_while_down(self, talk: Conversation) -> None:
        if self.is_down:
            talk.reset()
        else:
            await self.whole(talk)

    async def breaks(self, talk: Conversation) -> None:
        await self._events(talk, EVENT)

    async def stops(self, talk: Conversation) -> None:
        await self._events(talk, EVENT)
        await talk.end()

    async def empty(self, talk: Conversation) -> None:
        await self._events(talk)
        await talk.end()

    async def fails_in_an_event(self, talk: Conversation) -> None:
        await self._events(talk, EVENT, ERROR)
        await talk.end()

    async def endless_event(self, talk: Conversation) -> None:
        await self._events(talk, EVENT)
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.chunk(b"x" * 65_000)

    async def endless_head(self, talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await talk.say(b"X-A: " + b"a" * 65_000 + b"\r\n")

    async def interim(self, talk: Conversation) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)

    async def page(self, talk: Conversation) -> None:
        await talk.answer(b"<html>log in</html>", "Content-Type: text/html")

    async def not_utf8(self, talk: Conversation) -> None:
        await self._events(talk, EVENT, EVENT.replace(b'"x"', b'"\xff"'))
        await talk.caller_left()

    async def redirects(self, talk: Conversation) -> None:
        await talk.answer(b"", f"Location: {self.elsewhere}/v1/x", status="307 Temporary Redirect")

    async def limits(self, talk: Conversation) -> None:
        await talk.answer(b"{}", JSON, "Retry-After: 7", status="429 Too Many Requests")

    async def revokes(self, talk: Conversation) -> None:
        (header,) = talk.request.header("authorization")
        model = json.loads(talk.request.body)["model"]
        if header == self.revoked.setdefault(model, header):
            await talk.answer(b"{}", JSON, status="401 Unauthorized")
        else:
            await talk.answer(b"{}", JSON)

    async def returns_the_token(self, talk: Conversation) -> None:
        (header,) = talk.request.header("authorization")
        await talk.answer(header.removeprefix("Bearer ").encode(), JSON)


class FaultyIssuer:
    """Issues tokens, each the time at which it expires; the path names the credential and its fault."""

    def __init__(self, short_seconds: float) -> None:
        self.issued = Counter[str]()
        self.asked = Counter[str]()
        self.may_issue = asyncio.Event()
        self.is_down = False
        self._short_seconds = short_seconds

    async def __call__(self, talk: Conversation) -> None:
        name = talk.request.target.decode().strip("/")
        self.asked[name] += 1
        seconds = 3600.0
        if name == "held" and self.asked[name] > 1:  # the first one comes before any request
            await self.may_issue.wait()
        elif name == "hangs":
            await talk.caller_left()
        elif name == "dies":
            seconds = self._short_seconds
            if self.is_down:
                await talk.answer(b"{}", JSON, "Connection: close", status="500 Internal Server Error")
                return
        self.issued[name] += 1
        expires = time.time() + seconds
        token = {"code": 0, "data": {"token": f"{expires:.3f}", "expireTime": round(1000 * expires)}}
        await talk.answer(json.dumps(token).encode(), JSON, "Connection: close")

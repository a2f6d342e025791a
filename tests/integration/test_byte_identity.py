"""Byte identity at every endpoint, mount and method, with repairs off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, product
from typing import Final

import pytest
from hypothesis import given, settings

from proxy.request_body import BUFFER_BYTES
from tests.conftest import KEY, RunProxy
from tests.integration.drawn_exchanges import (
    BODILESS,
    ENDPOINTS,
    METHODS,
    MOUNTS,
    STATUSES,
    Asked,
    Pairs,
    Told,
    answers,
    chunked,
    requests,
)
from tests.pace import PATIENCE
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, Received, raw_upstream

OWN_UP: Final = {
    b"host", b"authorization", b"accept-encoding", b"x-request-id", b"content-length", b"transfer-encoding"
}  # fmt: skip
OWN_DOWN: Final = {
    b"date", b"x-request-id", b"connection", b"content-length", b"transfer-encoding", b"cache-control",
    b"x-content-type-options", b"content-security-policy",
}  # fmt: skip
OF_STREAMS: Final = {b"x-accel-buffering"}
SMALL: Final = "[limits]\nheld_body_bytes = 100"
"""A larger body is streamed, unless it is JSON or has arrived at once."""
UPLOAD: Final = bytes(range(256)) * (3 * BUFFER_BYTES // 256)
"""Too large to have arrived at once: the proxy sees at most the buffer and one read."""
ODD_JSON: Final = b' {"z":1.10,"a":1E5 ,"a":-0,"model":"m\\u00e9","n":[10000000000000000000000,1e400]}\r\n'


@dataclass
class Bench:
    """The running proxy between a caller and an upstream, both of which see the raw bytes."""

    url: str = ""
    upstream: RawUpstream = field(default_factory=RawUpstream)
    told: Told = field(default_factory=lambda: Told(200, [], []))

    async def say(self, talk: Conversation) -> None:
        """Send the drawn response, piece by piece."""
        told = self.told
        await talk.say(told.head)
        for piece in [] if talk.request.head.startswith(b"HEAD ") else told.pieces:
            await talk.say(chunked([piece]) if told.framing == "chunked" else piece)
            await asyncio.sleep(0)
        if told.status in BODILESS or talk.request.head.startswith(b"HEAD "):
            return
        if told.framing == "chunked":
            await talk.end()
        if told.framing == "close":
            talk.writer.close()

    async def exchange(self, asked: Asked, told: Told) -> None:
        """Send a request, answer it, and compare what both ends sent and received."""
        self.told = told
        self.upstream.requests.clear()
        async with asyncio.timeout(PATIENCE), raw_caller(self.url) as caller:
            await caller.write(asked.written(KEY))
            answer = await caller.answer()
            body = await body_of(caller, answer, asked.method)
            assert await caller.closed() == b""
        (received,) = self.upstream.requests
        assert_arrived(received, asked)
        assert_came_down(answer, body, asked, told)


async def body_of(caller: RawCaller, answer: RawAnswer, method: str) -> bytes:
    """Return the body that the caller gets; some responses have none by definition (RFC 9112 6.3)."""
    if method == "HEAD" or answer.status in BODILESS:
        return b""
    return await caller.body(answer)


def assert_arrived(received: Received, asked: Asked) -> None:
    """Check that the upstream received the request as it was sent, except for the headers of this hop."""
    line, *lines = received.head.split(b"\r\n")[:-2]
    assert line == b"%s /v1/%s HTTP/1.1" % (asked.method.encode(), asked.target)
    assert others([split(one) for one in lines], OWN_UP) == asked.headers
    assert received.body == asked.body


def assert_came_down(answer: RawAnswer, body: bytes, asked: Asked, told: Told) -> None:
    """Check that the caller received the response as it was sent, except for headers of this hop."""
    assert answer.status == told.status
    own = OWN_DOWN | (OF_STREAMS if told.is_events else set())
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    assert others(pairs, own) == told.headers
    has_body = asked.method != "HEAD" and told.status not in BODILESS
    assert body == (told.body if has_body else b"")
    if told.framing == "length" and told.status not in BODILESS and not told.is_events:
        assert answer.header("content-length") == [str(len(told.body))]


def split(line: bytes) -> tuple[bytes, bytes]:
    """Return the name and the value of a header line."""
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def others(pairs: Pairs, own: set[bytes]) -> Pairs:
    """Return the headers without those of the proxy, in order."""
    return [(name.lower(), value) for name, value in pairs if name.lower() not in own]


@asynccontextmanager
async def bench(run_proxy: RunProxy) -> AsyncIterator[Bench]:
    """Run the proxy between the two."""
    made = Bench()
    async with raw_upstream(made.say) as made.upstream, run_proxy(made.upstream.url, more=SMALL) as proxy:
        made.url = proxy.url
        yield made


@pytest.mark.parametrize("method", METHODS)
async def test_every_endpoint_passes_bytes_at_both_mounts_with_any_method(
    run_proxy: RunProxy, method: str
) -> None:
    events = [b": c\r\n\r\nda", b"ta: 1\r\r", b'data: {"n":1.10}\n\ndata: [DONE]\r\n\r\n']
    binary = bytes(range(256))
    told_events = Told(200, [(b"content-type", b"text/event-stream")], events, "chunked")
    json = [(b"content-type", b"application/json"), (b"x-custom", b"a")]
    form = [(b"content-type", b"multipart/form-data; boundary=b")]
    async with bench(run_proxy) as made:
        for (mount, endpoint), status in zip(product(MOUNTS, ENDPOINTS), cycle(STATUSES), strict=False):
            asked = Asked(method, mount, endpoint, b"a=%20b&c&a=+%2F", json, ODD_JSON)
            body = [] if status in BODILESS else [ODD_JSON]
            await made.exchange(asked, Told(status, [*json[:1], (b"x-vendor", b"v")], body))
            asked = Asked(method, mount, endpoint, b"", form, binary, [binary[:90], binary[90:]])
            await made.exchange(asked, told_events)


@pytest.mark.parametrize("chunks", [None, [UPLOAD[:1], UPLOAD[1:500_001], UPLOAD[500_001:]]])
async def test_every_endpoint_streams_an_upload_byte_for_byte(
    run_proxy: RunProxy, chunks: list[bytes] | None
) -> None:
    form = [(b"content-type", b"multipart/form-data; boundary=b")]
    async with bench(run_proxy) as made:
        for mount in MOUNTS:
            for endpoint in ENDPOINTS:
                asked = Asked("POST", mount, endpoint, b"a=%20", form, UPLOAD, chunks)
                await made.exchange(asked, Told(201, [], [ODD_JSON]))


async def test_any_exchange_passes_byte_for_byte(run_proxy: RunProxy) -> None:
    loop = asyncio.get_running_loop()
    async with bench(run_proxy) as made:

        @settings(max_examples=200, derandomize=True)
        @given(requests(), answers())
        def passes(asked: Asked, told: Told) -> None:
            asyncio.run_coroutine_threadsafe(made.exchange(asked, told), loop).result(2 * PATIENCE)

        # Hypothesis blocks during each exchange, but the loop of the servers must not.
        await asyncio.to_thread(passes)

"""The CPU time of a request grows with its size, and no faster, however it is cut."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from proxy.server.http1 import ConnectionLimits
from tests.server.conftest import Message, Served, served

ROUNDS: Final = 5
GROWTH_MAX: Final = 2.6
"""Of the CPU time, where the input doubles: 2 and some noise. A quadratic cost grows by 4."""
ROOMY: Final = ConnectionLimits(headers=1 << 20, head_bytes=1 << 24, target_bytes=1 << 20)
BODY: Final = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
HEAD: Final = b"GET /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


async def swallow(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Read the whole body, and answer."""
    while (await receive())["more_body"]:
        pass
    headers: list[Any] = [(b"content-length", b"%d" % len(str(len(scope["headers"]))))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(len(scope["headers"])).encode()})


def in_chunks(count: int) -> bytes:
    """A body of chunks of one byte."""
    return BODY + b"1\r\na\r\n" * count + b"0\r\n\r\n"


def in_headers(count: int) -> bytes:
    """A head of so many lines."""
    return HEAD + b"".join(b"X-%d: a\r\n" % (number % 1000) for number in range(count)) + b"\r\n"


def in_target(count: int) -> bytes:
    """A target of so many bytes."""
    return b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (b"a" * count)


async def seconds(server: Served, request: bytes, piece: int) -> float:
    """The best CPU time of a request that is written in pieces, its caller's included."""
    best = float("inf")
    for _ in range(ROUNDS):
        caller = await server.connect()
        began = time.process_time()
        for start in range(0, len(request), piece):
            caller.writer.write(request[start : start + piece])
            await asyncio.sleep(0)  # the server reads this piece, and not several at once
        assert (await caller.head()).startswith(b"HTTP/1.1 200 ")
        best = min(best, time.process_time() - began)
        caller.writer.close()
    return best


@pytest.mark.parametrize(
    ("request_of", "count", "piece"),
    [
        (in_chunks, 10_000, 12),
        (in_chunks, 100_000, 1 << 16),
        (in_headers, 5_000, 12),
        (in_headers, 50_000, 1 << 16),
        (in_target, 10_000, 1),
    ],
    ids=["small pieces of a body", "a body", "small pieces of headers", "headers", "bytes of a target"],
)
async def test_the_cost_of_a_request_grows_with_its_size_and_no_faster(
    request_of: Callable[[int], bytes], count: int, piece: int
) -> None:
    async with served(swallow, ROOMY) as server:
        await seconds(server, request_of(count), piece)  # warms up
        once = await seconds(server, request_of(count), piece)
        twice = await seconds(server, request_of(2 * count), piece)
    assert twice <= GROWTH_MAX * once, f"{count}: {once:.4f} s, {2 * count}: {twice:.4f} s"

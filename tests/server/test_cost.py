"""The CPU time of a request grows with its size, and no faster, however it is cut."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from proxy.server.limits import ConnectionLimits
from tests.linear_time import FACTOR, assert_linear_requests
from tests.server.conftest import Message, served

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


@pytest.mark.parametrize(
    ("request_of", "count", "piece"),
    [
        (in_chunks, 5_000, 12),
        (in_chunks, 50_000, 1 << 16),
        (in_headers, 2_500, 12),
        (in_headers, 25_000, 1 << 16),
        (in_target, 5_000, 1),
    ],
    ids=["small pieces of a body", "a body", "small pieces of headers", "headers", "bytes of a target"],
)
async def test_the_cost_of_a_request_grows_with_its_size_and_no_faster(
    request_of: Callable[[int], bytes], count: int, piece: int
) -> None:
    requests = {size: request_of(size) for size in (count, FACTOR * count)}

    async with served(swallow, ROOMY) as server:

        async def send(size: int) -> None:
            request = requests[size]
            caller = await server.connect()
            for start in range(0, len(request), piece):
                caller.writer.write(request[start : start + piece])
                await asyncio.sleep(0)  # the server reads this piece, and not several at once
            assert (await caller.head()).startswith(b"HTTP/1.1 200 ")
            caller.writer.close()

        await assert_linear_requests(send, count)

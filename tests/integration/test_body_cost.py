"""The CPU time of a body in chunks of one byte, through the whole service."""

import asyncio
from typing import Final

from tests.conftest import KEY, RunProxy
from tests.linear_time import FACTOR, assert_linear_requests
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHUNKS: Final = 10_000
PIECE: Final = 60
HEAD: Final = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\r\n"
)


def chunked(count: int) -> bytes:
    """Return a JSON body of a size, in chunks of one byte."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"a":"%b"}' % (b"x" * (count - 8)))


async def test_the_cost_of_a_body_in_chunks_of_a_byte_grows_linearly(run_proxy: RunProxy) -> None:
    bodies = {count: chunked(count) for count in (CHUNKS, FACTOR * CHUNKS)}

    async def count(talk: Conversation) -> None:
        await talk.answer(b"%d" % len(talk.request.body))

    async with raw_upstream(count) as upstream, run_proxy(upstream.url) as proxy:

        async def send(chunks: int) -> None:
            body = bodies[chunks]
            async with raw_caller(proxy.url) as caller:
                await caller.write(HEAD.encode())
                for start in range(0, len(body), PIECE):
                    await caller.write(body[start : start + PIECE])
                    await asyncio.sleep(0)  # the service reads this piece, and not several at once
                await caller.write(b"0\r\n\r\n")
                answer = await caller.answer()
                assert answer.status == 200
                assert await caller.body(answer) == b"%d" % chunks

        await assert_linear_requests(send, CHUNKS)

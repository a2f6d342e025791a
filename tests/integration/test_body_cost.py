"""The CPU time of a body in chunks of one byte, through the whole service."""

import asyncio
import time
from typing import Final

from tests.conftest import KEY, RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHUNKS: Final = 20_000
PIECE: Final = 60
ROUNDS: Final = 4
GROWTH_MAX: Final = 2.6
"""Where the body doubles: 2 and some noise. A quadratic cost grows by 4."""
HEAD: Final = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\r\n"
)


async def seconds(url: str, chunks: int) -> float:
    """The best CPU time of a request, its caller's and its upstream's included."""
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"a":"%b"}' % (b"x" * (chunks - 8)))
    best = float("inf")
    for _ in range(ROUNDS):
        async with raw_caller(url) as caller:
            began = time.process_time()
            await caller.write(HEAD.encode())
            for start in range(0, len(body), PIECE):
                await caller.write(body[start : start + PIECE])
                await asyncio.sleep(0)  # the service reads this piece, and not several at once
            await caller.write(b"0\r\n\r\n")
            answer = await caller.answer()
            assert answer.status == 200
            assert await caller.body(answer) == b"%d" % chunks
            best = min(best, time.process_time() - began)
    return best


async def test_a_body_in_chunks_of_a_byte_costs_what_its_size_does(run_proxy: RunProxy) -> None:
    async def count(talk: Conversation) -> None:
        await talk.answer(b"%d" % len(talk.request.body))

    async with raw_upstream(count) as upstream, run_proxy(upstream.url) as proxy:
        await seconds(proxy.url, CHUNKS)  # warms up
        once, twice = await seconds(proxy.url, CHUNKS), await seconds(proxy.url, 2 * CHUNKS)
    assert twice <= GROWTH_MAX * once, f"{CHUNKS} chunks: {once:.3f} s, twice as many: {twice:.3f} s"

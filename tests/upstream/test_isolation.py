"""Two callers in turn, in front of upstreams that break HTTP: neither gets a byte of the other's answers.

`PROXY_TEST_ISOLATION_REQUESTS=10000` runs the number of requests that the design asks for.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import pytest

from proxy.upstream.transport import UpstreamTransport
from tests.misbehaving_upstreams import MISBEHAVIOURS, NONCE, UNREADABLE, Script, honest, misbehaving_upstream
from tests.waiting import delay

REQUESTS: Final = int(os.environ.get("PROXY_TEST_ISOLATION_REQUESTS", "60"))
SEED: Final = 20261126
GIVE_UP_SECONDS: Final = 0.3
PLANTED: Final = b"GET /v1/planted?nonce=%s HTTP/1.1\r\nHost: x\r\n\r\n"
"""A body that an upstream may mistake for a request."""


async def ask(transport: UpstreamTransport, url: str, nonce: bytes, draw: random.Random) -> list[bytes]:
    """Send one request as a caller would; return all nonces in the response."""
    method = draw.choice(["POST", "POST", "POST", "GET", "HEAD", "DELETE"])
    content: bytes | AsyncIterator[bytes] = b""
    if draw.random() < 0.8:
        content = (PLANTED % nonce) * draw.choice([1, 1, 2, 200])
    if method == "POST" and draw.random() < 0.1:
        content = _pieces(PLANTED % nonce)
    arrived = b""
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            response = await transport.send(method, url, b"/v1/x?nonce=" + nonce, [], content, connect=5.0)
            try:
                arrived += b"\n".join(name + b":" + value for name, value in response.headers)
                while chunk := await response.read():
                    arrived += chunk
            finally:
                await response.aclose()
    except (httpx2.TransportError, TimeoutError):
        pass  # a broken upstream may not answer
    return NONCE.findall(arrived)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content[:5]
    await asyncio.sleep(0)
    yield content[5:]


async def take_turns(script: Script, *, streams: bool, requests: int) -> tuple[int, list[bytes]]:
    """Let two callers send requests in turn; count their own nonces, and return the foreign ones."""
    draw, own, foreign = random.Random(SEED), 0, list[bytes]()
    async with (
        misbehaving_upstream(lambda _: script, SEED, streams=streams) as upstream,
        UpstreamTransport(tls=False) as transport,
    ):
        for number in range(requests):
            nonce = b"%s-%06d" % (b"AB"[number % 2 :][:1], number)
            got = await ask(transport, upstream.url, nonce, draw)
            own += got.count(nonce)
            foreign += [other for other in got if other != nonce]
            if draw.random() < 0.02:  # long enough for connections to be trusted, or to close
                await delay(draw.choice([0.01, 0.06, 0.1]))
    return own, foreign


@pytest.mark.timeout(60 + REQUESTS)
@pytest.mark.parametrize("streams", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("script", [honest, *MISBEHAVIOURS], ids=lambda script: script.__name__)
async def test_no_caller_gets_a_byte_of_another(script: Script, streams: bool) -> None:  # noqa: FBT001
    own, foreign = await take_turns(script, streams=streams, requests=REQUESTS)
    assert foreign == []
    assert own > 0 or script in UNREADABLE

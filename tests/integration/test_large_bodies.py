"""Large bodies through the real process: they are streamed both ways, and its memory does not grow."""

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.benchmarks.process import memory_mb
from tests.cli.processes import read_until, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.pace import PATIENCE
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

MIB: Final = 1 << 20
LARGE_BYTES: Final = 50 * MIB
WARMING_BYTES: Final = 2 * MIB
"""More than is held, so that the memory for streaming is allocated before the measurement."""
GROWTH_MB_MAX: Final = 8.0
BLOCK: Final = os.urandom(MIB)
FORM_HEAD: Final = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n--b\r\n'
    b'Content-Disposition: form-data; name="file"; filename="\xe4\xbd\xa0.jsonl"\r\n\r\n'
)
FORM_TAIL: Final = b"\r\n--b--\r\n"
Transfer = Callable[[RawCaller, int], Awaitable[None]]


@dataclass
class Service:
    """The running process."""

    url: str
    pid: int

    def memory_mb(self, field: str) -> float:
        """Return a size of the process from /proc."""
        return memory_mb([self.pid], field)


def blocks(size: int) -> list[bytes]:
    """Return a body of a size, in pieces that share their memory."""
    return [BLOCK] * (size // MIB)


def form(size: int) -> list[bytes]:
    """Return a multipart body with a file of a size."""
    return [FORM_HEAD, *blocks(size), FORM_TAIL]


def digest(pieces: list[bytes]) -> str:
    """Return the digest of all pieces."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


async def serve_files(talk: Conversation) -> None:
    """Answer an upload with its digest, and a download with the number of bytes in its path."""
    if talk.request.head.startswith(b"POST"):
        await talk.answer(hashlib.sha256(talk.request.body).hexdigest().encode())
        return
    size = int(talk.request.target.split(b"/")[3])
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n" % size)
    for block in blocks(size):
        await talk.say(block)


@asynccontextmanager
async def service(path: Path) -> AsyncIterator[Service]:
    """Run the proxy as an operator would, in front of the files."""
    path = path / "proxy.toml"
    async with raw_upstream(serve_files) as upstream:
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(path), "--bind", "127.0.0.1:0"]
        # The log, which has its address, is written to standard error.
        async with running("sh", "-c", 'exec "$@" 2>&1', "sh", *command) as process:
            said = await read_until(process, r"addresses")
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found is not None
            yield Service(found[0], process.pid)


async def upload(caller: RawCaller, size: int) -> None:
    """Upload a file, and compare its digest at the upstream with that of the sent bytes."""
    pieces = form(size)
    await caller.write(
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % (KEY.encode(), sum(map(len, pieces)))
    )
    for piece in pieces:
        await caller.write(piece)
    assert (await caller.body(await caller.answer())).decode() == digest(pieces)


async def download(caller: RawCaller, size: int) -> None:
    """Download a file, and compare its digest with that of the upstream's bytes."""
    await caller.send("GET", f"/v1/files/{size}/content")
    answer = await caller.answer()
    assert answer.header("content-length") == [str(size)]
    got, left = hashlib.sha256(), size
    while left:
        piece = await caller.reader.read(min(left, MIB))
        assert piece
        got.update(piece)
        left -= len(piece)
    assert got.hexdigest() == digest(blocks(size))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("transfer", [upload, download])
async def test_a_large_body_streams_without_filling_the_memory(tmp_path: Path, transfer: Transfer) -> None:
    async with service(tmp_path) as running_service, raw_caller(running_service.url) as caller:
        async with asyncio.timeout(3 * PATIENCE):
            await transfer(caller, WARMING_BYTES)
            before = running_service.memory_mb("VmRSS")
            await transfer(caller, LARGE_BYTES)
        grown = running_service.memory_mb("VmHWM") - before
    assert grown < GROWTH_MB_MAX

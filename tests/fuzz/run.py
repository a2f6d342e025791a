"""One round: a new proxy in front of two upstreams, and callers with one connection each."""

import asyncio
import contextlib
import functools
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from proxy.app import create_app
from proxy.settings import load_settings
from tests.fuzz.draws import HONESTY, Call, draw_call, draw_script
from tests.loopback import serve_on_loopback
from tests.misbehaving_upstreams import NONCE, misbehaving_upstream
from tests.pace import paced

KEY: Final = "sk-fuzz-51b3a9"
CALLERS: Final = 24
GIVE_UP_SECONDS: Final = paced(1.0)
"""After this time a caller leaves, because some upstreams never end a response."""
SETTINGS: Final = """
[access]
[[access.keys]]
name = "fuzz"
key = "{key}"
[routes]
default = "chat"
embeddings = "embed"
files = "embed"
[upstreams.chat]
base_url = "{chat}/v1"
timeouts = {{ idle = 5, first_byte = 5 }}
[upstreams.embed]
base_url = "{embed}/v1"
timeouts = {{ idle = 5, first_byte = 5 }}
[limits]
held_body_bytes = 100
"""


@dataclass
class Tally:
    """The results of the requests."""

    asked: int = 0
    cancelled: int = 0
    own: int = 0
    """Requests whose caller found its own nonce in the response."""
    connections: int = 0
    """Connections that the upstreams accepted."""
    upstream_requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    foreign: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Nonces of callers, with the foreign nonces that they found."""

    def add(self, other: "Tally") -> None:
        """Add the results of another round."""
        self.asked += other.asked
        self.cancelled += other.cancelled
        self.own += other.own
        self.connections += other.connections
        self.upstream_requests += other.upstream_requests
        self.statuses += other.statuses
        self.foreign += other.foreign


async def run_round(seed: int, number: int, calls: range, cancels: float) -> Tally:
    """Serve these calls.

    Args:
        seed: Of the run.
        number: Of the round: it decides how honest the upstreams are.
        calls: The numbers of the calls.
        cancels: The share of callers who leave early.
    """
    tally, left = Tally(), iter(calls)
    with TemporaryDirectory(prefix="fuzz-") as folder, _quiet_logs():
        honesty = [HONESTY[number % len(HONESTY)], HONESTY[number // len(HONESTY) % len(HONESTY)]]
        choose = [functools.partial(draw_script, share) for share in honesty]
        async with (
            misbehaving_upstream(choose[0], seed, streams=None) as chat,
            misbehaving_upstream(choose[1], seed + 1, streams=None) as embed,
        ):
            path = Path(folder) / "proxy.toml"
            path.write_text(SETTINGS.format(key=KEY, chat=chat.url, embed=embed.url))
            app = create_app(load_settings(path, {}))
            async with serve_on_loopback(app) as url, asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(_caller(url, seed, left, cancels, tally))
        tally.connections = chat.connections + embed.connections
        tally.upstream_requests = chat.requests + embed.requests
    return tally


async def _caller(url: str, seed: int, left: Iterator[int], cancels: float, tally: Tally) -> None:
    """Send one request after the other, from an iterator that all callers share."""
    host, port = url.removeprefix("http://").split(":")
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for number in left:
        call = draw_call(seed, number, cancels, KEY)
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        got = bytearray()
        tally.asked += 1
        keep = False
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS if call.cancel_after is None else call.cancel_after):
                keep = await _exchange(call, reader, writer, got)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError):
            pass
        tally.cancelled += call.cancel_after is not None and not keep
        _judge(call, bytes(got), tally)
        if not keep:
            writer.transport.abort()
            reader = writer = None
    if writer is not None:
        writer.close()


async def _exchange(
    call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray
) -> bool:
    """Send a request and read its response; return whether the connection can be reused."""
    for piece in call.written():
        writer.write(piece)
        await asyncio.sleep(0)
    head = await reader.readuntil(b"\r\n\r\n")
    got += head
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while size := int((await reader.readline()).strip() or b"!", 16):
            got += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    elif b"content-length:" in lower:
        got += await reader.readexactly(int(lower.partition(b"content-length:")[2].partition(b"\r")[0]))
    return b"connection: close" not in lower


def _judge(call: Call, got: bytes, tally: Tally) -> None:
    found = set(NONCE.findall(got))
    tally.own += call.nonce in found
    tally.foreign += [(call.nonce, other) for other in found - {call.nonce}]
    if got:
        tally.statuses[int(got[9:12])] += 1


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Discard all log lines, because broken upstreams cause many."""
    logging.disable(logging.CRITICAL)
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.disable(logging.NOTSET)


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def rounds(requests: int, size: int) -> Iterator[tuple[int, range]]:
    """Yield the number and the calls of each round."""
    for number in itertools.count():
        calls = range(number * size, min(requests, (number + 1) * size))
        if not calls:
            return
        yield number, calls

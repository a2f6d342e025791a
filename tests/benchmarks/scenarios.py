"""The kinds of work; each checks that every exchange is complete and unaltered."""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.benchmarks import wire
from tests.benchmarks.events import EventReader
from tests.benchmarks.load import Connection, MalformedResponseError, build_request, connect
from tests.benchmarks.process import cpu_ns, memory_mb
from tests.benchmarks.rounds import Round, Tally, quantile
from tests.benchmarks.targets import Target

ROUND_SECONDS: Final = 90.0
LONG_EVENTS: Final = 100
"""A round of longer streams takes so long that its beginning does not matter."""
HELD_STREAMS: Final = 500
HOLD_MS: Final = 600_000
SETTLE_SECONDS: Final = 0.5


class Scenario(ABC):
    """A kind of work."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.warms_up = True
        """Whether an uncounted round comes first."""

    @abstractmethod
    async def measure(self, target: Target, core: int) -> Round:
        """Do one round."""


class Work(Scenario):
    """Work for a server that runs; `units` is what a round's CPU time is divided by."""

    def __init__(self, name: str, units: int, connections: int) -> None:
        super().__init__(name)
        self.units = units
        self.connections = connections

    @abstractmethod
    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> int:
        """Do the round, and return its units; may be cancelled at any point by the round's deadline."""

    async def measure(self, target: Target, core: int) -> Round:
        """Do one round; connections are opened before the CPU time is read, for callers keep theirs."""
        del core
        tally = Tally()
        units = max(self.connections and 1, round(self.units * target.share))
        connections = [await connect(target.url) for _ in range(min(self.connections, units))]
        pids = target.pids()
        before = cpu_ns(pids)
        try:
            with suppress(TimeoutError):  # Missing answers are counted as lost.
                async with asyncio.timeout(ROUND_SECONDS):
                    units = await self.work(target, connections, tally)
        finally:
            target.require_alive()
            spent = cpu_ns(pids) - before
            for connection in connections:
                connection.close()
        if lost := units - len(tally.latencies_ms) - tally.failures.total():
            tally.failures["lost"] += lost
        if not tally.latencies_ms:
            faults = ", ".join(f"{fault} {times}" for fault, times in tally.failures.items())
            raise target.process.failure(f"gave not one good answer in {self.name} ({faults})")
        figures = {
            "cpu_us": spent / 1000 / units,
            "p50_ms": quantile(tally.latencies_ms, 0.5),
            "p99_ms": quantile(tally.latencies_ms, 0.99),
        }
        if tally.gaps_ms:
            figures["gap_p99_ms"] = quantile(tally.gaps_ms, 0.99)
        return Round(figures, +tally.failures)


@dataclass(frozen=True)
class Exchange:
    """A request, and how its response is checked."""

    method: str
    path: str
    body: bytes
    expected: bytes
    content_type: str = "application/json"
    read: Callable[[bytes], str] | None = wire.text_of
    """Extracts the part that must be equal if a proxy rewrites the answer; None if no proxy may."""

    def is_answered_by(self, body: bytes, *, exact: bool) -> bool:
        """Return whether this is the upstream's response."""
        if exact or self.read is None:
            return body == self.expected
        try:
            return self.read(body) == self.read(self.expected)
        except (ValueError, KeyError, IndexError, TypeError):
            return False


class Repeated(Work):
    """The same request repeatedly on each connection; every response is compared."""

    def __init__(self, name: str, exchange: Exchange, *, requests: int, connections: int) -> None:
        super().__init__(name, requests, connections)
        self._exchange = exchange

    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> int:
        """Let the connections share the requests."""
        asked = self._exchange
        headers = {**target.headers, "Content-Type": asked.content_type}
        request = build_request(asked.method, f"{target.url}{asked.path}", headers, asked.body)
        units = max(1, round(self.units * target.share))
        turns = iter(range(units))
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(self._caller(target, connection, request, turns, tally))
        return units

    async def _caller(
        self, target: Target, connection: Connection, request: bytes, turns: Iterator[int], tally: Tally
    ) -> None:
        for _ in turns:
            try:
                if connection.closed:  # a server may close a connection after a number of requests
                    connection = await connect(target.url)
                await self._turn(target, connection, request, tally)
            except (OSError, MalformedResponseError) as error:
                tally.failures[type(error).__name__] += 1

    async def _turn(self, target: Target, connection: Connection, request: bytes, tally: Tally) -> None:
        pieces: list[bytes] = []
        began = time.perf_counter()
        status = await connection.exchange(request, pieces.append)
        took_ms = (time.perf_counter() - began) * 1000
        if status != 200:
            tally.failures[f"status {status}"] += 1
        elif not self._exchange.is_answered_by(b"".join(pieces), exact=target.exact):
            tally.failures["altered"] += 1
        else:
            tally.latencies_ms.append(took_ms)


class Paced(Work):
    """Many slow streams at once. Each event has the nonce of its stream, its number and its time."""

    ramp_seconds: Final = 1.0  # starts are spread, so that each system sees events in the same rhythm

    def __init__(self, name: str, *, streams: int, events: int, interval_ms: int) -> None:
        super().__init__(name, streams, streams)
        self._events = events
        self._interval_ms = interval_ms
        self.warms_up = events < LONG_EVENTS

    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> int:
        """Open one stream on each connection."""
        gap = self.ramp_seconds / len(connections)
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(self._caller(target, connection, number * gap, tally))
        return len(connections) * self._events

    async def _caller(self, target: Target, connection: Connection, delay: float, tally: Tally) -> None:
        await asyncio.sleep(delay)
        nonce, request = stream_request(target, self._events, self._interval_ms)
        reader = EventReader(nonce, self._events, tally, exact=target.exact)
        try:
            status = await connection.exchange(request, reader.feed)
        except (OSError, MalformedResponseError) as error:
            tally.failures[type(error).__name__] += 1
            return
        if status != 200:
            tally.failures[f"status {status}"] += 1
        elif not reader.whole:
            tally.failures["cut short"] += 1


class Opening(Work):
    """Streams that are opened at the same moment on new connections; measured until the first event."""

    def __init__(self, name: str, *, streams: int) -> None:
        super().__init__(name, streams, 0)

    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> int:
        """Open all of them."""
        del connections
        units = max(1, round(self.units * min(target.share, 1)))
        async with asyncio.TaskGroup() as group:
            for _ in range(units):
                group.create_task(self._caller(target, tally))
        return units

    async def _caller(self, target: Target, tally: Tally) -> None:
        nonce, request = stream_request(target, 1, 0)
        own = Tally()
        reader = EventReader(nonce, 1, own, exact=target.exact)
        came_at: list[float] = []
        began = time.perf_counter()

        def feed(data: bytes) -> None:
            came_at.append(time.perf_counter())
            reader.feed(data)

        try:
            connection = await connect(target.url)
            status = await connection.exchange(request, feed)
            connection.close()
        except (OSError, MalformedResponseError) as error:
            tally.failures[type(error).__name__] += 1
            return
        if status != 200 or not reader.whole or own.failures:
            tally.failures[f"status {status}" if status != 200 else "altered"] += 1
        else:
            tally.latencies_ms.append((came_at[0] - began) * 1000)


class Start(Scenario):
    """A new process: the time until it answers, and its memory, idle and with open streams."""

    async def measure(self, target: Target, core: int) -> Round:
        """Start another process like this one, and end it."""
        with TemporaryDirectory(prefix="bench-start-") as folder:
            new = type(target)(Path(folder) / target.name, target.upstream)
            connections: list[Connection] = []
            try:
                await new.start(core)
                await asyncio.sleep(SETTLE_SECONDS)
                idle_mb = memory_mb(new.pids(), "VmRSS")
                figures = {"ready_s": new.ready_seconds, "idle_mb": idle_mb}
                if target.scenarios is None:
                    await self._hold(new, connections)
                    held_mb = memory_mb(new.pids(), "VmRSS")
                    figures["stream_kib"] = (held_mb - idle_mb) * 1024 / HELD_STREAMS
                return Round(figures)
            finally:
                for connection in connections:
                    connection.close()
                await new.stop()

    async def _hold(self, target: Target, connections: list[Connection]) -> None:
        """Open streams that pause after their first event."""
        async with asyncio.timeout(ROUND_SECONDS), asyncio.TaskGroup() as group:
            exchanges = []
            for _ in range(HELD_STREAMS):
                begun = asyncio.Event()
                connection = await connect(target.url)
                connections.append(connection)
                _, request = stream_request(target, 2, HOLD_MS)
                exchange = connection.exchange(request, _setting(begun))
                exchanges.append(group.create_task(exchange))
                await begun.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            for one in exchanges:
                one.cancel()


def _setting(event: asyncio.Event) -> Callable[[bytes], object]:
    return lambda _: event.set()


def stream_request(target: Target, events: int, interval_ms: int) -> tuple[str, bytes]:
    """Return a nonce, and a request for a paced stream whose events carry it.

    The question says what the upstream should do.
    """
    nonce = secrets.token_hex(8)
    body = wire.request_body("bench-paced", stream=True, question=f"{nonce}.{events}.{interval_ms}")
    return nonce, chat_request(target, body)


def chat_request(target: Target, body: bytes) -> bytes:
    """Return a chat request for one system."""
    return build_request("POST", f"{target.url}/chat/completions", target.headers, body)


def chat(model: str, expected: bytes, *, stream: bool) -> Exchange:
    """Return a chat request and its answer."""
    return Exchange("POST", "/chat/completions", wire.request_body(model, stream=stream), expected)


def build_scenarios() -> dict[str, Scenario]:
    """Every scenario by its name, in the order of the tables."""
    events = b"".join(wire.stream_events())
    vectors = Exchange("POST", "/embeddings", wire.embeddings_request(), wire.embeddings_answer(), read=None)
    up = Exchange("POST", "/files", bytes(wire.LARGE_BYTES), b"{}", "application/octet-stream", None)
    down = Exchange("GET", "/files/large/content", b"", bytes(wire.LARGE_BYTES), read=None)
    plain = chat("bench-chat", wire.chat_answer(), stream=False)
    scenarios: list[Scenario] = [
        Repeated("chat", plain, requests=3000, connections=16),
        Repeated("embeddings", vectors, requests=300, connections=8),
        Repeated("burst", chat("bench-burst", events, stream=True), requests=400, connections=8),
        Repeated("flood", chat("bench-flood", events, stream=True), requests=400, connections=8),
        *(
            Paced(f"paced-{streams}x{each}", streams=streams, events=each, interval_ms=100)
            for streams in (500, 1000)
            for each in (30, 300)
        ),
        Opening("open", streams=500),
        Repeated("upload", up, requests=16, connections=4),
        Repeated("download", down, requests=16, connections=4),
        Start("start"),
    ]
    return {scenario.name: scenario for scenario in scenarios}

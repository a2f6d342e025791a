"""The three kinds of work, and the proof that each came through whole."""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.benchmarks import wire
from tests.benchmarks.load import Connection, MalformedResponseError, build_request, connect
from tests.benchmarks.process import cpu_ns
from tests.benchmarks.targets import Target

ROUND_SECONDS: Final = 60.0


@dataclass
class Tally:
    """What a round's client saw: how long each good one took, and what went wrong how often."""

    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Round:
    """One round's figures for one system."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    failures: Counter[str]


class Scenario(ABC):
    """A kind of work; `units` is what a round's CPU is divided by."""

    def __init__(self, name: str, unit: str, units: int, connections: int) -> None:
        self.name = name
        self.unit = unit
        self.units = units
        self.connections = connections

    @abstractmethod
    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> None:
        """Do the round; may be cancelled at any point by the round's deadline."""

    @abstractmethod
    def lost(self, tally: Tally) -> int:
        """How many units have neither arrived nor been counted as failed."""

    async def measure(self, target: Target) -> Round:
        """Do one round; connections are opened before the CPU is read, for callers keep theirs."""
        tally = Tally()
        connections = [await connect(target.url) for _ in range(self.connections)]
        pids = target.pids()
        before = cpu_ns(pids)
        try:
            with suppress(TimeoutError):  # what has not come by then is lost
                async with asyncio.timeout(ROUND_SECONDS):
                    await self.work(target, connections, tally)
        finally:
            target.process.require_alive()
            spent = cpu_ns(pids) - before
            for connection in connections:
                connection.close()
        tally.failures["lost"] += self.lost(tally)
        if not tally.latencies_ms:
            faults = ", ".join(f"{fault} {times}" for fault, times in (+tally.failures).items())
            raise target.process.failure(f"gave not one good answer in {self.name} ({faults})")
        times = sorted(tally.latencies_ms)
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        return Round(spent / 1000 / self.units, p50, p99, +tally.failures)


class Repeated(Scenario):
    """The same request again and again on each connection, every answer compared byte for byte."""

    def __init__(
        self, name: str, unit: str, *, body: bytes, expected: bytes, requests: int, connections: int
    ) -> None:
        super().__init__(name, unit, requests, connections)
        self._body = body
        self._expected = expected

    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> None:
        """Let the connections share the requests."""
        request = chat_request(target, self._body)
        turns = iter(range(self.units))
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(self._caller(target.url, connection, request, turns, tally))

    def lost(self, tally: Tally) -> int:
        """A request is timed, or failed, or lost."""
        return self.units - len(tally.latencies_ms) - tally.failures.total()

    async def _caller(
        self, url: str, connection: Connection, request: bytes, turns: Iterator[int], tally: Tally
    ) -> None:
        for _ in turns:
            try:
                if connection.closed:  # a server may end a connection after so many requests
                    connection = await connect(url)
                await self._turn(connection, request, tally)
            except (OSError, MalformedResponseError) as error:
                tally.failures[type(error).__name__] += 1

    async def _turn(self, connection: Connection, request: bytes, tally: Tally) -> None:
        pieces: list[bytes] = []
        began = time.perf_counter()
        status = await connection.exchange(request, pieces.append)
        took_ms = (time.perf_counter() - began) * 1000
        if status != 200:
            tally.failures[f"status {status}"] += 1
        elif b"".join(pieces) != self._expected:
            tally.failures["altered"] += 1
        else:
            tally.latencies_ms.append(took_ms)


class Paced(Scenario):
    """Many slow streams at once, each event with its stream's nonce, its number and its time."""

    ramp_seconds: Final = 1.0  # starts are spread, so that each system sees events in the same rhythm

    def __init__(self, *, streams: int, events: int, interval_ms: int) -> None:
        super().__init__("paced", "event", streams * events, streams)
        self._pace = {"events": str(events), "interval_ms": str(interval_ms)}

    async def work(self, target: Target, connections: Sequence[Connection], tally: Tally) -> None:
        """Open one stream on each connection."""
        gap = self.ramp_seconds / len(connections)
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(self._caller(target, connection, number * gap, tally))

    def lost(self, tally: Tally) -> int:
        """An event is timed where it first arrives, or it is lost."""
        return self.units - len(tally.latencies_ms)

    async def _caller(self, target: Target, connection: Connection, delay: float, tally: Tally) -> None:
        await asyncio.sleep(delay)
        nonce = secrets.token_hex(8)
        body = wire.request_body("bench-paced", stream=True, user=nonce, metadata=self._pace)
        reader = EventReader(nonce, tally)
        try:
            status = await connection.exchange(chat_request(target, body), reader.feed)
        except (OSError, MalformedResponseError) as error:
            tally.failures[type(error).__name__] += 1
            return
        if status != 200:
            tally.failures[f"status {status}"] += 1
        elif not reader.whole:
            tally.failures["cut short"] += 1


class EventReader:
    """Check one stream's events as they arrive, and time them."""

    def __init__(self, nonce: str, tally: Tally) -> None:
        self._ended = False
        self._nonce = nonce.encode()
        self._tally = tally
        self._pattern = wire.paced_pattern()
        self._unread = b""
        self._seen: set[int] = set()
        self._highest = -1

    @property
    def whole(self) -> bool:
        """Whether the end marker came, and nothing was left over."""
        return self._ended and not self._unread

    def feed(self, data: bytes) -> None:
        """Take the events that are whole."""
        now = time.monotonic_ns()
        *events, self._unread = (self._unread + data).split(b"\n\n")
        for event in events:
            fault = self._take(event, now)
            if fault is not None:
                self._tally.failures[fault] += 1

    def _take(self, event: bytes, now: int) -> str | None:
        if event + b"\n\n" == wire.DONE:
            fault = "doubled" if self._ended else None
            self._ended = True
            return fault
        match = self._pattern.fullmatch(event)
        if match is None:
            return "altered"
        if match[1] != self._nonce:
            return "foreign"
        number = int(match[2])
        if number in self._seen:
            return "doubled"
        late = self._ended or number < self._highest
        self._seen.add(number)
        self._highest = max(self._highest, number)
        self._tally.latencies_ms.append((now - int(match[3])) / 1_000_000)
        return "reordered" if late else None


def chat_request(target: Target, body: bytes) -> bytes:
    """A chat request for one system."""
    return build_request("POST", f"{target.url}/chat/completions", target.headers, body)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the ordered values lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def build_scenarios(*, requests: int, bursts: int, streams: int, events: int) -> dict[str, Scenario]:
    """Every scenario by its name."""
    chat = Repeated(
        "chat",
        "request",
        body=wire.request_body("bench-chat", stream=False),
        expected=wire.chat_answer(),
        requests=requests,
        connections=16,
    )
    burst, flood = (
        Repeated(
            name,
            "stream",
            body=wire.request_body(f"bench-{name}", stream=True),
            expected=b"".join(wire.stream_events()),
            requests=bursts,
            connections=8,
        )
        for name in ("burst", "flood")  # in one write; each event in a write of its own
    )
    paced = Paced(streams=streams, events=events, interval_ms=100)
    scenarios: list[Scenario] = [chat, burst, flood, paced]
    return {scenario.name: scenario for scenario in scenarios}

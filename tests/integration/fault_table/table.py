"""Run every cell through a real proxy, without and with the client's repairs, and judge it."""

import asyncio
import contextlib
import math
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from proxy.app import create_app
from proxy.drain import Drain
from proxy.settings import load_settings
from tests.integration.fault_table.calls import CALLS, ClientCall, written
from tests.integration.fault_table.faults import FAULTS, Fault
from tests.integration.fault_table.readers import RETRYING, WITHOUT_SDK, dify_validation
from tests.integration.fault_table.replies import Arrived, Reply
from tests.integration.ragflow import RETRIED, kind_of
from tests.loopback import serve_on_loopback, until
from tests.raw_upstream import Conversation, raw_upstream

AT_ONCE: Final = 12
"""How many requests run at the same time."""
SETTINGS: Final = """
[[access.keys]]
name = "plain"
key = "sk-table-plain"
[[access.keys]]
name = "ragflow"
key = "sk-table-ragflow"
repairs = ["ragflow"]
[[access.keys]]
name = "dify"
key = "sk-table-dify"
repairs = ["dify"]
[routes]
default = "all"
[upstreams.all]
base_url = "{url}/v1"
credential = "corp"
[credentials.corp]
source = "static"
value = "token-of-the-table"
"""


@dataclass(frozen=True)
class Outcome:
    """What a client makes of a response.

    Args:
        kind: `right`, `error` if the client shows one, or `wrong`: neither right nor an error.
        shown: What the user gets.
        retried: Whether RAGFlow or its SDK sends the request again.
    """

    kind: str
    shown: str = ""
    retried: bool = False


@dataclass(frozen=True)
class Cell:
    """One fault of one call."""

    fault: Fault
    call: ClientCall
    before: Outcome
    after: Outcome
    changed: bool
    """Whether repairs changed the bytes that the client received."""

    @property
    def verdict(self) -> str:
        """The effect of the repairs on the cell."""
        if self.after.kind == "right":
            return "right" if self.before.kind == "right" else "cured"
        return self.after.kind

    @property
    def is_worse(self) -> bool:
        """Whether the result is worse than without repairs."""
        ranks = {"wrong": 0, "error": 1, "right": 2}
        return ranks[self.after.kind] < ranks[self.before.kind]

    def __str__(self) -> str:
        before, after = (f"{each.kind} ({each.shown[:90]})" for each in (self.before, self.after))
        return f"{self.fault.name} | {self.call.name} | {before} | {after}"


def judge(fault: Fault, call: ClientCall, arrived: Arrived) -> Outcome:
    """Let the client read a response."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shown = call.read(arrived, call.request)
        except Exception as error:  # a client shows every exception
            return Outcome(
                "error", f"{type(error).__name__}: {error}", retried=_is_retried(call, arrived, error)
            )
    kept = fault.expected is None or call.read is dify_validation
    expected = call.expected if kept else fault.expected
    if isinstance(call.expected, tuple) and not kept:
        expected = (fault.expected, call.expected[1])
    return Outcome("right" if _is_right(shown, expected) else "wrong", repr(shown))


def _is_retried(call: ClientCall, arrived: Arrived, error: Exception) -> bool:
    """Return whether OpenAI's SDK retries because of the status, or RAGFlow because of the error's words."""
    if call.read in WITHOUT_SDK:
        return False
    by_status = arrived.status in {408, 409, 429} or arrived.status >= 500
    by_sdk = by_status and arrived.header("x-should-retry") != "false"
    return by_sdk or (call.read in RETRYING and kind_of(str(error)) in RETRIED)


def _is_right(shown: Any, expected: Any) -> bool:
    if isinstance(expected, list) and isinstance(shown, list) and len(shown) == len(expected):
        return all(_is_right(*pair) for pair in zip(shown, expected, strict=True))
    if isinstance(expected, float):
        return isinstance(shown, int | float) and math.isclose(shown, expected, abs_tol=1e-6)
    return type(shown) is type(expected) and bool(shown == expected)


async def run(folder: Path, choose: Callable[[Fault, ClientCall], bool] = lambda *_: True) -> list[Cell]:
    """Run the cells of the table.

    Args:
        folder: For the settings file.
        choose: Which cells.
    """
    drawn = [
        (fault, call, reply)
        for fault in FAULTS
        for call in CALLS
        if choose(fault, call) and (reply := fault.reply(call)) is not None
    ]

    async def script(talk: Conversation) -> None:
        await drawn[int(talk.request.target.rpartition(b"cell=")[2])][2].write(talk)

    async with raw_upstream(script) as upstream, _serving(folder, upstream.url) as url:
        keys = ("plain", "ragflow", "dify")
        asked = [
            (cell, key)
            for cell in range(len(drawn))
            for key in keys
            if key in {"plain", drawn[cell][1].client}
        ]
        arrived = await _ask_all(url, [(drawn[cell][1], cell, key) for cell, key in asked])
    found = dict(zip(asked, arrived, strict=True))
    return [_cell(*row, found[cell, "plain"], found[cell, row[1].client]) for cell, row in enumerate(drawn)]


def _cell(fault: Fault, call: ClientCall, reply: Reply, plain: Arrived, repaired: Arrived) -> Cell:
    changed = (plain.status, plain.body, plain.cut) != (repaired.status, repaired.body, repaired.cut)
    before = judge(fault, call, plain)
    same = not changed and plain.header("content-type") == repaired.header("content-type")
    return Cell(fault, call, before, before if same else judge(fault, call, repaired), changed)


@asynccontextmanager
async def _serving(folder: Path, upstream: str) -> AsyncIterator[str]:
    path = folder / "proxy.toml"
    path.write_text(SETTINGS.format(url=upstream))
    app = create_app(load_settings(path, {}), Drain())
    async with serve_on_loopback(app) as url:
        await until(app.serving.is_set)
        yield url


async def _ask_all(url: str, asked: list[tuple[ClientCall, int, str]]) -> list[Arrived]:
    arrived: list[Arrived | None] = [None] * len(asked)
    waiting = iter(enumerate(asked))

    async def ask_some() -> None:
        async with _connection(url) as connection:
            for place, (call, cell, key) in waiting:
                arrived[place] = await connection.ask(call, cell, key)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(ask_some())
    return [each for each in arrived if each is not None]


class _Connection:
    """A connection of a client to the proxy, which is reopened when it breaks."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url)
        self.writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, call: ClientCall, cell: int, key: str) -> Arrived:
        """Send a request, and read the whole response."""
        if self.writer is None:
            self._reader, self.writer = await asyncio.open_connection(
                self._place.hostname, self._place.port, limit=1 << 24
            )
        assert self._reader is not None
        content_type, body = written(call)
        head = [
            f"POST {call.path}?cell={cell} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer sk-table-{key}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            "",
            "",
        ]
        self.writer.write("\r\n".join(head).encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        start = Arrived(int(lines[0].split()[1]), headers)
        pieces = list[bytes]()
        try:
            await self._read(start, pieces)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()
            self.writer = None
            return Arrived(start.status, headers, b"".join(pieces), cut=True)
        return Arrived(start.status, headers, b"".join(pieces))

    async def _read(self, start: Arrived, pieces: list[bytes]) -> None:
        assert self._reader is not None
        if start.status in {204, 304}:
            return
        if (length := start.header("content-length")) is not None:
            pieces.append(await self._reader.readexactly(int(length)))
            return
        while size := int((await self._reader.readuntil(b"\r\n"))[:-2], 16):
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[_Connection]:
    connection = _Connection(url)
    try:
        yield connection
    finally:
        if connection.writer is not None:
            connection.writer.close()
            with contextlib.suppress(ConnectionError):
                await connection.writer.wait_closed()


# --- as text


def counts(cells: list[Cell]) -> Iterator[str]:
    """Yield lines with the numbers of results, without and with repairs."""
    before, after = (Counter(getattr(cell, name).kind for cell in cells) for name in ("before", "after"))
    faults, calls = ({getattr(cell, name).name for cell in cells} for name in ("fault", "call"))
    yield f"{len(faults)} faults, {len(calls)} calls, {len(cells)} cells"
    for kind in ("right", "error", "wrong"):
        yield f"{kind:>8}: {before[kind]:5} without repairs, {after[kind]:5} with"
    yield f"{'cured':>8}: {sum(cell.verdict == 'cured' for cell in cells):5}"
    yield f"{'worse':>8}: {sum(cell.is_worse for cell in cells):5}"
    retried = [sum(getattr(cell, name).retried for cell in cells) for name in ("before", "after")]
    yield f"{'retried':>8}: {retried[0]:5} without repairs, {retried[1]:5} with"


MARKS: Final = {"right": ".", "cured": "c", "error": "e", "wrong": "W"}


def rows(cells: list[Cell]) -> Iterator[str]:
    """Yield the lines of the table, with a row for each fault and a column for each call."""
    names = [call.name for call in CALLS]
    for place, name in enumerate(names):
        yield "  " * place + name
    found = {(cell.fault.name, cell.call.name): cell for cell in cells}
    for fault in dict.fromkeys(cell.fault.name for cell in cells):
        marks = [found.get((fault, name)) for name in names]
        line = " ".join(
            " " if cell is None else "!" if cell.is_worse else MARKS[cell.verdict] for cell in marks
        )
        yield f"{line}  {fault}"
    yield "  . right   c cured   e the client shows an error   W wrong, and no error   ! worse than before"

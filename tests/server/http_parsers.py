"""How parsers of HTTP/1.1 read a stream of bytes: ours, h11, and nginx in front of an upstream."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import h11

from proxy.server.limits import ConnectionLimits
from tests.nginx import nginx_serving
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream
from tests.server.conftest import Echo, served

LANES: Final = 8
"""How many requests are sent concurrently. The upstream of each lane sees one request at a time."""
IMPATIENT: Final = ConnectionLimits(head_seconds=1.0, idle_seconds=1.0, window_seconds=1.0)
NGINX_SERVER: Final = """
    server {{
        listen unix:{home}/{name}.sock;
        client_header_timeout 1s;
        client_body_timeout 1s;
        keepalive_timeout 1s;
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
"""


class Read(NamedTuple):
    """A request as a parser read it."""

    method: bytes
    body: bytes


def read_with_h11(data: bytes) -> list[Read]:
    """Return the requests that h11 accepts completely, until it rejects one or the data ends."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    accepted: list[Read] = []
    method, body = b"", b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                accepted.append(Read(method, body))
                connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
            elif event is h11.PAUSED and connection.our_state is connection.their_state is h11.DONE:
                connection.start_next_cycle()
            else:
                return accepted
    except h11.ProtocolError:
        return accepted


Reader = Callable[[bytes], Awaitable[list[Read]]]


async def read_all(corpus: Mapping[str, bytes], lanes: Sequence[Reader]) -> dict[str, list[Read]]:
    """Return the requests that the parser reads in each stream of bytes."""
    waiting, found = [*corpus.items()], dict[str, list[Read]]()

    async def work(read: Reader) -> None:
        while waiting:
            name, data = waiting.pop()
            found[name] = await read(data)

    async with asyncio.TaskGroup() as group:
        for read in lanes:
            group.create_task(work(read))
    return found


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write a stream, and wait until the server closes the connection."""
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                while await reader.read(65536):
                    pass
    finally:
        writer.close()


@asynccontextmanager
async def our_lanes() -> AsyncIterator[list[Reader]]:
    """Yield readers of our servers, which record the requests of their applications."""
    async with AsyncExitStack() as stack:
        lanes: list[Reader] = []
        for _ in range(LANES):
            app = Echo()
            server = await stack.enter_async_context(served(app, IMPATIENT))

            async def read(data: bytes, app: Echo = app, port: int = server.port) -> list[Read]:
                _take_from_app(app)
                await _talk(*await asyncio.open_connection("127.0.0.1", port), data)
                return _take_from_app(app)

            lanes.append(read)
        yield lanes


async def _answer(talk: Conversation) -> None:
    await talk.answer(b"ok")


@asynccontextmanager
async def nginx_lanes(home: Path, *, before_us: bool) -> AsyncIterator[list[Reader]]:
    """Run nginx in front of upstreams that record the forwarded requests, or in front of our servers."""
    async with AsyncExitStack() as stack:
        recorded: list[Callable[[], list[Read]]] = []
        urls = []
        for _ in range(LANES):
            if before_us:
                app = Echo()
                urls.append(f"http://127.0.0.1:{(await stack.enter_async_context(served(app))).port}")
                recorded.append(functools.partial(_take_from_app, app))
            else:
                upstream = await stack.enter_async_context(raw_upstream(_answer))
                urls.append(upstream.url)
                recorded.append(functools.partial(_take_from_upstream, upstream))
        names = ["nginx", *(f"lane-{number}" for number in range(1, LANES))]
        pairs = zip(names, urls, strict=True)
        servers = [NGINX_SERVER.format(home=home, name=name, upstream=url) for name, url in pairs]
        socket = await stack.enter_async_context(nginx_serving(home, "".join(servers)))
        lanes: list[Reader] = []
        for name, take in zip(names, recorded, strict=True):

            async def read(
                data: bytes, name: str = name, take: Callable[[], list[Read]] = take
            ) -> list[Read]:
                take()
                await _talk(*await asyncio.open_unix_connection(socket.with_name(f"{name}.sock")), data)
                return take()

            lanes.append(read)
        yield lanes


def _take_from_app(app: Echo) -> list[Read]:
    found = [Read(scope["method"].encode(), body) for scope, body in app.seen]
    app.seen.clear()
    return found


def _take_from_upstream(upstream: RawUpstream) -> list[Read]:
    found = [Read(request.head.partition(b" ")[0], request.body) for request in upstream.requests]
    upstream.requests.clear()
    return found

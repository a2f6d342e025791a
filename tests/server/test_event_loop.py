"""The event loop of the service: connections of every library use its name lookups."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest

from proxy.server.event_loop import AsyncioLoop, loop_factory
from proxy.upstream.dialing import Dialer
from tests.loopback import until
from tests.pace import PATIENCE

LOOPS = pytest.mark.parametrize("new_loop", [AsyncioLoop, loop_factory()], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
ATTEMPTS = 50
"""More than any pool of threads has."""


async def request(url: str) -> None:
    """Send a request as the token sources do."""
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE) as client:
        assert (await client.get(url)).status_code == 204


async def dial(url: str) -> None:
    """Open a connection as for a request to an upstream."""
    lost = asyncio.Event()

    class Closing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            asyncio.get_running_loop().call_soon(transport.close)  # open() still uses it

        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    await Dialer(url, tls=None, proxy=None).open(lambda _: Closing(), PATIENCE)
    await lost.wait()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, if there is one."""
    if await reader.read(1):
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    writer.close()


@LOOPS
@pytest.mark.parametrize("reach", [request, dial])
def test_a_name_that_hangs_delays_no_other(
    new_loop: NewLoop, reach: Callable[[str], Coroutine[None, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, calls, look_up = threading.Event(), Counter[object](), socket.getaddrinfo

    def getaddrinfo(
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name in the interface of socket
        proto: int = 0,
        flags: int = 0,
    ) -> object:
        if flags & socket.AI_NUMERICHOST:  # only parses an address
            return look_up(host, port, family, type, proto, flags)
        name = host.decode() if isinstance(host, bytes) else host
        calls[name] += 1
        if name == "hanging.test":
            release.wait()
        return look_up("127.0.0.1" if name == "healthy.test" else name, port, family, type, proto, flags)

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        attempts = [loop.create_task(reach(f"http://hanging.test:{port}")) for _ in range(ATTEMPTS)]
        await until(lambda: bool(calls["hanging.test"]))
        try:
            async with asyncio.timeout(PATIENCE):
                for attempt in attempts:
                    attempt.cancel()
                await asyncio.wait(attempts)
                await reach(f"http://healthy.test:{port}")
                assert await asyncio.to_thread(lambda: "other work") == "other work"
        finally:
            release.set()
        server.close()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert calls == {"hanging.test": 1, "healthy.test": 1}, "addresses need no lookup"


@LOOPS
def test_an_unknown_name_is_an_error_of_the_lookup(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(socket.gaierror, match="unknown"):
        runner.run(_look_up())


async def _look_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("name.test", 80)

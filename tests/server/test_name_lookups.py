"""Name lookups beside a name server that does not answer."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.server import name_lookups
from proxy.server.name_lookups import Addresses, NameLookups, Query
from tests.loopback import until
from tests.pace import PATIENCE

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))


class Resolver:
    """A resolver that answers at once, but not for `hanging.test` before it is released."""

    def __init__(self) -> None:
        self.calls = Counter[object]()
        self.release = threading.Event()
        self.error: OSError | None = None

    def getaddrinfo(
        self, host: object, port: Any, family: int, kind: int, proto: int, flags: int
    ) -> Addresses:
        """Answer as `socket.getaddrinfo` does."""
        if flags & socket.AI_NUMERICHOST:
            if host == "127.0.0.1":
                return [ADDRESS]
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        self.calls[host] += 1
        if host == "hanging.test":
            self.release.wait()
        if self.error is not None:
            raise self.error
        return [ADDRESS]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """The resolver of the process."""
    fake = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fake.getaddrinfo)
    yield fake
    fake.release.set()


def query(host: str) -> Query:
    """The query for a host."""
    return host, 80, 0, socket.SOCK_STREAM, 0, 0


async def looked_up(lookups: NameLookups, host: str) -> Addresses:
    """Look up a host with patience."""
    async with asyncio.timeout(PATIENCE):
        return await lookups.look_up(query(host))


def threads_of_lookups() -> list[str]:
    """Return the threads in which names are looked up."""
    return [thread.name for thread in threading.enumerate() if thread.name == "name-lookup"]


async def give_up(lookups: NameLookups, host: str, count: int = 1) -> None:
    """Begin to look up a host several times at once, and cancel it."""
    loop = asyncio.get_running_loop()
    callers = {loop.create_task(lookups.look_up(query(host))) for _ in range(count)}
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)


async def test_a_hanging_name_occupies_one_thread_and_delays_nothing_else(resolver: Resolver) -> None:
    lookups, tasks = NameLookups(), asyncio.all_tasks()
    for _ in range(20):
        await give_up(lookups, "hanging.test", 5)
    assert resolver.calls["hanging.test"] == 1
    assert await looked_up(lookups, "other.test") == [ADDRESS]
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(lambda: "other work") == "other work"
    assert asyncio.all_tasks() == tasks


async def test_a_lookup_that_was_given_up_serves_the_next_caller(resolver: Resolver) -> None:
    lookups = NameLookups()
    await give_up(lookups, "hanging.test")
    resolver.release.set()
    assert await looked_up(lookups, "hanging.test") == [ADDRESS]


async def test_a_lookup_is_shared_and_not_kept(resolver: Resolver) -> None:
    lookups = NameLookups()
    async with asyncio.TaskGroup() as group:
        found = [group.create_task(looked_up(lookups, "other.test")) for _ in range(5)]
    assert [task.result() for task in found] == [[ADDRESS]] * 5
    assert resolver.calls["other.test"] == 1
    await looked_up(lookups, "other.test")
    assert resolver.calls["other.test"] == 2


async def test_all_who_wait_get_the_error_and_later_callers_look_again(resolver: Resolver) -> None:
    lookups = NameLookups()
    resolver.error = socket.gaierror(socket.EAI_NONAME, "unknown")
    async with asyncio.TaskGroup() as group:
        failed = [group.create_task(failure(lookups, "other.test")) for _ in range(3)]
    assert [task.result() for task in failed] == [socket.EAI_NONAME] * 3
    resolver.error = None
    assert await looked_up(lookups, "other.test") == [ADDRESS]


async def failure(lookups: NameLookups, host: str) -> int | None:
    """Return the number of the error with which a lookup fails."""
    with pytest.raises(socket.gaierror) as caught:
        await looked_up(lookups, host)
    return caught.value.errno


async def test_nobody_waits_for_a_lookup_that_is_overdue(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_lookups, "OVERDUE_SECONDS", 0.05)
    lookups = NameLookups()
    for _ in range(5):
        assert await failure(lookups, "hanging.test") == socket.EAI_AGAIN
    assert resolver.calls["hanging.test"] == 2, "the second attempt is the last one while both hang"
    resolver.release.set()
    await until(lambda: not threads_of_lookups())
    assert await looked_up(lookups, "hanging.test") == [ADDRESS]


async def test_an_address_needs_no_thread_even_where_no_name_can_be_looked_up(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_lookups, "LOOKUPS_MAX", 0)
    lookups = NameLookups()
    assert await failure(lookups, "other.test") == socket.EAI_AGAIN
    assert await looked_up(lookups, "127.0.0.1") == [ADDRESS]
    assert resolver.calls == {}


async def test_a_system_without_threads_is_an_error_of_the_lookup(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    lookups = NameLookups()
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        assert await failure(lookups, "other.test") == socket.EAI_AGAIN
    assert await looked_up(lookups, "other.test") == [ADDRESS]


async def test_the_number_of_lookups_is_limited(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookups, "LOOKUPS_MAX", 1)
    lookups = NameLookups()
    await give_up(lookups, "hanging.test")
    assert await failure(lookups, "other.test") == socket.EAI_AGAIN
    assert resolver.calls["other.test"] == 0
    resolver.release.set()
    await looked_up(lookups, "hanging.test")
    assert await looked_up(lookups, "other.test") == [ADDRESS]


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "fe80::1")],
)
async def test_an_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch, family: int, host: str) -> None:
    right = socket.getaddrinfo(host, 80, family, socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a lookup"))
    for kind in (0, socket.SOCK_STREAM):
        found = await NameLookups().look_up((host, 80, family, kind, 6, 0))
        assert found == [(family, socket.SOCK_STREAM, 6, "", right[0][4])]


@pytest.mark.parametrize("host", ["127.1", "::1", "localhost", "127.0.0.1\0", b"127.0.0.1", None])
async def test_whatever_else_stands_for_an_address_is_looked_up(host: str | bytes | None) -> None:
    asked = (host, 80, socket.AF_INET, socket.SOCK_STREAM, 6, 0)
    try:
        right: object = socket.getaddrinfo(*asked)
    except (OSError, ValueError) as error:
        with pytest.raises(type(error)):
            await NameLookups().look_up(asked)
    else:
        assert await NameLookups().look_up(asked) == right

"""The event loop of the service: uvloop where there is one, with name lookups of its own."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.server.name_lookups import Addresses, NameLookups


class _OwnLookups:
    """The part of an event loop that looks up names, for connections of any library."""

    def __init__(self) -> None:
        super().__init__()
        self._name_lookups = NameLookups()

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name in asyncio's interface
        proto: int = 0,
        flags: int = 0,
    ) -> Addresses:
        """Look up a name."""
        return await self._name_lookups.look_up((host, port, family, type, proto, flags))


class AsyncioLoop(_OwnLookups, asyncio.SelectorEventLoop):
    """The event loop where there is no uvloop."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop."""
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return AsyncioLoop

    class UvLoop(_OwnLookups, uvloop.Loop):  # type: ignore[misc]  # its stubs differ from those of asyncio
        """The event loop where there is uvloop."""

    return UvLoop


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on the event loop of the service."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())

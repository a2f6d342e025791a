"""Look up host names in threads of their own, so that a name server that does not answer delays nothing else.

The event loops use a pool of threads: asyncio its default executor, which does other work as well, and uvloop
the few threads of libuv. A lookup that has begun cannot be cancelled, so repeated attempts to reach one name
would occupy all of them.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Final

from proxy.daemon_threads import start_call

LOOKUPS_MAX: Final = 64
"""How many names are looked up at a time."""
OVERDUE_SECONDS: Final = 10.0
"""Nobody waits longer for a lookup. The C library makes two attempts of 5 s at a name server."""

Addresses = list[tuple[Any, ...]]
Query = tuple[bytes | str | None, bytes | str | int | None, int, int, int, int]
"""The arguments of `socket.getaddrinfo`."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    found: asyncio.Future[Addresses]
    overdue_at: float


class NameLookups:
    """The lookups of one event loop: at most one at a time for each query."""

    def __init__(self) -> None:
        self._running: dict[Query, _Lookup] = {}

    async def look_up(self, query: Query) -> Addresses:
        """Return the addresses of a name, from the lookup in progress if there is one.

        Raises:
            OSError: The lookup failed, or the name server does not answer.
        """
        loop = asyncio.get_running_loop()
        lookup = self._running.get(query)
        if lookup is None:
            if len(self._running) >= LOOKUPS_MAX:
                raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
            found = start_call(lambda: socket.getaddrinfo(*query), "name-lookup")
            found.add_done_callback(lambda _: self._running.pop(query))
            lookup = self._running[query] = _Lookup(found, loop.time() + OVERDUE_SECONDS)
        await asyncio.wait([lookup.found], timeout=max(lookup.overdue_at - loop.time(), 0.0))
        if not lookup.found.done():
            raise socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")
        return lookup.found.result()

"""Look up host names in threads of their own, so that a name server that does not answer delays nothing else.

The event loops use a pool of threads: asyncio its default executor, which does other work as well, and uvloop
the few threads of libuv. A lookup that has begun cannot be cancelled, so repeated attempts to reach one name
would occupy all of them.
"""

import asyncio
import contextlib
import socket
from typing import Any, Final

import msgspec

from proxy.daemon_threads import start_call

LOOKUPS_MAX: Final = 64
"""How many names are looked up at a time."""
OVERDUE_SECONDS: Final = 10.0
"""Nobody waits longer for a lookup. The C library makes two attempts of 5 s at each name server."""

_OTHERS_IN_ADDRESS: Final[dict[int, tuple[int, ...]]] = {socket.AF_INET: (), socket.AF_INET6: (0, 0)}
"""What follows host and port in the socket address of a family: flow and scope of an IPv6 address."""

Addresses = list[tuple[Any, ...]]
Query = tuple[bytes | str | None, bytes | str | int | None, int, int, int, int]
"""The arguments of `socket.getaddrinfo`."""


class _Lookup(msgspec.Struct, frozen=True):
    found: asyncio.Future[Addresses]
    overdue_at: float
    is_second: bool


class NameLookups:
    """The lookups of one event loop: one at a time for each query, a second if that is overdue."""

    def __init__(self) -> None:
        self._running: dict[Query, _Lookup] = {}
        self._threads = 0

    async def look_up(self, query: Query) -> Addresses:
        """Return the addresses of a name, from the lookup in progress if there is one.

        Raises:
            OSError: The lookup failed, or the name server does not answer.
        """
        host, port, family, kind, proto, flags = query
        if isinstance(host, str) and isinstance(port, int) and family in _OTHERS_IN_ADDRESS:
            # Each connection asks for an address that it has: getaddrinfo takes ten times as long.
            with contextlib.suppress(OSError, ValueError):
                socket.inet_pton(family, host)
                others = _OTHERS_IN_ADDRESS[family]
                return [(family, kind or socket.SOCK_STREAM, proto, "", (host, port, *others))]
        flags |= socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        with contextlib.suppress(socket.gaierror, UnicodeError):  # It is a name.
            return socket.getaddrinfo(host, port, family, kind, proto, flags)
        now = asyncio.get_running_loop().time()
        lookup = self._running.get(query)
        if lookup is None or (lookup.overdue_at <= now and not lookup.is_second):
            lookup = self._start(query, now, is_second=lookup is not None)
        await asyncio.wait([lookup.found], timeout=max(lookup.overdue_at - now, 0.0))
        if not lookup.found.done():
            raise socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")
        return lookup.found.result()

    def _start(self, query: Query, now: float, *, is_second: bool) -> _Lookup:
        if self._threads >= LOOKUPS_MAX:
            raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
        try:
            found = start_call(lambda: socket.getaddrinfo(*query), "name-lookup")
        except RuntimeError as error:
            raise socket.gaierror(socket.EAI_AGAIN, "the system allows no thread for the lookup") from error
        self._threads += 1
        found.add_done_callback(lambda _: self._end(query))
        lookup = self._running[query] = _Lookup(found, now + OVERDUE_SECONDS, is_second)
        return lookup

    def _end(self, query: Query) -> None:
        self._threads -= 1
        self._running.pop(query, None)  # even if another one still runs: this one has ended the wait

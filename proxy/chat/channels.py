"""The owners of channels, and the lease that allows one dialogue at a time in a channel.

A channel belongs to the first session that asks a question in it, until it has been unused for long. A
dialogue takes its channel's lease with `begin`, runs `wait_for_stop` (which also renews the lease)
during the answer, and releases the lease with `end`:

    holder = await channels.begin(channel)
    if holder is None:
        ...                                         # another dialogue is running
    try:
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(channels.wait_for_stop(channel))
            ...                                     # answer; `stop` ends first if a stop is requested
            stop.cancel()
    finally:
        await channels.end(channel)
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

from proxy.errors import RateLimited

OWNED_SECONDS: Final = 86400.0
"""How long an unused channel keeps its owner, at least; always longer than its events are kept."""
RENEW_SECONDS: Final = 1.3
"""Time between renewals of a lease; two of them may fail before it lapses."""
CHANNELS_MAX: Final = 100_000
"""Maximum number of owned channels in memory. Then only a channel whose events have expired makes room;
otherwise no further channel can be claimed."""

_NAME_CHARS_MAX: Final = 128
_HOLDER: Final = "this process"
_RESERVED: Final = "llm-token-proxy:"

Ownership = Literal["own", "free", "taken"]
"""Who owns a channel, from the view of one session."""

StopReason = Literal["requested", "lost"]
"""Why a dialogue must stop: it was requested, or its lease lapsed and another process has ended it."""


def is_channel_name(name: str) -> bool:
    """Return whether a visitor may use a channel name: short, printable, and not used between processes."""
    return 0 < len(name) <= _NAME_CHARS_MAX and name.isprintable() and not name.startswith(_RESERVED)


class Channels(Protocol):
    """The owners of channels and the dialogues in them.

    With Redis, every method except `wait_for_stop` may raise `StoreUnavailable`.
    """

    async def ownership(self, channel: str, session: str) -> Ownership:
        """Return who owns a channel. If it is this session, its ownership is extended.

        An invalid name counts as taken.
        """
        ...

    async def claim(self, channel: str, session: str, address: str = "") -> bool:
        """Make a session the owner of a channel, unless another session owns it.

        Args:
            address: The address of the visitor.

        Raises:
            RateLimited: Too many channels have owners.
        """
        ...

    async def owned(self, channel: str) -> bool:
        """Return whether a channel has an owner."""
        ...

    async def begin(self, channel: str) -> str | None:
        """Take the channel's lease for a dialogue of this process.

        Returns:
            The lease's holder, with which the dialogue publishes; None while another dialogue has the lease.
        """
        ...

    async def renew(self, channel: str) -> bool:
        """Renew the lease; return False if it was lost. `wait_for_stop` calls this regularly."""
        ...

    async def end(self, channel: str) -> None:
        """Release the lease, if this process has it."""
        ...

    async def busy(self, channel: str) -> bool:
        """Return whether a dialogue is running in a channel, in any process."""
        ...

    async def request_stop(self, channel: str) -> None:
        """Ask the dialogue that is running in a channel, if any, to stop, in any process."""
        ...

    async def wait_for_stop(self, channel: str) -> StopReason:
        """Wait until this process's dialogue in a channel must stop, and renew its lease meanwhile.

        It returns within half a second of `request_stop`, even if that was called before.
        """
        ...


class _Owner(NamedTuple):
    """Who owns a channel, and until when."""

    session: str
    address: str
    until: float


class MemoryChannels:
    """Owners and dialogues in the memory of one process.

    Args:
        owned: Seconds for which an unused channel keeps its owner.
        kept: Seconds after its last use until a channel's events are deleted.
        limit: Channels that may have owners.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        owned: float = OWNED_SECONDS,
        kept: float = OWNED_SECONDS,
        limit: int = CHANNELS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owned = owned
        self._kept = min(kept, owned)
        self._limit = limit
        self._clock = clock
        self._owners: OrderedDict[str, _Owner] = OrderedDict()  # ordered by last use
        self._stops: dict[str, asyncio.Event] = {}

    async def ownership(self, channel: str, session: str) -> Ownership:
        """Return who owns a channel. If it is this session, its ownership is extended."""
        if not is_channel_name(channel):
            return "taken"
        self._expire()
        owner = self._owners.get(channel)
        if owner is None:
            return "free"
        if owner.session != session:
            return "taken"
        self._own(channel, session, owner.address)
        return "own"

    async def claim(self, channel: str, session: str, address: str = "") -> bool:
        """Make a session the owner of a channel, unless another session owns it."""
        ownership = await self.ownership(channel, session)
        if ownership == "free":
            self._make_room()
            self._own(channel, session, address)
        return ownership != "taken"

    async def owned(self, channel: str) -> bool:
        """Return whether a channel has an owner."""
        owner = self._owners.get(channel)
        return owner is not None and owner.until > self._clock()

    def visitor_of(self, channel: str) -> str:
        """Return the address of the visitor who owns a channel; empty if nobody does."""
        owner = self._owners.get(channel)
        return "" if owner is None else owner.address

    def _own(self, channel: str, session: str, address: str) -> None:
        self._owners[channel] = _Owner(session, address, self._clock() + self._owned)
        self._owners.move_to_end(channel)

    def _expire(self) -> None:
        now = self._clock()
        while self._owners and next(iter(self._owners.values())).until <= now:
            self._owners.popitem(last=False)

    def _make_room(self) -> None:
        if len(self._owners) < self._limit:
            return
        until = next(iter(self._owners.values())).until
        if until - self._owned + self._kept > self._clock():
            # The channel's next owner could read events that are still stored.
            raise RateLimited(reason="too many channels have owners")
        self._owners.popitem(last=False)

    async def begin(self, channel: str) -> str | None:
        """Take the lease; within one process it does not lapse."""
        if channel in self._stops:
            return None
        self._stops[channel] = asyncio.Event()
        return _HOLDER

    async def renew(self, channel: str) -> bool:
        """Return whether a dialogue is running; there is nothing to renew."""
        return channel in self._stops

    async def end(self, channel: str) -> None:
        """Release the lease."""
        self._stops.pop(channel, None)

    async def busy(self, channel: str) -> bool:
        """Return whether a dialogue is running in a channel."""
        return channel in self._stops

    async def request_stop(self, channel: str) -> None:
        """Ask the dialogue in a channel to stop."""
        if channel in self._stops:
            self._stops[channel].set()

    async def wait_for_stop(self, channel: str) -> StopReason:
        """Wait until the dialogue in a channel must stop."""
        if channel not in self._stops:
            return "lost"
        await self._stops[channel].wait()
        return "requested"

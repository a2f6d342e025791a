"""Who owns a channel, and whose turn it is in one: one dialogue at a time, and how it is asked to stop.

A channel belongs to the first session that asks in it, until it lies unused for long. A dialogue takes its
channel's lease with `begin`, runs `stop_asked` beside the answer (which also renews the lease), and lets go
with `end`:

    if not await channels.begin(channel):
        ...                                         # one runs already
    try:
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(channels.stop_asked(channel))
            ...                                     # answer; `stop` ends first when somebody asks to stop
            stop.cancel()
    finally:
        await channels.end(channel)
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal, Protocol

from proxy.errors import RateLimited

OWNED_SECONDS: Final = 86400.0
"""After its last use a channel is nobody's again; far longer than its events are kept."""
LEASE_SECONDS: Final = 10.0
"""A dialogue whose process died blocks its channel for so long."""
RENEW_SECONDS: Final = 3.0
"""Between two renewals; two may go lost."""
MOST_CHANNELS: Final = 100_000
"""Channels that may be owned at once in memory. Beyond it, only a channel of which nothing is kept any more
makes room; otherwise no further channel can be claimed."""

_LONGEST_NAME: Final = 128
_RESERVED: Final = "llm-token-proxy:"

Ownership = Literal["own", "free", "taken"]
"""Whose a channel is, from the point of view of one session."""

StopReason = Literal["asked", "lost"]
"""Why a dialogue must stop: somebody asked, or its lease lapsed and another one may run."""


def is_channel_name(name: str) -> bool:
    """Whether a visitor may name a channel so: short, printable, and none that processes talk over."""
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and not name.startswith(_RESERVED)


class Channels(Protocol):
    """The owners of channels and the dialogues in them. With Redis every method but the waiting
    `stop_asked` raises `StoreUnavailable` when it cannot be asked.
    """

    async def ownership(self, channel: str, session: str) -> Ownership:
        """Return whose a channel is. An owner that looks keeps it.

        A name that no channel can have counts as taken.
        """
        ...

    async def claim(self, channel: str, session: str) -> bool:
        """Make a session the owner of a channel, unless another session owns it.

        Raises:
            RateLimited: too many channels are owned.
        """
        ...

    async def owned(self, channel: str) -> bool:
        """Whether somebody owns a channel."""
        ...

    async def begin(self, channel: str) -> bool:
        """Take the channel's lease for a dialogue of this process; False while another dialogue has it."""
        ...

    async def renew(self, channel: str) -> bool:
        """Keep the lease for a while longer; False where it was lost. `stop_asked` does it by itself."""
        ...

    async def end(self, channel: str) -> None:
        """Let go of the lease, if this process has it."""
        ...

    async def busy(self, channel: str) -> bool:
        """Whether a dialogue runs in a channel, in whatever process."""
        ...

    async def ask_stop(self, channel: str) -> None:
        """Ask the dialogue that runs in a channel to stop, in whatever process; nothing if none does."""
        ...

    async def stop_asked(self, channel: str) -> StopReason:
        """Wait until the dialogue that `begin` began here must stop, and renew its lease meanwhile.

        It ends within half a second of `ask_stop`, also of one that came before this call.
        """
        ...


class MemoryChannels:
    """Owners and dialogues of one process.

    Args:
        owned: Seconds after its last use until a channel is nobody's.
        kept: Seconds after its last use until nothing of a channel is kept.
        most: Channels that may be owned at once.
        clock: Seconds.
    """

    def __init__(
        self,
        *,
        owned: float = OWNED_SECONDS,
        kept: float = OWNED_SECONDS,
        most: int = MOST_CHANNELS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owned = owned
        self._kept = min(kept, owned)
        self._most = most
        self._clock = clock
        self._owners: OrderedDict[str, tuple[str, float]] = OrderedDict()  # in the order of the last use
        self._stops: dict[str, asyncio.Event] = {}

    async def ownership(self, channel: str, session: str) -> Ownership:
        """Return whose a channel is. An owner that looks keeps it."""
        if not is_channel_name(channel):
            return "taken"
        self._expire()
        owner = self._owners.get(channel)
        if owner is None:
            return "free"
        if owner[0] != session:
            return "taken"
        self._own(channel, session)
        return "own"

    async def claim(self, channel: str, session: str) -> bool:
        """Make a session the owner of a channel, unless another session owns it."""
        ownership = await self.ownership(channel, session)
        if ownership == "free":
            self._make_room()
            self._own(channel, session)
        return ownership != "taken"

    async def owned(self, channel: str) -> bool:
        """Whether somebody owns a channel."""
        return self._owners.get(channel, ("", 0.0))[1] > self._clock()

    def _own(self, channel: str, session: str) -> None:
        self._owners[channel] = (session, self._clock() + self._owned)
        self._owners.move_to_end(channel)

    def _expire(self) -> None:
        now = self._clock()
        while self._owners and next(iter(self._owners.values()))[1] <= now:
            self._owners.popitem(last=False)

    def _make_room(self) -> None:
        if len(self._owners) < self._most:
            return
        _, until = next(iter(self._owners.values()))
        if until - self._owned + self._kept > self._clock():
            # The next owner would read what is still kept of the channel.
            raise RateLimited(reason="as many channels as may be are owned")
        self._owners.popitem(last=False)

    async def begin(self, channel: str) -> bool:
        """Take the lease; in one process it cannot lapse."""
        if channel in self._stops:
            return False
        self._stops[channel] = asyncio.Event()
        return True

    async def renew(self, channel: str) -> bool:
        """Nothing to do but to tell whether a dialogue runs."""
        return channel in self._stops

    async def end(self, channel: str) -> None:
        """Let go of the lease."""
        self._stops.pop(channel, None)

    async def busy(self, channel: str) -> bool:
        """Whether a dialogue runs in a channel."""
        return channel in self._stops

    async def ask_stop(self, channel: str) -> None:
        """Ask the dialogue in a channel to stop."""
        if channel in self._stops:
            self._stops[channel].set()

    async def stop_asked(self, channel: str) -> StopReason:
        """Wait until the dialogue in a channel must stop."""
        if channel not in self._stops:
            return "lost"
        await self._stops[channel].wait()
        return "asked"

"""Ends the dialogues of processes that died, so that no page waits for an answer that will never come.

Every process checks for leases that have lapsed. It ends a dialogue only if several checks in a row found
its lease lapsed: after Redis was away, the processes that are alive need a moment to renew their leases.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from proxy.chat.event import Event
from proxy.chat.redis_broker import RedisBroker
from proxy.chat.redis_leases import RedisLeases
from proxy.redis_connection import StoreCorrupt, StoreUnavailable
from proxy.telemetry import get_logger

CHECK_SECONDS: Final = 0.5
LAPSED_CHECKS: Final = 4
"""How many checks in a row must find a lease lapsed."""
REOPEN_CHECKS: Final = 5
"""How many checks pass until dialogues whose leases Redis has lost get new ones."""
SLOW_SECONDS: Final = 2.0
"""If a check takes longer, Redis or this process was away, and the checks before it do not count."""


class OrphanWatch:
    """Looks for dialogues without a living process.

    Args:
        broker: Publishes their ends.
        ending: The events that end a dialogue.
        pause: Seconds between two checks.
    """

    def __init__(
        self,
        leases: RedisLeases,
        broker: RedisBroker,
        ending: Sequence[Event],
        *,
        pause: float = CHECK_SECONDS,
    ) -> None:
        self._leases = leases
        self._broker = broker
        self._ending = ending
        self._pause = pause
        self._seen: dict[str, int] = {}
        self._checks = 0
        self._log = get_logger("chat")

    async def run(self) -> None:
        """Check repeatedly, until cancelled."""
        loop, corrupt = asyncio.get_running_loop(), ""
        while True:
            started = loop.time()
            await asyncio.sleep(self._pause)
            try:
                lapsed = await self._leases.lapsed()
                if loop.time() - started > self._pause + SLOW_SECONDS:
                    self._seen.clear()
                await self._end(lapsed)
                self._checks += 1
                if self._checks % REOPEN_CHECKS == 0:
                    await self._broker.reopen_unfinished()
                corrupt = ""
            except StoreUnavailable as error:
                self._seen.clear()
                if isinstance(error, StoreCorrupt) and corrupt != str(error):
                    corrupt = str(error)
                    self._log.warning("chat_leases_unreadable", reason=corrupt)

    async def _end(self, lapsed: Sequence[str]) -> None:
        """End the dialogues whose leases have been found lapsed often enough."""
        self._seen = {channel: self._seen.get(channel, 0) + 1 for channel in lapsed}
        for channel in [channel for channel, count in self._seen.items() if count >= LAPSED_CHECKS]:
            del self._seen[channel]
            try:
                if await self._broker.end_lapsed(channel, self._ending):
                    self._log.warning("chat_dialogue_orphaned")
            except StoreCorrupt as error:
                self._log.warning("chat_orphan_not_ended", reason=str(error))
                await self._leases.abandon(channel)  # or its channel would stay busy for a day
            except StoreUnavailable as error:  # it must not delay the others
                self._log.warning("chat_orphan_not_ended", reason=str(error))

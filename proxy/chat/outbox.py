"""The events of one dialogue on their way to the channel. They wait here while Redis is away."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from proxy.chat.broker import Broker, BrokerClosed, LeaseLost, Mark
from proxy.chat.event import Event
from proxy.redis_connection import StoreUnavailable

OUTAGE_SECONDS: Final = 60.0
"""How long Redis may be away while the model goes on answering."""
OUTBOX_BYTES: Final = 1 << 20
"""Size of the events that may wait. The model's answer is not read while there are more."""
CLOSING_SECONDS: Final = 5.0
"""How long the service waits for Redis when it shuts down."""

Interruption = Literal["outage", "lost"]
"""Redis has been away for too long; or nothing can be published any more."""


class Outbox:
    """Publishes events in the order in which they were put in.

    Args:
        broker: Where the events are published.
        holder: The holder of the channel's lease.
        interrupt: Called once if the answer should end, because Redis has been away for too long or the
            events cannot be published.
    """

    def __init__(
        self, broker: Broker, channel: str, holder: str, interrupt: Callable[[Interruption], object]
    ) -> None:
        self._broker = broker
        self._channel = channel
        self._holder = holder
        self._interrupt = interrupt
        self._waiting: deque[tuple[Event, Mark | None, int]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._outage = False
        self._closing = False
        self._attempt: asyncio.Timeout | None = None
        self._failure: Exception | None = None

    async def put(self, event: Event, mark: Mark | None = None) -> None:
        """Add an event. Wait while too many events are waiting, unless the answer has to end anyway.

        Raises:
            StoreUnavailable, BrokerClosed, LeaseLost: Nothing can be published any more.
        """
        while self._bytes > OUTBOX_BYTES and not self._outage:
            await self._change()
        self._raise_failure()
        size = sum(map(len, event.envelope_parts()))
        self._waiting.append((event, mark, size))
        self._bytes += size
        self._notify()

    async def sent(self) -> None:
        """Wait until all events are published.

        Raises:
            StoreUnavailable, BrokerClosed, LeaseLost: Nothing can be published any more.
        """
        while self._waiting:
            await self._change()
        self._raise_failure()

    async def run(self) -> None:
        """Publish the events, until this is cancelled or nothing can be published any more."""
        try:
            while True:
                while not self._waiting:
                    await self._change()
                event, mark, size = self._waiting[0]
                await self._publish(event, mark)
                self._waiting.popleft()
                self._bytes -= size
                self._notify()
        except (StoreUnavailable, BrokerClosed, LeaseLost) as error:
            self._failure = error
            self._notify()
            self._interrupt("lost")

    def close(self) -> None:
        """Wait for Redis only briefly from now on, because the service shuts down."""
        self._closing = True
        if self._attempt is not None:
            self._attempt.reschedule(asyncio.get_running_loop().time() + CLOSING_SECONDS)

    async def _publish(self, event: Event, mark: Mark | None) -> None:
        loop = asyncio.get_running_loop()
        outage = loop.call_later(OUTAGE_SECONDS, self._note_outage)
        try:
            async with asyncio.timeout(CLOSING_SECONDS if self._closing else None) as self._attempt:
                await self._broker.publish(
                    self._channel, event, holder=self._holder, mark=mark, retry_seconds=None
                )
        except TimeoutError as error:
            raise StoreUnavailable("the service is shutting down") from error
        finally:
            self._attempt = None
            outage.cancel()

    def _note_outage(self) -> None:
        self._outage = True
        self._notify()
        self._interrupt("outage")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _change(self) -> None:
        """Wait for the next change, or raise the failure."""
        self._raise_failure()
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

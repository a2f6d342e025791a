"""What a broker is: it keeps the events of channels for a while, and hands them to whoever listens."""

from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from proxy.chat.event import Event

KEPT_EVENTS: Final = 500
"""Of a channel, for replay: some ten turns."""
EXPIRE_SECONDS: Final = 3600.0
"""After the last event of a channel, all that is kept of it goes."""
QUEUE_EVENTS: Final = 256
"""That wait for one reader, beside what is replayed to it; one more, and it is cut."""


class SlowReader(Exception):
    """This reader did not take its events in time. It may come back with the id of the last one it got."""


class BrokerClosed(Exception):
    """The service ends; nothing more will come."""


class Subscription(Protocol):
    """One reader of one channel."""

    async def get(self) -> Event:
        """The next event: what is replayed first, then what comes, without gap or double.

        There is no clock in here; a caller sets one, and loses nothing when it runs out.

        Raises:
            SlowReader: more than the queue holds was waiting.
            BrokerClosed: the service ends, and all that came before was handed out.
        """
        ...


class Broker(Protocol):
    """Publishes, keeps and replays."""

    async def publish(self, channel: str, event: Event) -> str:
        """Give an event its id, keep it, and send it to all who listen now; the id.

        It waits for no reader.

        Raises:
            StoreUnavailable: Redis could not be asked; whether the event was published is not known.
            BrokerClosed: the service ends.
        """
        ...

    def subscribe(self, channel: str, after: str | None) -> AbstractAsyncContextManager[Subscription]:
        """Listen to a channel.

        Args:
            channel: Its name.
            after: An id, whose successors are replayed first, `0-0` for all that is kept, or None for what
                comes from now on. What is no id (`ms-seq`) counts as None.
        """
        ...

    async def forget(self, channel: str) -> None:
        """Keep nothing of what was published so far."""
        ...

    async def knows(self, channel: str) -> bool:
        """Whether anything of a channel is kept."""
        ...

    async def close(self) -> None:
        """End every subscription with `BrokerClosed`, and let go of connections."""
        ...

"""Readers of event streams: what one of them gets, byte by byte, and how all are sent away at the end."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from proxy.chat.broker import BrokerClosed, SlowReader, Subscription
from proxy.chat.channels import Ownership
from proxy.chat.event import encode_comment
from proxy.redis_connection import StoreUnavailable

HEARTBEAT_SECONDS: Final = 15.0
"""Of silence, after which a comment shows that the connection lives; the HTML standard's advice."""
RETRY_MILLISECONDS: Final = 2000
OPENING: Final = b"retry:%d\n\n" % RETRY_MILLISECONDS + encode_comment("open")
"""Sent at once: without a byte of the body, proxies may hold the headers back."""
AGE_SECONDS: Final = (600.0, 900.0)
"""How long one connection lasts, drawn between the two. The browser goes on with a new one, by the last id; a
connection whose visitor has vanished without a word does not stay for ever."""


class Readers:
    """The readers that wait at the moment.

    Args:
        heartbeat: Seconds between two comments.
        age: Seconds that a connection lasts, at least and at most.
    """

    def __init__(
        self, *, heartbeat: float = HEARTBEAT_SECONDS, age: tuple[float, float] = AGE_SECONDS
    ) -> None:
        self._heartbeat = heartbeat
        self._age = age
        self._waits: set[asyncio.Timeout] = set()
        self._sent_away = False

    def send_away(self) -> None:
        """The service goes: end every stream now, and those that still come. Browsers come back."""
        self._sent_away = True
        for wait in self._waits:
            # One that runs out at this moment cannot be moved any more; its reader looks by itself.
            with contextlib.suppress(RuntimeError):
                wait.reschedule(0)

    async def stream(
        self, subscription: Subscription, ownership: Callable[[], Awaitable[Ownership]] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes of one event stream: events as they are published, comments in between.

        It ends when it is old, when the reader is too slow or sent away, when the broker closes, or when the
        channel, which nobody owned when the stream began, belongs to another session.

        Args:
            subscription: To the channel.
            ownership: Whose the channel is, for the session that reads; None for a public channel.
        """
        is_free = ownership is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + random.uniform(*self._age)  # noqa: S311  spreads reconnections, guards nothing
        yield OPENING
        while not self._is_over(end):
            try:
                async with asyncio.timeout_at(min(loop.time() + self._heartbeat, end)) as wait:
                    self._waits.add(wait)
                    try:
                        event = await subscription.get()
                    finally:
                        self._waits.discard(wait)
            except TimeoutError:
                if not self._is_over(end):
                    yield encode_comment("ping")
            except (SlowReader, BrokerClosed):
                return
            else:
                if is_free and ownership is not None:
                    try:
                        owner = await ownership()
                    except StoreUnavailable:
                        return  # The browser reconnects, and is asked for its session again.
                    if owner == "taken":
                        return
                    is_free = owner == "free"
                yield event.encode()

    def _is_over(self, end: float) -> bool:
        return self._sent_away or asyncio.get_running_loop().time() >= end

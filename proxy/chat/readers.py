"""The event streams of this process: the bytes that each reader receives, and how all of them end."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from proxy.chat import notices
from proxy.chat.broker import BrokerClosed, SlowReader, Subscription
from proxy.chat.channels import Ownership
from proxy.chat.event import encode_comment
from proxy.chat.publisher import error_event
from proxy.redis_connection import StoreCorrupt, StoreUnavailable
from proxy.telemetry import get_logger

HEARTBEAT_SECONDS: Final = 15.0
"""Silence after which a comment is sent, as the HTML standard advises."""
RETRY_MILLISECONDS: Final = 2000
CORRUPT_RETRY_MILLISECONDS: Final = 30_000
"""The same after an error that remains until somebody removes its cause."""
OPENING: Final = b"retry:%d\n\n" % RETRY_MILLISECONDS + encode_comment("open")
"""Sent at once, because proxies may delay the headers until the first byte of the body."""
EVENTS_IN_A_ROW: Final = 16
"""Stored events that are sent before other tasks run: nothing else has to wait for a fast reader."""
AGE_SECONDS: Final = (600.0, 900.0)
"""Limits of the random lifetime of a connection, after which the browser reconnects with its last id. It
also ends connections whose visitor vanished unnoticed."""


class Readers:
    """The event streams that are open.

    Args:
        heartbeat: Seconds of silence before a comment.
        age: Minimum and maximum seconds that a connection lasts.
    """

    def __init__(
        self, *, heartbeat: float = HEARTBEAT_SECONDS, age: tuple[float, float] = AGE_SECONDS
    ) -> None:
        self._heartbeat = heartbeat
        self._age = age
        self._waits: set[asyncio.Timeout] = set()
        self._closed = False
        self._log = get_logger("chat")

    def close_all(self) -> None:
        """End every stream, now and from now on, because the service shuts down. Browsers reconnect."""
        self._closed = True
        for wait in self._waits:
            # A timeout that has just expired cannot be rescheduled; its reader checks `_closed` itself.
            with contextlib.suppress(RuntimeError):
                wait.reschedule(0)

    async def stream(
        self, subscription: Subscription, ownership: Callable[[], Awaitable[Ownership]] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes of one event stream: events as they are published, and comments in between.

        It ends when its lifetime is over, when the reader is too slow, when the service or the broker closes,
        or when the channel, which had no owner when the stream began, belongs to another session. If the
        stored events cannot be read, it ends with an error block.

        Args:
            ownership: Looks up who owns the channel, from the reader's view; None for a public channel.
        """
        is_free = ownership is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + random.uniform(*self._age)  # noqa: S311  spreads reconnections
        in_a_row = 0
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
            except StoreCorrupt as error:
                self._log.warning("chat_stream_failed", reason=str(error))
                failure = error_event(notices.STORE_CORRUPT)
                yield msgspec.structs.replace(failure, retry=CORRUPT_RETRY_MILLISECONDS).encode()
                return
            else:
                if is_free and ownership is not None:
                    try:
                        owner = await ownership()
                    except StoreUnavailable:
                        return  # the browser reconnects, and its session is checked again
                    if owner == "taken":
                        return
                    is_free = owner == "free"
                try:
                    encoded = event.encode()
                except ValueError:
                    self._log.warning("chat_entry_unreadable")
                else:
                    yield encoded
                in_a_row = (in_a_row + 1) % EVENTS_IN_A_ROW
                if not in_a_row:
                    await asyncio.sleep(0)

    def _is_over(self, end: float) -> bool:
        return self._closed or asyncio.get_running_loop().time() >= end

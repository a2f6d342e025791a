"""Readers of a channel, with timeouts for tests."""

import asyncio

from proxy.chat.broker import Subscription
from proxy.chat.event import Event
from tests.pace import PATIENCE


async def take(reader: Subscription, count: int) -> list[Event]:
    """Return the next events."""
    async with asyncio.timeout(PATIENCE):
        return [await reader.get() for _ in range(count)]


async def take_data(reader: Subscription, count: int) -> list[object]:
    """Return the data of the next events."""
    return [event.data for event in await take(reader, count)]


async def is_silent(reader: Subscription, seconds: float = 0.05) -> bool:
    """Return whether no event arrives for a while."""
    try:
        async with asyncio.timeout(seconds):
            await reader.get()
    except TimeoutError:
        return True
    return False

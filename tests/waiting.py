"""The real waits of the tests, each for one reason. No other module of the tests sleeps: use virtual time."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

LOOK_SECONDS: Final = 0.01
STABLE_SECONDS: Final = 0.1


async def delay(seconds: float) -> None:
    """Let a server or a caller of a test be slow on purpose, or a connection be idle."""
    await asyncio.sleep(seconds)


async def look_again() -> None:
    """Pause between two looks at something that reports no event, such as another process.

    The loop around it has a deadline.
    """
    await asyncio.sleep(LOOK_SECONDS)


def block_loop(seconds: float) -> None:
    """Block the event loop, which is the fault under test."""
    time.sleep(seconds)


async def until_stable(value: Callable[[], object]) -> None:
    """Wait until a value has not changed for a while, because nothing reports that it will not change."""
    seen: object = None
    while seen != (current := value()):
        seen = current
        await asyncio.sleep(STABLE_SECONDS)

"""The clock for everything that expires: tokens, and the windows of limits."""

import time
from typing import Final

_HAS_BOOT_TIME: Final = hasattr(time, "CLOCK_BOOTTIME")


def elapsed() -> float:
    """Return the seconds since some moment, including those during which the machine was suspended.

    `time.monotonic` stands still meanwhile on Linux, and `time.time` jumps when the clock is set.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _HAS_BOOT_TIME else time.monotonic()

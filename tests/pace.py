"""How slow this machine is at the moment. Every deadline of the tests is scaled by it.

`PROXY_TEST_PACE=3` sets the factor; else each test process measures it when it starts. A deadline is there to
end a test that hangs. A promise about speed is tested in virtual time, or beside a control in the same run.
"""

import os
import time
from typing import Final

QUIET_SECONDS: Final = 0.023
"""The duration of one round on a quiet machine of 2026."""
ROUNDS: Final = 5
STEPS: Final = 500_000


def _measure() -> float:
    """Return the duration of the slowest of some rounds of fixed work, which other processes slow down."""
    worst = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        total = 0
        for step in range(STEPS):
            total += step
        worst = max(worst, time.perf_counter() - began)
    return max(1.0, worst / QUIET_SECONDS)


PACE: Final = float(os.environ.get("PROXY_TEST_PACE") or _measure())


def paced(seconds: float) -> float:
    """Return a time that suffices on this machine, from one that suffices on a quiet machine."""
    return seconds * PACE


PATIENCE: Final = paced(60.0)
"""Seconds that any wait in a test may take before it is a failure."""

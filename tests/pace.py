"""How slow this machine is right now: every deadline of the tests is a multiple of it.

`PROXY_TEST_PACE=3` sets the factor; else each test process measures it when it starts. A deadline is there to
end a test that hangs. A promise about speed is tested in virtual time, or beside a control in the same run.
"""

import os
import time
from typing import Final

QUIET_SECONDS: Final = 0.023
"""What one round takes on a quiet machine of the year 2026."""
ROUNDS: Final = 5
STEPS: Final = 500_000


def _measure() -> float:
    """The worst of some rounds of fixed work, by the wall clock: it sees other processes too."""
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
    """Stretch a time that is enough on a quiet machine to what is enough on this one."""
    return seconds * PACE


PATIENCE: Final = paced(60.0)
"""Seconds that any wait in a test may take before it is a failure."""

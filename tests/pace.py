"""How slow this machine is at the moment. Every deadline of the tests is scaled by it.

`PROXY_TEST_PACE=3` sets the factor; else each test process measures it when it starts. A deadline is there to
end a test that hangs. A promise about speed is tested in virtual time, or beside a control in the same run.
"""

import os
import time
from typing import Final

QUIET_SECONDS: Final = 0.0074
"""The duration of one round on a quiet machine of 2026: the one of the benchmark in docs/performance, by the
cost of a cached token in the same run."""
ROUNDS: Final = 5
STEPS: Final = 100_000


def _work() -> None:
    """Call functions and build objects, as most Python code does; it suffers more than a plain loop."""
    for step in range(STEPS):
        _build(step).get("step")


def _build(step: int) -> dict[str, int]:
    return {"step": step}


def _measure() -> float:
    """Return the slowness by the slowest of some rounds of fixed work, which other processes slow down."""
    worst = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        _work()
        worst = max(worst, time.perf_counter() - began)
    return max(1.0, worst / QUIET_SECONDS)


def slowness() -> float:
    """Return how many times the CPU time of a quiet machine fixed work takes at this moment, at least 1.

    Even CPU time depends on what else runs: on hyperthreads and on other guests of the same host.
    """
    began = time.thread_time()
    _work()
    return max(1.0, (time.thread_time() - began) / QUIET_SECONDS)


PACE: Final = float(os.environ.get("PROXY_TEST_PACE") or _measure())


def paced(seconds: float) -> float:
    """Return a time that suffices on this machine, from one that suffices on a quiet machine."""
    return seconds * PACE


PATIENCE: Final = paced(60.0)
"""Seconds that any wait in a test may take before it is a failure."""

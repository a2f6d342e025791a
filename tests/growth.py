"""Whether CPU time grows linearly with the size of an input: a ratio, so the machine's speed cancels."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

ROUNDS: Final = 4
FACTOR: Final = 4
GROWTH_MAX: Final = 6.7
"""Of the CPU time where the input grows by `FACTOR`: 4 and some noise. A quadratic cost grows by 16."""


async def assert_linear(run: Callable[[int], Awaitable[None]], size: int) -> None:
    """Compare the best CPU times of both sizes. Rounds alternate: a slow spell of the machine meets both."""
    await run(size)  # warms up
    best = {size: math.inf, FACTOR * size: math.inf}
    for _ in range(ROUNDS):
        for each in best:
            began = time.process_time()
            await run(each)
            best[each] = min(best[each], time.process_time() - began)
    small, large = best.values()
    assert large <= GROWTH_MAX * small, f"size {size}: {small:.4f} s, {FACTOR} times as large: {large:.4f} s"

"""A short run of `make fuzz`, whose seed can be given by `PROXY_TEST_FUZZ_SEED`."""

import os
import secrets
from typing import Final

import pytest

from tests.fuzz.draws import draw_call
from tests.fuzz.run import Tally, rounds, run_round

REQUESTS: Final = 5_000
CANCELS: Final = 0.1
SEED: Final = int(os.environ.get("PROXY_TEST_FUZZ_SEED") or secrets.randbelow(1 << 32))


@pytest.mark.fleet
@pytest.mark.xdist_group("load")
@pytest.mark.timeout(300)
async def test_no_caller_gets_the_nonce_of_another() -> None:
    print(f"seed {SEED}")  # shown where the test fails
    total = Tally()
    for number, calls in rounds(REQUESTS, REQUESTS // 4):
        total.add(await run_round(SEED, 5 * number, calls, CANCELS))
    assert total.foreign == []
    assert total.asked == REQUESTS
    assert total.cancelled > REQUESTS * CANCELS / 4
    assert total.own > REQUESTS / 3
    assert total.upstream_requests > total.connections, "no connection was used twice"


def test_a_seed_repeats_its_calls() -> None:
    assert [draw_call(1, number, 0.5, "k") for number in range(50)] == [
        draw_call(1, number, 0.5, "k") for number in range(50)
    ]
    assert draw_call(1, 1, 0.5, "k") != draw_call(2, 1, 0.5, "k")

"""The soak for two minutes."""

import math
from pathlib import Path

import pytest

from tests.soak.soak import RESTARTED, STEADY, Soak


@pytest.mark.fleet
@pytest.mark.xdist_group("soak")
@pytest.mark.timeout(600)
async def test_streams_lose_nothing_while_redis_a_worker_and_an_upstream_restart(tmp_path: Path) -> None:
    soak = Soak(streams=300, events=30, pause=1.0, turns=4)
    await soak.run(tmp_path)
    assert soak.faults == []
    assert sum(soak.endings.values()) == 300 * 4
    assert soak.endings[STEADY, "cut"] > 0  # streams of the killed worker
    assert soak.endings[RESTARTED, "ended with an error event"] > 0
    assert soak.endings[STEADY, "ended with an error event"] == 0
    assert 6 <= soak.fetches <= 12  # two minutes of tokens of 20 s, refreshed early, with an outage of Redis
    assert math.isfinite(soak.memory_slope)  # a longer run is needed to judge it

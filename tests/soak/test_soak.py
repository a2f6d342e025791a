"""The soak for a few seconds."""

import math
from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.fleet
@pytest.mark.xdist_group("load")
async def test_streams_through_two_workers_lose_nothing_while_one_is_killed(tmp_path: Path) -> None:
    soak = Soak(streams=60, events=6, pause=0.2, turns=4, token_seconds=3600)
    await soak.run(tmp_path)
    faults = {name: soak.counts[name] for name in ("lost", "out of order", "foreign", "ended with an error")}
    assert faults == dict.fromkeys(faults, 0)
    assert soak.counts["whole"] + soak.counts["left"] + soak.counts["cut"] == 60 * 4
    assert 0 < soak.counts["cut"] <= 60  # at most the streams of the killed worker
    assert soak.fetches == 1
    assert math.isfinite(soak.memory_slope)  # a longer run is needed to judge it

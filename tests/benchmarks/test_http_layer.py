"""Our HTTP layer costs a fraction of stock Hypercorn's, in the same run."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.benchmarks.http_layer import BAR
from tests.pace import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.mark.fleet
async def test_a_bare_quart_response_costs_at_most_its_share_of_stock_hypercorn() -> None:
    bench = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.http_layer", "--requests", "200", "--rounds", "7",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        said, _ = await bench.communicate()
    quart = said.decode().splitlines()[-1].split()
    assert quart[0] == "Quart", said.decode()
    assert float(quart[3].removesuffix("x")) <= BAR, said.decode()

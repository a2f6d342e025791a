"""Which runs of the benchmark are kept."""

import pytest

from tests.benchmarks.__main__ import check_load, parse_arguments
from tests.benchmarks.process import BenchError


def test_a_run_on_a_busy_machine_is_not_kept() -> None:
    with pytest.raises(BenchError, match=r"load average 2\.5 on 2 cores.*--busy"):
        check_load(parse_arguments(["--keep"]), 2.5, 2)


@pytest.mark.parametrize(("arguments", "load"), [(["--keep"], 2.0), (["--keep", "--busy"], 9.0), ([], 9.0)])
def test_other_runs_are_measured(arguments: list[str], load: float) -> None:
    check_load(parse_arguments(arguments), load, 2)

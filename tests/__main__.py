"""Run all tests: `python -m tests`.

Browser tests run in a separate phase. So do tests of several workers, attacks on a fleet, the fuzzer and the
soak; they run only with `PROXY_TEST_REQUIRE=all`, as in CI. All phases run, even if one fails; the
last line counts the tests of all. Arguments are pytest's: they choose other tests, which run in one phase.
`--quick` chooses the tests that start no process, which take a few seconds.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.conftest import TALLY_VARIABLE

CORES: Final = len(os.sched_getaffinity(0))
WORKERS: Final = CORES + 3
"""More than the cores, because many tests wait."""
BROWSERS: Final = CORES + 1
"""Browser tests wait less."""
ROOT: Final = Path(__file__).parents[1]
QUICK: Final = (
    "tests/access",
    "tests/lifecycle",
    "tests/settings",
    "tests/test_architecture.py",
    "tests/test_docs.py",
    "tests/test_drain.py",
    "tests/test_errors.py",
    "tests/test_secret.py",
    "tests/upstream/test_relay.py",
    "tests/upstream/test_routing.py",
    "tests/wire/test_endpoints.py",
    "tests/wire/test_event_stream.py",
    "tests/wire/test_headers.py",
    "tests/wire/test_paths.py",
    "tests/wire/test_stream_errors.py",
)
"""The tests that `--quick` runs."""


def phases(arguments: list[str]) -> list[list[str]]:
    """Return the arguments of each run of pytest."""
    parallel = ["-n", str(WORKERS), "--dist", "worksteal"]
    browsers = ["-n", str(BROWSERS), "--dist", "worksteal"]
    if arguments[:1] == ["--quick"]:
        return [["-q", "-n", str(CORES), *QUICK, *arguments[1:]]]
    if arguments:
        return [["-m", "not fleet", *parallel, *arguments]]
    marked = [
        str(path)
        for path in ROOT.rglob("tests/**/test_*.py")
        if "pytest.mark.fleet" in path.read_text("utf-8")
    ]
    longest_first = sorted(marked, key=lambda path: ("/tests/soak/" not in path, path))
    fleet = ["-m", "fleet", "-n", "2", "--dist", "loadgroup", *longest_first]
    return [
        ["-m", "not browser and not fleet", *parallel],
        ["-m", "browser and not fleet", *browsers, "tests/browser"],
        *([fleet] if os.environ.get("PROXY_TEST_REQUIRE") == "all" else []),
    ]


def run(arguments: list[str]) -> int:
    """Run all phases, and return the exit status of the first that failed."""
    began, counted, statuses = time.monotonic(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        for number, phase in enumerate(phases(arguments)):
            tally = Path(folder) / str(number)
            environment = {**os.environ, TALLY_VARIABLE: str(tally)}
            # Otherwise hundreds of processes would compile the package.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            command = [sys.executable, "-m", "pytest", *phase]
            statuses.append(subprocess.run(command, check=False, env=environment).returncode)
            counted.update(json.loads(tally.read_text()) if tally.exists() else {})
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items() if count)
    print(f"===== all phases: {told or 'no tests ran'} in {time.monotonic() - began:.0f} s =====")
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""Run all tests: `python -m tests`.

Attacks on a fleet need the machine for themselves, so they run in a second phase. Both phases run, whatever
becomes of the first; the last line counts the tests of both. Arguments are pytest's: they choose other tests,
which then run in one phase.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conftest import TALLY_VARIABLE


def phases(arguments: list[str]) -> list[list[str]]:
    """The arguments of each run of pytest."""
    most = ["-m", "not fleet", "-n", "auto", "--dist", "worksteal", *arguments]
    return [most] if arguments else [most, ["-m", "fleet", "-n", "2", "--dist", "loadgroup", "tests/fleet"]]


def run(arguments: list[str]) -> int:
    """Run all phases; the exit status of the first that failed."""
    began, counted, statuses = time.monotonic(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        for number, phase in enumerate(phases(arguments)):
            tally = Path(folder) / str(number)
            environment = {**os.environ, TALLY_VARIABLE: str(tally)}
            command = [sys.executable, "-m", "pytest", *phase]
            statuses.append(subprocess.run(command, check=False, env=environment).returncode)
            counted.update(json.loads(tally.read_text()) if tally.exists() else {})
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items() if count)
    print(f"===== all phases: {told or 'no tests ran'} in {time.monotonic() - began:.0f} s =====")
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

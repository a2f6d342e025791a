"""Print the table: `python -m tests.integration.fault_table [--cells]`."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from structlog.testing import capture_logs

from tests.integration.fault_table.table import counts, rows, run


def main() -> None:
    """Run all cells, and print their results."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, capture_logs():
        cells = asyncio.run(run(Path(folder)))
    if "--cells" in sys.argv:
        print(*cells, sep="\n")
    print(*rows(cells), *counts(cells), f"{time.monotonic() - began:.1f} s", sep="\n")


if __name__ == "__main__":
    main()

"""`python -m tests.soak`: 1000 streams of an event a second for ten minutes; a table at the end."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import FAULTS, Soak


def main() -> int:
    """Print the table; exit 1 if something happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--streams", type=int, default=1000, help="at the same time (1000)")
    parser.add_argument("--minutes", type=float, default=10, help="of it (10)")
    options = parser.parse_args()
    soak = Soak(options.streams, events=30, pause=1.0, turns=max(1, round(options.minutes * 2)))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(soak.run(Path(folder)))
    for name in FAULTS:
        print(f"{f'events {name}':<46} {soak.counts[name]:>8}")
    for (upstream, ending), count in sorted(soak.endings.items()):
        print(f"{f'streams of the {upstream} upstream: {ending}':<58} {count:>8}")
    print(f"{'token fetches':<46} {soak.fetches:>8}")
    first, last = soak.memory[0][1], soak.memory[-1][1]
    print(f"memory of the worker that lived: {first:.1f} MiB at the start, {last:.1f} MiB at the end")
    print(f"its growth towards the end: {soak.memory_slope:+.1f} MiB per ten minutes")
    print(f"sockets of the worker that lived, before and after: {soak.sockets}")
    for fault in soak.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())

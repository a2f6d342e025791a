"""Look for bytes that reach the wrong caller: `python -m tests.fuzz --requests 100000` (10 to 20 minutes)."""

import argparse
import asyncio
import secrets
import sys
import time

from tests.fuzz.run import Tally, rounds, run_round


def main() -> int:
    """Run all rounds and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--cancels", type=float, default=0.1, help="share of callers who leave early")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run: same requests, same answers")
    parser.add_argument("--round", type=int, default=2_500, help="requests until the proxy is replaced")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    total, began = Tally(), time.monotonic()
    for number, calls in rounds(options.requests, options.round):
        tally = asyncio.run(run_round(seed, number, calls, options.cancels))
        total.add(tally)
        print(line(tally, f"round {number}"), flush=True)
    print(line(total, f"{time.monotonic() - began:.0f} s"))
    for nonce, other in total.foreign[:20]:
        print(f"caller {nonce.decode()} received {other.decode()}")
    return 1 if total.foreign else 0


def line(tally: Tally, name: str) -> str:
    """Return the results of the requests in one line."""
    reused = tally.upstream_requests - tally.connections
    return (
        f"{name:<10}{tally.asked:>8} requests {tally.cancelled:>6} cancelled {tally.own:>7} got their nonce"
        f" {reused:>7} on used connections {dict(sorted(tally.statuses.items()))}"
        f" foreign: {len(tally.foreign)}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Read the parameters from standard input, fetch a token, and write the outcome to standard output."""

import asyncio
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn

from proxy.cloud_sdks.fetch import load_sdk
from proxy.cloud_sdks.outcome import TIMED_OUT, TOO_LARGE, SdkFailure, SdkOutcome, write_outcome
from proxy.cloud_sdks.parameters import read_parameters

MEMORY_BYTES_MAX: Final = 256 << 20
"""An SDK takes about 60 MiB. It needs as much as this only for a reply or an output that does not end."""
_LOOK_SECONDS: Final = 0.05
_PROXY_VARIABLES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})


def main() -> None:
    """Run the process."""
    # Whatever an SDK prints goes to standard error, which the service discards.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    guard = _Guard(output)
    threading.Thread(target=guard.watch, daemon=True).start()
    parameters = read_parameters(sys.stdin.buffer.read())
    if not parameters.trust_env:
        for name in [name for name in os.environ if name.lower() in _PROXY_VARIABLES]:
            del os.environ[name]
    fetch = load_sdk(parameters)
    guard.deadline = time.monotonic() + parameters.timeout
    asyncio.run(_run(fetch, guard))


async def _run(fetch: Callable[[], Awaitable[SdkOutcome]], guard: "_Guard") -> None:
    guard.end(await fetch())


class _Guard:
    """Ends this process, whatever its SDK does.

    Args:
        output: The descriptor for the outcome.
    """

    def __init__(self, output: int) -> None:
        self.deadline = math.inf
        """In monotonic seconds."""
        self._output = output
        self._parent = os.getppid()
        self._lock = threading.Lock()

    def watch(self) -> None:
        """End this process at the deadline, if it takes too much memory, and if the service has ended."""
        while os.getppid() == self._parent:
            if time.monotonic() > self.deadline:
                self.end(SdkFailure(TIMED_OUT, permanent=False))
            if _resident_bytes() > MEMORY_BYTES_MAX:
                self.end(SdkFailure(TOO_LARGE, permanent=False))
            time.sleep(_LOOK_SECONDS)
        # Nobody else ends its commands now.
        os.killpg(0, signal.SIGKILL)

    def end(self, outcome: SdkOutcome) -> NoReturn:
        """Write the outcome and end without waiting for anything; the service then kills the commands."""
        self._lock.acquire()  # never released, because there is one outcome
        os.write(self._output, write_outcome(outcome))
        os.kill(os.getpid(), signal.SIGKILL)
        raise SystemExit  # for the types; it is not reached


def _resident_bytes() -> int:
    """Return the size of this process in memory; 0 without /proc, where only the time is limited."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()

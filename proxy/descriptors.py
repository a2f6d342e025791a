"""The limit of open files of this process: each connection takes one descriptor of it."""

import contextlib
import math
import sys


def descriptors_max() -> float:
    """Return how many descriptors the process may have open; infinity if there is no limit."""
    if sys.platform == "win32":
        return math.inf
    import resource  # not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def raise_descriptors_max(wanted: int) -> float:
    """Raise the limit to what is wanted, as far as the hard limit allows it; return the limit in effect."""
    if sys.platform != "win32" and descriptors_max() < wanted:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has further limits
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return descriptors_max()

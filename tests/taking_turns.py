"""Tests that are marked `alone` run while no other test does, however many processes pytest-xdist starts."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Wait for this test's turn: beside others of its kind, or alone.

    A test that waits to be alone keeps the door, so that those who come after it wait as well.

    Args:
        folder: One that all processes of the test run share.
        alone: Whether nothing else may run.
    """
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield

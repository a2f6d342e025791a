"""Leaks of a service in this process: tasks and descriptors, including those of connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.pace import paced
from tests.waiting import look_again

LEFT_BEHIND_SECONDS: Final = 5.0


def open_descriptors() -> dict[int, str]:
    """Return the descriptors of this process, and what they refer to."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the others
            found[int(path.name)] = str(path.readlink())
    return found


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail if tasks or descriptors that the block opened still exist some seconds after it."""
    tasks, descriptors = asyncio.all_tasks(), open_descriptors()
    yield
    deadline = asyncio.get_running_loop().time() + paced(LEFT_BEHIND_SECONDS)
    while True:
        new_tasks = asyncio.all_tasks() - tasks
        now = open_descriptors()
        if not new_tasks and len(now) <= len(descriptors):
            return
        new = sorted({*now.values()} - {*descriptors.values()})
        assert asyncio.get_running_loop().time() < deadline, (new_tasks, new)
        await look_again()

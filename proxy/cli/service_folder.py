"""The folder in which the workers of a service share files; a start removes those of killed services."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "llm-token-proxy-workers-"
_UNLOCKED: Final = "llm-token-proxy-new-"


@contextlib.contextmanager
def service_folder() -> Iterator[tuple[str, int]]:
    """Make a folder that only this user can read, and remove it at the end.

    Yields:
        The folder, and a descriptor that has to stay open in each process that uses the folder: it holds the
        lock by which other services know that the folder is in use.
    """
    remove_abandoned()
    new = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
    descriptor = os.open(new, os.O_RDONLY)
    try:
        _lock(descriptor)
        # Another service that starts now removes an unlocked folder with the final name.
        folder = new.rename(new.with_name(new.name.replace(_UNLOCKED, PREFIX)))
        try:
            yield str(folder), descriptor
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def remove_abandoned() -> None:
    """Remove the folders of this user's services whose processes have all ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file until all copies of its descriptor are closed; return whether nobody else has locked it."""
    import fcntl  # only on POSIX; other systems run a single worker

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use; or this file system has no locks, and then abandoned folders stay
        return False
    return True

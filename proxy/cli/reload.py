"""Reload the settings and certificates at SIGHUP."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from proxy.daemon_threads import start_call
from proxy.errors import SettingsError
from proxy.server.certificates import Certificates
from proxy.settings import Settings, referenced_files
from proxy.task_groups import task_group
from proxy.telemetry import get_logger

T = TypeVar("T")
ServeBy = Callable[[Settings], Awaitable[None]]

QUIET_SECONDS: Final = 0.5
"""A settings file that has not changed for this long is considered complete."""
UNSTABLE_SECONDS: Final = 10.0
"""A settings file that still changes after this long is not loaded."""
READ_SECONDS: Final = 30.0
"""Reading files takes milliseconds, unless a file system hangs."""
_POLL_SECONDS: Final = 0.1
_BEING_WRITTEN: Final = "is still being written; write a new file next to it and rename it into place"


async def wait_until_stable(*paths: Path) -> None:
    """Wait until none of these files is being written any more.

    Half of a TOML file is often valid TOML, but lacks limits, and half of a secret is another secret. A file
    that is replaced by a rename is always complete. For any other file, wait until its size, time and inode
    have not changed for a moment.

    Raises:
        SettingsError: The files that keep changing.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + UNSTABLE_SECONDS
    seen = {path: (_state(path), clock()) for path in paths}
    while waiting := [path for path, (state, since) in seen.items() if not _is_quiet(state, clock() - since)]:
        if clock() >= end:
            raise SettingsError(*(f"{path}: {_BEING_WRITTEN}" for path in waiting))
        await asyncio.sleep(_POLL_SECONDS)
        for path, (state, _) in seen.items():
            if (current := _state(path)) != state:
                seen[path] = current, clock()


def _is_quiet(state: tuple[int, int, int], unchanged_for: float) -> bool:
    # The age decides at once if the file is old. On a network file system its clock may be wrong.
    return _age(state) >= QUIET_SECONDS or unchanged_for >= QUIET_SECONDS


def _state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0, 0  # Loading the file reports the error.
    return state.st_ino, state.st_size, state.st_mtime_ns


def _age(state: tuple[int, int, int]) -> float:
    return time.time() - state[2] / 1e9


async def read_when_complete(load: Callable[[], Settings], file: Path | None) -> Settings:
    """Load the settings once no file that they consist of is being written.

    Args:
        load: Reads and checks the settings.
        file: The file that `load` reads. It may name further files with `${file:}`.

    Raises:
        SettingsError: They cannot be loaded.
    """
    if file is not None:
        await in_time(functools.partial(_state, file))
        await wait_until_stable(file)
        files = [file, *await in_time(functools.partial(referenced_files, file, os.environ))]
        await in_time(lambda: [*map(_state, files)])
        await wait_until_stable(*files)
    return await in_time(load)


async def in_time(read: Callable[[], T]) -> T:
    """Read files in a thread that keeps neither the event loop nor the end of the process waiting.

    Raises:
        SettingsError: It takes too long. Other errors are those of `read`.
    """
    reading = start_call(read, "reload")
    await asyncio.wait([reading], timeout=READ_SECONDS)
    if not reading.done():
        raise SettingsError(
            f"the files are not read after {READ_SECONDS:g} s: a network file system hangs, or a file is a "
            "pipe; repair that and send SIGHUP again"
        )
    return reading.result()


@contextlib.contextmanager
def failures_logged() -> Iterator[None]:
    """Log why a reload fails."""
    log = get_logger("proxy")
    try:
        yield
    except SettingsError as error:
        log.error("reload_rejected", problems=error.problems, meaning="the old settings stay in effect")
    except Exception:  # Nothing may stop the service.
        log.exception("reload_failed", meaning="the old settings stay in effect")


@contextlib.contextmanager
def certificate_failures_logged() -> Iterator[None]:
    """Log why new certificates cannot be used."""
    try:
        yield
    except SettingsError as error:
        get_logger("proxy").error(
            "certificate_rejected", problems=error.problems, meaning="the old one stays"
        )


@contextlib.asynccontextmanager
async def reloading(
    hangup: asyncio.Event,
    serve_by: ServeBy,
    load: Callable[[], Settings],
    file: Path | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[None]:
    """Reload at every SIGHUP until the block ends.

    Args:
        hangup: Set by the signal.
        serve_by: Puts settings into effect.
        load: See `read_when_complete`.
        file: See `read_when_complete`.
        certificates: Reloaded as well, independently of the settings.
    """
    async with running(_reload_forever(hangup, serve_by, load, file, certificates)):
        yield


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do some work in a task until the block ends."""
    async with task_group() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def _reload_forever(
    hangup: asyncio.Event,
    serve_by: ServeBy,
    load: Callable[[], Settings],
    file: Path | None,
    certificates: Certificates | None,
) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        if certificates is not None:
            with certificate_failures_logged():
                await in_time(certificates.reload)
        with failures_logged():
            await serve_by(await read_when_complete(load, file))
            get_logger("proxy").info("reloaded")

"""SIGHUP: read the settings again, and serve by them from then on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from proxy.errors import SettingsError
from proxy.server.certificates import Certificates
from proxy.settings import Settings
from proxy.telemetry import get_logger

ServeBy = Callable[[Settings], Awaitable[None]]

QUIET_SECONDS: Final = 0.5
"""A settings file that has not changed for this long is taken as complete."""
UNSTABLE_SECONDS: Final = 10.0
"""A settings file that still changes after this long is not loaded."""
_POLL_SECONDS: Final = 0.1


async def wait_until_stable(path: Path) -> None:
    """Wait until nobody is writing a file any more.

    Half of a TOML file is often valid TOML, with limits missing. Only a file that is replaced by a rename is
    safe from that; for any other, wait until its size, time and inode have stayed the same for a moment.

    Raises:
        SettingsError: the file keeps changing.
    """
    clock = asyncio.get_running_loop().time
    end, seen, since = clock() + UNSTABLE_SECONDS, None, 0.0
    while clock() < end:
        state = _state(path)
        if state != seen:
            seen, since = state, clock()
        # The age does for files of this host's clock; on a network file system it may be wrong.
        if _age(state) >= QUIET_SECONDS or clock() >= since + QUIET_SECONDS:
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise SettingsError(
        f"{path}: is still being written; write a new file beside it and rename it into place"
    )


def _state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0, 0  # Loading the file reports the error.
    return state.st_ino, state.st_size, state.st_mtime_ns


def _age(state: tuple[int, int, int]) -> float:
    return time.time() - state[2] / 1e9


@contextlib.asynccontextmanager
async def reloading(
    hangup: asyncio.Event,
    serve_by: ServeBy,
    load: Callable[[], Settings],
    resolve: Callable[[Settings], Settings],
    file: Path | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[None]:
    """Reload at every SIGHUP, for as long as the block runs.

    Args:
        hangup: Set by the signal.
        serve_by: Puts settings in force.
        load: Reads and checks the settings. It may take its time: it runs beside the event loop.
        resolve: Makes them point to the demonstration gateway.
        file: What `load` reads; it must have stopped changing before.
        certificates: Read again too; whichever of the two is wrong, the other is reloaded.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_reload_forever(serve_by, load, resolve, hangup, file, certificates))
        try:
            yield
        except Exception as error:  # out of the group it would come wrapped
            failure = error
        finally:
            task.cancel()
    if failure is not None:
        raise failure


async def _reload_forever(
    serve_by: ServeBy,
    load: Callable[[], Settings],
    resolve: Callable[[Settings], Settings],
    hangup: asyncio.Event,
    file: Path | None,
    certificates: Certificates | None,
) -> None:
    log = get_logger("proxy")
    while True:
        await hangup.wait()
        hangup.clear()
        if certificates is not None:
            try:
                await asyncio.to_thread(certificates.reload)
            except SettingsError as error:
                log.error("certificate_refused", problems=error.problems, meaning="the old one stays")
        try:
            if file is not None:
                await wait_until_stable(file)
            await serve_by(resolve(await asyncio.to_thread(load)))
        except SettingsError as error:
            log.error("reload_refused", problems=error.problems, meaning="all is served as before")
        except Exception:  # whatever it is, the service goes on as it was
            log.exception("reload_failed", meaning="all is served as before")
        else:
            log.info("reloaded")

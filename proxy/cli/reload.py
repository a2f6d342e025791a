"""SIGHUP: read the settings anew, and serve by them from then on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from proxy.errors import SettingsError
from proxy.settings import Settings
from proxy.telemetry import get_logger

ServeBy = Callable[[Settings], Awaitable[None]]


@contextlib.asynccontextmanager
async def reloading(
    hangup: asyncio.Event,
    serve_by: ServeBy,
    load: Callable[[], Settings],
    resolve: Callable[[Settings], Settings],
) -> AsyncIterator[None]:
    """Reload at every SIGHUP, for as long as the block runs.

    Args:
        hangup: Set by the signal.
        serve_by: Puts settings in force.
        load: Reads and checks the settings. It may take its time: it runs beside the event loop.
        resolve: Makes them point to the demonstration gateway.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_reload_forever(serve_by, load, resolve, hangup))
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
) -> None:
    log = get_logger("proxy")
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await serve_by(resolve(await asyncio.to_thread(load)))
        except SettingsError as error:
            log.error("reload_refused", problems=error.problems, meaning="all is served as before")
        except Exception:  # whatever it is, the service goes on as it was
            log.exception("reload_failed", meaning="all is served as before")
        else:
            log.info("reloaded")

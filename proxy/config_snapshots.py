"""The services of the current configuration, and their replacement by a reload without cutting a stream.

Each snapshot of the configuration has its own services, opened and closed by one task. A request uses the
snapshot that was current when it began; a replaced one is closed when its last request has ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.services import Services, WorkerState, open_services, open_worker_state
from proxy.settings import Settings
from proxy.task_groups import task_group
from proxy.telemetry import get_logger
from proxy.telemetry.readings import HttpServerReading

if TYPE_CHECKING:
    from proxy.chat.service import ChatService

_log: Final = get_logger("proxy")


class ConfigSnapshots:
    """The services of the current configuration, and replaced ones that are still in use.

    Args:
        state: What all of them share.
        group: Runs the tasks that open and close them.
    """

    def __init__(self, state: WorkerState, group: asyncio.TaskGroup) -> None:
        self._state = state
        self._group = group
        self._current: Services | None = None
        self.chat: ChatService | None = None
        """The chat of the worker's whole life: its readers and dialogues outlive any configuration."""
        self._open: list[Services] = []
        self._closes_all = False

    async def replace(self, settings: Settings) -> None:
        """Serve new requests by another configuration from now on.

        Raises:
            Exception: The services cannot be built; then nothing has changed.
        """
        opened: asyncio.Future[Services] = asyncio.get_running_loop().create_future()
        self._group.create_task(self._keep_open(settings, opened))
        services = await opened
        previous, self._current = self._current, services
        services.credentials.take_charge()
        self._open.append(services)
        if previous is not None:
            previous.users.retire()
            self._forget_removed_callers(previous.settings)
        if self._closes_all:
            services.users.close_now()

    @property
    def current(self) -> Services:
        """The services for requests that begin now.

        Raises:
            RuntimeError: No configuration has been opened yet.
        """
        if self._current is None:
            raise RuntimeError("no configuration has been opened yet")
        return self._current

    def has_requests(self) -> bool:
        """Whether requests are in progress, with the current configuration or an earlier one."""
        return any(services.users.is_used for services in self._open)

    def close_all(self) -> None:
        """Close the services of every snapshot, also those that are in use."""
        self._closes_all = True
        for services in self._open:
            services.users.close_now()

    async def _keep_open(self, settings: Settings, opened: asyncio.Future[Services]) -> None:
        """Open services, and close them in the same task when nothing uses them any more."""
        try:
            async with open_services(settings, self._state, self._current) as services:
                if not opened.cancelled():
                    opened.set_result(services)
                await services.users.wait_until_unused()
                self._open = [other for other in self._open if other is not services]
            # Requests that have ended since the reload have counted their callers again.
            self._forget_removed_callers(settings)
        except Exception as error:  # In the task group it would end the whole service.
            if opened.cancelled():
                pass  # Nothing waits for the services any more.
            elif opened.done():
                _log.exception("services_not_closed")
            else:
                opened.set_exception(error)

    def _forget_removed_callers(self, before: Settings) -> None:
        """Remove callers from the metrics that only an earlier configuration has."""
        names = {key.name for key in before.access.keys}
        self._state.forget_callers(names - {key.name for key in self.current.settings.access.keys})


@contextlib.asynccontextmanager
async def open_snapshots(
    settings: Settings,
    drain: Drain,
    token_folder: TokenFolder | None = None,
    server: HttpServerReading | None = None,
) -> AsyncIterator[ConfigSnapshots]:
    """Serve with this configuration until another replaces it.

    Raises:
        Exception: The services cannot be built.
    """
    async with (
        open_worker_state(settings, drain, token_folder, server) as state,
        task_group() as group,
    ):
        snapshots = ConfigSnapshots(state, group)
        tasks = [
            group.create_task(state.lag.measure(snapshots.has_requests)),
            group.create_task(state.limits.streams.renew()),
        ]
        try:
            await snapshots.replace(settings)
            async with contextlib.AsyncExitStack() as stack:
                if settings.chat is not None:
                    # Imported here because the chat's libraries take 5 MB.
                    from proxy.chat.service import open_chat

                    chat = open_chat(settings, settings.chat, lambda: snapshots.current, drain, state.redis)
                    snapshots.chat = await stack.enter_async_context(chat)
                yield snapshots
        finally:
            for task in tasks:
                task.cancel()
            snapshots.close_all()

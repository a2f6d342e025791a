"""The services that requests are served with, and how new settings replace them without cutting a stream.

Each generation of services is opened and closed by a task of its own. A request holds on to the generation
that it began with; once a newer one is there, the older is closed when its last request has ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from proxy.chat.service import ChatService, open_chat
from proxy.drain import Drain
from proxy.errors import SettingsError
from proxy.services import Lasting, Services, open_lasting, open_services
from proxy.settings import EMBEDDED, Settings
from proxy.telemetry import get_logger

NEEDS_RESTART: Final = ("chat", "shared", "gateway", "cors", "logs")
"""Sections that are read at the start only."""
_ACCESS_NEEDS_RESTART: Final = ("sharing", "trusted_proxies")
_log: Final = get_logger("proxy")


class Generations:
    """The newest services, and those before it that are still in use.

    Args:
        lasting: What all of them have in common.
        group: Runs what opens and closes them.
    """

    def __init__(self, lasting: Lasting, group: asyncio.TaskGroup) -> None:
        self._lasting = lasting
        self._group = group
        self._newest: Services | None = None
        self.chat: ChatService | None = None
        """It lasts: its readers and dialogues outlive any settings."""
        self._open: list[Services] = []
        self._dismissed = False

    async def begin(self, settings: Settings) -> None:
        """Serve by other settings from now on.

        Raises:
            Exception: they cannot be served by; then all is as it was.
        """
        opened: asyncio.Future[Services] = asyncio.get_running_loop().create_future()
        group = self._group
        group.create_task(_hold(settings, self._lasting, self._newest, opened))
        services = await opened
        before, self._newest = self._newest, services
        services.credentials.take_charge()
        self._open = [older for older in self._open if not older.users.are_gone] + [services]
        if before is not None:
            before.users.retire()
        if self._dismissed:
            services.users.dismiss()

    @property
    def current(self) -> Services:
        """What requests that begin now are served with."""
        if self._newest is None:
            raise RuntimeError("nothing is served yet")
        return self._newest

    def dismiss(self) -> None:
        """Let all of them be closed, whoever still works with them."""
        self._dismissed = True
        for services in self._open:
            services.users.dismiss()


async def _hold(
    settings: Settings, lasting: Lasting, before: Services | None, opened: "asyncio.Future[Services]"
) -> None:
    """Open, and close when nobody needs it any more: in one task, whatever happens in between."""
    try:
        async with open_services(settings, lasting, before) as services:
            if not opened.cancelled():
                opened.set_result(services)
            await services.users.gone()
    except Exception as error:  # out of the group it would end the whole service
        if opened.cancelled():
            pass  # nobody waits for it any more
        elif opened.done():
            _log.exception("services_not_closed")
        else:
            opened.set_exception(error)


@contextlib.asynccontextmanager
async def open_generations(settings: Settings, drain: Drain) -> AsyncIterator[Generations]:
    """Serve by these settings until others come.

    Raises:
        Exception: they cannot be served by.
    """
    failure: Exception | None = None
    async with open_lasting(settings, drain) as lasting, asyncio.TaskGroup() as group:
        generations = Generations(lasting, group)
        try:
            await generations.begin(settings)
            async with open_chat(
                settings, lambda: generations.current, drain, lasting.redis
            ) as generations.chat:
                yield generations
        except Exception as error:  # out of the group it would come wrapped
            failure = error
        finally:
            generations.dismiss()
    if failure is not None:
        raise failure


def merge_settings(running: Settings, new: Settings) -> Settings:
    """New settings, but for what a running service cannot change; that is told in the log.

    Raises:
        SettingsError: they cannot do without what cannot be changed.
    """
    access = {name: getattr(running.access, name) for name in _ACCESS_NEEDS_RESTART}
    kept = {name: getattr(running, name) for name in NEEDS_RESTART}
    told = [name for name, value in kept.items() if value != getattr(new, name)]
    told += [f"access.{name}" for name, value in access.items() if value != getattr(new.access, name)]
    if told:
        _log.warning("restart_needed", sections=sorted(told), meaning="the rest of the settings is in force")
    merged = new.model_copy(update={**kept, "access": new.access.model_copy(update=access)})
    _check(merged)
    return merged


def _check(merged: Settings) -> None:
    sharing = [name for name, section in merged.credentials.items() if section.sharing != "local"]
    if sharing and merged.shared is None:
        raise SettingsError(f"credentials.{sharing[0]}.sharing: needs a [shared] section, and that a restart")
    if merged.chat is not None and merged.chat.upstream not in {None, *merged.upstreams}:
        raise SettingsError("upstreams: that of [chat] is gone, which needs a restart")
    if any(upstream.base_url.startswith(EMBEDDED) for upstream in merged.upstreams.values()):
        raise SettingsError("gateway: an embedded: URL needs a [gateway] section, and that a restart")

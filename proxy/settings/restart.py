"""Which settings a reload changes, and which need a restart."""

from collections.abc import Iterator
from typing import Final

from proxy.errors import SettingsError
from proxy.settings.references import reference_problems
from proxy.settings.section import dotted
from proxy.settings.sections import Settings

NEEDS_RESTART: Final = ("chat", "shared", "gateway", "cors", "logs", "traces")
"""Sections that are read at start-up only."""
_ACCESS_NEEDS_RESTART: Final = ("sharing", "trusted_proxies")


def changes_that_need_restart(running: Settings, new: Settings) -> Iterator[str]:
    """Yield the sections and keys whose change a reload ignores."""
    for name in NEEDS_RESTART:
        if getattr(running, name) != getattr(new, name):
            yield name
    for name in _ACCESS_NEEDS_RESTART:
        if getattr(running.access, name) != getattr(new.access, name):
            yield f"access.{name}"


def merge_settings(running: Settings, new: Settings) -> Settings:
    """Return the new settings with the running ones in place of those that need a restart.

    Raises:
        SettingsError: The combination is not valid.
    """
    access = {name: getattr(running.access, name) for name in _ACCESS_NEEDS_RESTART}
    kept = {name: getattr(running, name) for name in NEEDS_RESTART}
    merged = new.model_copy(update={**kept, "access": new.access.model_copy(update=access)})
    problems = [f"{dotted(path)}: {words}" for path, words in reference_problems(merged)]
    if problems:
        raise SettingsError(*problems, "[chat], [shared] and [gateway] change with a restart only")
    return merged

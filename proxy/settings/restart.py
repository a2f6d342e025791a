"""Which settings a reload changes, and which need a restart."""

from collections.abc import Iterator
from typing import Final

from proxy.errors import SettingsError
from proxy.settings.references import reference_problems
from proxy.settings.section import dotted
from proxy.settings.sections import Settings

NEEDS_RESTART: Final = ("chat", "shared", "gateway", "cors", "logs", "traces")
"""Sections that are read at start-up only."""
_KEYS_NEED_RESTART: Final = {"access": ("sharing", "trusted_proxies"), "limits": ("max_connections",)}
"""Keys of other sections that are read at start-up only."""


def changes_that_need_restart(running: Settings, new: Settings) -> Iterator[str]:
    """Yield the sections and keys whose change a reload ignores."""
    for name in NEEDS_RESTART:
        if getattr(running, name) != getattr(new, name):
            yield name
    for name, keys in _KEYS_NEED_RESTART.items():
        for key in keys:
            if getattr(getattr(running, name), key) != getattr(getattr(new, name), key):
                yield f"{name}.{key}"


def merge_settings(running: Settings, new: Settings) -> Settings:
    """Return the new settings with the running ones in place of those that need a restart.

    Raises:
        SettingsError: The combination is not valid.
    """
    kept = {name: getattr(running, name) for name in NEEDS_RESTART}
    for name, keys in _KEYS_NEED_RESTART.items():
        section = getattr(running, name)
        kept[name] = getattr(new, name).model_copy(update={key: getattr(section, key) for key in keys})
    merged = new.model_copy(update=kept)
    problems = [f"{dotted(path)}: {words}" for path, words in reference_problems(merged)]
    if problems:
        raise SettingsError(*problems, "[chat], [shared] and [gateway] change with a restart only")
    return merged

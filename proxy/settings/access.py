"""`[access]`: who may call, and with which keys."""

from typing import Literal, Self

from pydantic import model_validator

from proxy.settings.fields import KeyText, Name, Sha256
from proxy.settings.locations import KeyPath
from proxy.settings.section import Section, refuse

DEFAULT_CALLER_KEYS: frozenset[str] = frozenset({"sk-local", "fake key"})
"""The keys of the runnable default. They are public, so good for direct loopback callers only."""


class CallerKey(Section):
    """One caller: its name in logs, and its key, in clear or as a digest."""

    name: Name
    key: KeyText | None = None
    sha256: Sha256 | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key, whichever way it was given."""
        return self.key.digest() if self.key else bytes.fromhex(self.sha256 or "")

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.key is None and self.sha256 is None:
            refuse((("key",), "is required: the caller's key, or its digest as sha256"))
        if self.key is not None and self.sha256 is not None:
            refuse((("sha256",), "stands beside key: give one of the two"))
        return self


class Access(Section):
    """Mode "keys" asks every caller for one of the keys; "open" asks nothing."""

    mode: Literal["keys", "open"] = "keys"
    keys: tuple[CallerKey, ...] = ()

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        problems = [*self._repeated()]
        if self.mode == "keys" and not self.keys:
            problems.append(
                (("keys",), 'nobody could call: add [[access.keys]] with name and key, or set mode = "open"')
            )
        if problems:
            refuse(*problems)
        return self

    def _repeated(self) -> list[tuple[KeyPath, str]]:
        problems: list[tuple[KeyPath, str]] = []
        names: set[str] = set()
        owners: dict[bytes, str] = {}
        for index, caller in enumerate(self.keys):
            if caller.name in names:
                problems.append((("keys", index, "name"), f'"{caller.name}" is taken by an earlier key'))
            if caller.digest in owners:
                field = "key" if caller.key else "sha256"
                problems.append(
                    (("keys", index, field), f'is the same key as that of "{owners[caller.digest]}"')
                )
            names.add(caller.name)
            owners.setdefault(caller.digest, caller.name)
        return problems

"""`[access]`: who may call, and with which keys."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import model_validator

from proxy.settings.fields import (
    Count,
    EndpointName,
    HostName,
    KeyText,
    Name,
    Network,
    Rate,
    RepairName,
    Seconds,
    Sha256,
)
from proxy.settings.problems import Problem
from proxy.settings.section import Section, refuse, refuse_all
from proxy.wire.endpoints import TABLE, ModelPlace

ORIGINAL_KEY = "fake key"
"""What callers of the Flask original send."""
DEFAULT_CALLER_KEYS: frozenset[str] = frozenset({"sk-local", ORIGINAL_KEY})
"""The keys of the runnable default. They are public, so good for direct loopback callers only."""


STRONG_KEY_LENGTH = 16
ANY_MODEL: tuple[str, ...] = ("*",)


class CallerKey(Section):
    """One caller: its name in logs, and its key, in clear or as a digest."""

    name: Name
    key: KeyText | None = None
    sha256: Sha256 | None = None
    models: tuple[Name, ...] = ANY_MODEL
    """Names, or patterns with `*`, `?` and `[...]`, of the models that it may use."""
    endpoints: tuple[EndpointName, ...] | None = None
    """The endpoints that it may use, with all that is below them. By default it may use all of them, or, if
    `models` limits it, those whose requests show which model they run."""
    rate: Rate | None = None
    """Requests in a time, such as `600/minute`."""
    tokens: Rate | None = None
    """Tokens in a time, as upstreams count them, such as `1000000/day`; it begins with the first of them."""
    max_streams: Count | None = None
    """Streams at once."""
    heartbeat: Seconds | None = None
    """Instead of the upstream's `heartbeat`, for this caller."""
    repairs: tuple[RepairName, ...] = ()
    """What is cured for this caller, beside what its upstream has cured."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key, whichever way it was given."""
        return self.key.digest() if self.key else bytes.fromhex(self.sha256 or "")

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.key is None and self.sha256 is None:
            refuse("is required: the caller's key, or its digest as sha256", "key")
        if self.key is not None and self.sha256 is not None:
            refuse("stands beside key: give one of the two", "sha256")
        return self

    @model_validator(mode="after")
    def _can_hold_to_its_models(self) -> Self:
        for name in () if self.models == ANY_MODEL else self.endpoints or ():
            below = [row for row in TABLE if name == "*" or row.is_in([name])]
            if all(row.model is ModelPlace.HIDDEN for row in below):
                words = f"{name} cannot stand beside models: its requests do not show which model they run"
                refuse(words, "endpoints")
        return self


def weak_keys(access: "Access") -> list[str]:
    """The names of callers whose own keys are so short that they could be guessed.

    The public default keys are not meant: they have rules of their own.
    """
    return [
        caller.name
        for caller in access.keys
        if caller.key is not None
        and len(caller.key.reveal()) < STRONG_KEY_LENGTH
        and caller.key.reveal() not in DEFAULT_CALLER_KEYS
    ]


class Access(Section):
    """Mode "keys" asks every caller for one of the keys; "open" asks nothing."""

    mode: Literal["keys", "open"] = "keys"
    keys: tuple[CallerKey, ...] = ()
    sharing: Literal["local", "redis"] = "local"
    """Who counts what callers use: each process, or all at one Redis together."""
    trusted_proxies: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    """Whose X-Forwarded-For is believed, where it matters who a visitor of the chat is."""

    hosts: tuple[HostName, ...] = ()
    """Names, beside loopback ones, that `Host` may hold where loopback callers need no key of their own.

    `"*"` accepts every name, and with it DNS rebinding.
    """

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        problems = [*self._repetitions()]
        if self.mode == "keys" and not self.keys:
            words = 'nobody could call: add [[access.keys]] with name and key, or set mode = "open"'
            problems.append(Problem(("keys",), words))
        if problems:
            refuse_all(problems)
        return self

    def _repetitions(self) -> Iterator[Problem]:
        names: dict[str, int] = {}
        digests: dict[bytes, int] = {}
        for index, caller in enumerate(self.keys):
            first = names.setdefault(caller.name, index)
            if first != index:
                yield Problem(("keys", index, "name"), f"is the name of access.keys.{first} as well")
            first = digests.setdefault(caller.digest, index)
            if first != index:
                field = "key" if caller.key else "sha256"
                yield Problem(("keys", index, field), f"is the same key as that of access.keys.{first}")

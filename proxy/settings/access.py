"""`[access]`: who may call, and with which keys; `[cors]`: which pages may call from a browser."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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
    origin,
)
from proxy.settings.section import Problem, Section, reject, reject_all, reject_together
from proxy.wire.endpoints import TABLE, ModelPlace

ORIGINAL_KEY = "fake key"
"""The key that callers of the original Flask proxy send."""
DEFAULT_CALLER_KEYS: frozenset[str] = frozenset({"sk-local", ORIGINAL_KEY})
"""The keys of the default configuration. They are public, so only direct loopback callers may use them."""
STRONG_KEY_LENGTH = 16
ANY_MODEL: tuple[str, ...] = ("*",)
ANY_ORIGIN = "*"


class CallerKey(Section):
    """A caller: its name in logs, its key in clear or as a digest, and its limits."""

    name: Name
    key: KeyText | None = None
    sha256: Sha256 | None = None
    models: tuple[Name, ...] = ANY_MODEL
    """The models that it may use: names, or patterns with `*`, `?` and `[...]`."""
    endpoints: tuple[EndpointName, ...] | None = None
    """The endpoints that it may use, including all paths below them. By default all of them; if `models` is
    limited, those whose requests name their model."""
    rate: Rate | None = None
    """The rate limit for requests, such as `600/minute`."""
    tokens: Rate | None = None
    """The token budget, as upstreams count, such as `1000000/day`. A period starts with the first token."""
    max_streams: Count | None = None
    """The number of concurrent streams."""
    heartbeat: Seconds | None = None
    """Overrides the upstream's `heartbeat` for this caller."""
    repairs: tuple[RepairName, ...] = ()
    """Repairs for this caller, in addition to those of the upstream."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key."""
        return self.key.digest() if self.key else bytes.fromhex(self.sha256 or "")

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        missing = "is required: the caller's key, or its digest as sha256"
        reject_together({"key": self.key, "sha256": self.sha256}, missing)
        return self

    @model_validator(mode="after")
    def _can_enforce_its_models(self) -> Self:
        for name in () if self.models == ANY_MODEL else self.endpoints or ():
            below = [row for row in TABLE if name == "*" or row.is_in([name])]
            if all(row.model is ModelPlace.HIDDEN for row in below):
                words = f"{name} cannot be combined with models: its requests do not name their model"
                reject(words, "endpoints")
        return self


def weak_keys(access: "Access") -> list[str]:
    """Return the names of callers whose keys are short enough to guess.

    The public default keys are excluded, because separate rules apply to them.
    """
    return [
        caller.name
        for caller in access.keys
        if caller.key is not None
        and len(caller.key.reveal()) < STRONG_KEY_LENGTH
        and caller.key.reveal() not in DEFAULT_CALLER_KEYS
    ]


def keys_that_match(access: "Access", pattern: re.Pattern[str]) -> list[str]:
    """Return the names of callers whose keys match as a whole."""
    return [
        caller.name
        for caller in access.keys
        if caller.key is not None and pattern.fullmatch(caller.key.reveal())
    ]


class Access(Section):
    """Mode "keys" requires a key from every caller; "open" requires none."""

    mode: Literal["keys", "open"] = "keys"
    keys: tuple[CallerKey, ...] = ()
    sharing: Literal["local", "redis"] = "local"
    """Where usage is counted: in each process, or in Redis for all processes together."""
    trusted_proxies: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    """The proxies whose X-Forwarded-For identifies the visitors of the chat."""

    hosts: tuple[HostName, ...] = ()
    """Host names, besides loopback names, that loopback callers may use without a key of their own.

    `"*"` accepts every name, and thereby permits DNS rebinding.
    """

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        problems = [*self._duplicates()]
        if self.mode == "keys" and not self.keys:
            words = 'no caller would be accepted: add [[access.keys]] with name and key, or set mode = "open"'
            problems.append(Problem(("keys",), words))
        reject_all(problems)
        return self

    def _duplicates(self) -> Iterator[Problem]:
        names: dict[str, int] = {}
        digests: dict[bytes, int] = {}
        for index, caller in enumerate(self.keys):
            first = names.setdefault(caller.name, index)
            if first != index:
                yield Problem(("keys", index, "name"), f"is also the name of access.keys.{first}")
            first = digests.setdefault(caller.digest, index)
            if first != index:
                field = "key" if caller.key else "sha256"
                yield Problem(("keys", index, field), f"is also the key of access.keys.{first}")


def _page(value: str) -> str:
    return value if value == ANY_ORIGIN else origin(value)


class Cors(Section):
    """Cross-origin calls. Without this section they are forbidden, and OPTIONS requests are relayed."""

    origins: Annotated[tuple[Annotated[str, AfterValidator(_page)], ...], Field(min_length=1)]
    """Such as `https://app.example`; `*` allows all. Callers need a key in any case."""
    max_age: Seconds = 600
    """Seconds for which a browser caches the response to a preflight request."""

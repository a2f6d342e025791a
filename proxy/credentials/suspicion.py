"""What a rejected token means: the token is dead, or it is not good for that request (pure).

An upstream answers 401 in both cases. A token fetched after the rejection tells them apart: if it is rejected
too, the request is denied, whatever the token. Such a purpose is remembered for a while, and costs no further
fetch; and fetches that did not help are rationed for each caller. Times are seconds on one monotonic clock.

Nothing here withholds a token from anybody: see "A rejected token" in ARCHITECTURE.md.
"""

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self, TypeVar

K = TypeVar("K")
V = TypeVar("V")

DENIED_SECONDS: Final = 60.0
"""A denied purpose is remembered for so long, and twice as long after each further denial."""
DENIED_SECONDS_MAX: Final = 600.0
SPACING_SECONDS: Final = 1.0
"""Between two fetches that rejections cause, whoever causes them: it protects the issuer."""
COOLDOWN_SECONDS: Final = 5.0
COOLDOWN_SECONDS_MAX: Final = 60.0
"""Of rejections whose purpose never worked. One that worked before has the spacing as its first cooldown,
since its token may be revoked again at once, and the short cooldown at most."""
RECENT_SECONDS: Final = 1.0
"""A token that an upstream accepted so recently is taken to be alive."""
PURPOSES_MAX: Final = 1024
CALLERS_MAX: Final = 1024
CALLERS_OF_A_PURPOSE_MAX: Final = 16
_MODEL_CHARACTERS: Final = 64


class Purpose(NamedTuple):
    """What a token is sent for. An upstream may grant it for one and deny it for another."""

    method: str = "POST"
    endpoint: str = ""
    model: str | None = None

    @classmethod
    def of(cls, method: str, endpoint: str, model: str | None) -> Self:
        """Build one whose size is bounded, whatever the caller wrote."""
        return cls(method[:16], _bounded(endpoint), None if model is None else _bounded(model))


def _bounded(text: str) -> str:
    if len(text) <= _MODEL_CHARACTERS:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Denial:
    """A rejection that a newer token did not cure, or that waits for its turn to try one."""

    at: float
    until: float
    proved: bool
    times: int = 1
    callers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Ration:
    """Fetches that rejections may cause: the first at once, then 5 s apart, doubling."""

    until: float = -math.inf
    cooldown: float = 0.0
    before: tuple[float, float] = (-math.inf, 0.0)
    """How it was before the last fetch, which may prove to have helped."""


class _Account(NamedTuple):
    """Whose fetches are rationed together.

    Purposes that worked before have rations of their own: a flood of names that never worked must not use up
    what a revoked token needs, also where all callers are one, without keys.
    """

    caller: str
    worked: bool


class Suspicion:
    """The memory of rejections of one credential."""

    def __init__(self) -> None:
        self._denials: OrderedDict[Purpose, _Denial] = OrderedDict()
        self._unproved: OrderedDict[Purpose, _Denial] = OrderedDict()
        self._worked: OrderedDict[Purpose, None] = OrderedDict()
        self._rations: OrderedDict[_Account, _Ration] = OrderedDict()
        self._accepted_at = -math.inf
        self._next_forced_at = -math.inf
        self._charged: _Account | None = None

    def accepted(self, purpose: Purpose, sent_at: float) -> None:
        """Note that the upstream accepted the current token for a request sent at this moment."""
        self._accepted_at = max(self._accepted_at, sent_at)
        if purpose in self._worked:
            self._worked.move_to_end(purpose)
        else:
            _put(self._worked, purpose, None, PURPOSES_MAX)
        if self._denials:
            self._denials.pop(purpose, None)
        if self._unproved:
            self._unproved.pop(purpose, None)

    def token_changed(self) -> None:
        """Forget what was seen of the token before: it says nothing about its successor."""
        self._accepted_at = -math.inf

    def denied(self, purpose: Purpose, caller: str, now: float) -> None:
        """Note that a token fetched after a rejection was rejected as well."""
        known = self._denials.pop(purpose, None) or _Denial(now, now, proved=True, times=0)
        self._unproved.pop(purpose, None)
        known.at, known.times = now, known.times + 1
        lasts = DENIED_SECONDS * 2.0 ** min(known.times - 1, 16)
        known.until = now + min(lasts, DENIED_SECONDS_MAX)
        if len(known.callers) < CALLERS_OF_A_PURPOSE_MAX:
            known.callers.add(caller)
        _put(self._denials, purpose, known, PURPOSES_MAX)

    def postponed(self, purpose: Purpose, now: float) -> None:
        """Note a rejection for which no token could be fetched in its turn."""
        if purpose not in self._denials and purpose not in self._unproved:
            _put(self._unproved, purpose, _Denial(now, now + DENIED_SECONDS, proved=False), PURPOSES_MAX)

    def explains(self, purpose: Purpose, caller: str, now: float) -> bool:
        """Whether a rejection is due to its purpose, so that a newer token would not help.

        To a caller who got the answer before, it is the same answer. For anybody else the token must have
        been seen to work since, and a moment ago: otherwise it may just have been revoked.
        """
        known = self._denials.get(purpose) or self._unproved.get(purpose)
        if known is None or now >= known.until:
            return False
        if known.proved and caller in known.callers:
            return True
        return self._accepted_at > known.at and now - self._accepted_at <= RECENT_SECONDS

    def has_worked(self, purpose: Purpose) -> bool:
        """Whether the upstream is known to have accepted a token for a purpose."""
        return purpose in self._worked

    # --- rations

    def wait(self, caller: str, purpose: Purpose, now: float) -> float:
        """Return the seconds until a rejection of this caller may cause a fetch; 0 for now."""
        ration = self._rations.get(self._account(caller, purpose))
        own = -math.inf if ration is None else ration.until
        return max(own - now, self._next_forced_at - now, 0.0)

    def spend(self, caller: str, purpose: Purpose, now: float) -> None:
        """Charge a fetch to a caller. Only if it does not help, the caller's next one has to wait."""
        account = self._account(caller, purpose)
        ration = self._rations.pop(account, None) or _Ration()
        ration.before = (ration.until, ration.cooldown)
        is_quiet = now - ration.until > max(ration.cooldown, COOLDOWN_SECONDS)
        shortest = SPACING_SECONDS if account.worked else COOLDOWN_SECONDS
        longest = COOLDOWN_SECONDS if account.worked else COOLDOWN_SECONDS_MAX
        doubled = min(2 * ration.cooldown, longest)
        ration.cooldown = shortest if is_quiet or not ration.cooldown else doubled
        ration.until = now + ration.cooldown
        self._next_forced_at = now + SPACING_SECONDS
        self._charged = account
        _put(self._rations, account, ration, 2 * CALLERS_MAX)

    def refund(self) -> None:
        """Take back the last charge: its fetch helped, or there was none."""
        ration = None if self._charged is None else self._rations.get(self._charged)
        if ration is not None:
            ration.until, ration.cooldown = ration.before
        self._charged = None

    def _account(self, caller: str, purpose: Purpose) -> "_Account":
        return _Account(caller, self.has_worked(purpose))

    @property
    def size(self) -> int:
        """How much is remembered."""
        return len(self._denials) + len(self._unproved) + len(self._worked) + len(self._rations)


def _put(table: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    table[key] = value
    while len(table) > most:
        table.popitem(last=False)

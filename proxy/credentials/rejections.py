"""Decide which rejections of a token may cause a fetch (pure).

An upstream answers 401 if the token is dead, and also if the token does not permit the request. A token
fetched after the rejection distinguishes the two: if it is rejected as well, the request is denied with any
token. Such a purpose is remembered for a while and causes no further fetch. Fetches that did not help are
rationed for each caller. Times are seconds on one monotonic clock.

Rejections never withhold a token from other callers: see "A rejected token" in ARCHITECTURE.md.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple, Self, TypeVar

import msgspec

from proxy.credentials.observed_tokens import ROUTES_MAX, Rejection, Route
from proxy.credentials.token import Token

K = TypeVar("K")
V = TypeVar("V")

DENIED_SECONDS: Final = 60.0
"""How long a denied purpose is remembered; doubled after each further denial."""
DENIED_SECONDS_MAX: Final = 600.0
DOUBTED_SECONDS: Final = 10.0
"""The same if the purpose worked before and the token is not known to work: the issuer may return dead tokens
for a while, and only another fetch shows when that ends."""
SPACING_SECONDS: Final = 1.0
"""The shortest interval between two fetches caused by rejections, to protect the issuer."""
SPACING_GROWTH: Final = 4.0
SPACING_SECONDS_MAX: Final = 30.0
"""While no token is accepted, the interval grows by this factor with each fetch: an upstream may learn of a
token late, and a token that is replaced before that is never accepted. If one caller causes all of them, it
grows for that caller only."""
COOLDOWN_SECONDS: Final = 5.0
COOLDOWN_SECONDS_MAX: Final = 60.0
"""The cooldown for purposes that never worked. Purposes that worked before start with SPACING_SECONDS,
because the token may be revoked again at once, and wait COOLDOWN_SECONDS at most."""
RECENT_SECONDS: Final = 1.0
"""A token that an upstream accepted this recently is considered valid."""
PURPOSES_MAX: Final = 1024
CALLERS_MAX: Final = 1024
CALLERS_PER_PURPOSE_MAX: Final = 16
DECLINED_MAX: Final = 1024
"""The number of callers, purposes and tokens whose last rejection is remembered."""
_MODEL_CHARACTERS: Final = 64


class Purpose(NamedTuple):
    """What a request is for. An upstream may accept a token for one purpose and reject it for another."""

    method: str = "POST"
    endpoint: str = ""
    model: str | None = None
    upstream: str = ""
    """The name of the upstream: several may use one credential, and each learns of a token by itself."""

    @classmethod
    def of(cls, method: str, endpoint: str, model: str | None, upstream: str = "") -> Self:
        """Build a purpose of bounded size: long names are cut or hashed."""
        return cls(method[:16], _bounded(endpoint), None if model is None else _bounded(model), upstream)

    @property
    def route(self) -> Route:
        """The purpose without the model: an upstream checks a token before it reads the body."""
        return self.upstream, self.method, self.endpoint


def _bounded(text: str) -> str:
    if len(text) <= _MODEL_CHARACTERS:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class _Denial(msgspec.Struct):
    """A purpose whose rejection a newer token did not cure, or for which none could be fetched yet."""

    at: float
    until: float
    proved: bool
    times: int = 1
    callers: set[str] = msgspec.field(default_factory=set)


class _Ration(msgspec.Struct):
    """When rejections may cause the next fetch."""

    until: float = -math.inf
    cooldown: float = 0.0
    before: tuple[float, float] = (-math.inf, 0.0)
    """The values before the last fetch, to restore if that fetch helped."""


_Scope = tuple[str, ...]
"""Where an acceptance shows that the tokens of fruitless fetches work: on a route, or on an upstream.

Each route may learn of new tokens by itself. Purposes that never worked count as one for each upstream, so
that invented endpoints cannot evade the growing interval."""


class _FruitlessFetches(msgspec.Struct):
    """Fetches caused by rejections since a token was last accepted: their tokens may all be rejected, too."""

    caller: str
    """The caller who caused the first one."""
    generation: int
    """The number of the first token."""
    fetches: int = 0
    is_shared: bool = False
    """Whether another caller caused one, too: the rejections of one caller must not delay the others."""


class _RationKey(NamedTuple):
    """The rejections that share a ration.

    Purposes that worked before have a separate ration, so that a flood of invented model names cannot use up
    the fetches that a revoked token needs, even if callers have no keys and cannot be told apart.
    """

    caller: str
    worked: bool


class RejectionHistory:
    """The rejections and denials of one credential."""

    def __init__(self) -> None:
        self._denials: OrderedDict[Purpose, _Denial] = OrderedDict()
        self._unproved: OrderedDict[Purpose, _Denial] = OrderedDict()
        self._worked: OrderedDict[Purpose, None] = OrderedDict()
        self._rations: OrderedDict[_RationKey, _Ration] = OrderedDict()
        self._declined: OrderedDict[tuple[bytes, str, Purpose | None], float] = OrderedDict()
        """When the last rejected request with a token was sent, by caller and purpose. Purposes that never
        worked count as one, so that requests for invented names are not sent twice each."""
        self._forced_at = -math.inf
        self._pending: tuple[str, _Scope] | None = None
        """The caller who is charged for a fetch that is in progress, and its scope."""
        self._fruitless: OrderedDict[_Scope, _FruitlessFetches] = OrderedDict()
        self._charged: _RationKey | None = None
        self._to_replace: bytes | None = None
        """The digest of the token that the last charged fetch was meant to replace."""

    def accepted(self, purpose: Purpose, *, is_evidence: bool = True) -> None:
        """Record that the upstream accepted the current token.

        Args:
            purpose: The purpose of the request.
            is_evidence: Whether that shows anything about other routes; see `ObservedRoutes`.
        """
        if purpose in self._worked:
            self._worked.move_to_end(purpose)
        else:
            _put(self._worked, purpose, None, PURPOSES_MAX)
        if self._denials:
            self._denials.pop(purpose, None)
        if self._unproved:
            self._unproved.pop(purpose, None)
        if self._fruitless:
            self._fruitless.pop(purpose.route, None)
            if is_evidence:
                self._fruitless.pop((purpose.upstream,), None)

    def fetched(self, token: Token) -> None:
        """Count a charged fetch as fruitless until a token is accepted."""
        charged, self._pending = self._pending, None
        if charged is None:
            return
        caller, scope = charged
        known = self._fruitless.pop(scope, None) or _FruitlessFetches(caller, token.generation)
        _put(self._fruitless, scope, known, ROUTES_MAX)
        known.is_shared = known.is_shared or known.caller != caller
        if known.is_shared or not token.adopted:
            known.fetches += 1

    def is_fruitless(self, token: Token, purpose: Purpose) -> bool:
        """Whether a token was fetched because of a rejection, and none has worked since."""
        known = self._fruitless.get(self._scope(purpose))
        return known is not None and token.generation >= known.generation

    def denied(self, purpose: Purpose, caller: str, now: float, *, works: bool = True) -> None:
        """Record that a token fetched after a rejection was rejected as well.

        Args:
            purpose: The purpose of the request.
            caller: The caller who sent it.
            now: The time.
            works: Whether the token was accepted for a request that was sent later.
        """
        known = self._denials.pop(purpose, None) or _Denial(now, now, proved=True, times=0)
        self._unproved.pop(purpose, None)
        known.at, known.times = now, known.times + 1
        first = DENIED_SECONDS if works or not self.has_worked(purpose) else DOUBTED_SECONDS
        seconds = first * 2.0 ** min(known.times - 1, 16)
        known.until = now + min(seconds, DENIED_SECONDS_MAX)
        if len(known.callers) < CALLERS_PER_PURPOSE_MAX:
            known.callers.add(caller)
        _put(self._denials, purpose, known, PURPOSES_MAX)

    def postponed(self, purpose: Purpose, now: float) -> None:
        """Record a rejection for which no token could be fetched yet."""
        if purpose not in self._denials and purpose not in self._unproved:
            _put(self._unproved, purpose, _Denial(now, now + DENIED_SECONDS, proved=False), PURPOSES_MAX)

    def is_denied(self, purpose: Purpose, caller: str, now: float, accepted_at: float) -> bool:
        """Whether the purpose is the reason for a rejection, so that a newer token would not help.

        A caller who was denied before is denied again. For any other caller, the token must have been
        accepted since the denial and very recently: otherwise it may just have been revoked.

        Args:
            purpose: The purpose of the rejected request.
            caller: The caller who sent it.
            now: The time.
            accepted_at: When the last request that its route accepted with this token was sent.
        """
        known = self._denials.get(purpose) or self._unproved.get(purpose)
        if known is None or now >= known.until:
            return False
        if known.proved and caller in known.callers:
            return True
        return accepted_at > known.at and now - accepted_at <= RECENT_SECONDS

    def declined(self, token: Token, caller: str, purpose: Purpose, sent_at: float) -> None:
        """Record that an upstream rejected a token."""
        key = token.digest, caller, self._known_purpose(purpose)
        self._declined.pop(key, None)
        _put(self._declined, key, sent_at, DECLINED_MAX)

    def last_declined(self, token: Token, caller: str, purpose: Purpose) -> float:
        """Return when the last rejected request with a token was sent; minus infinity without one."""
        return self._declined.get((token.digest, caller, self._known_purpose(purpose)), -math.inf)

    def _known_purpose(self, purpose: Purpose) -> Purpose | None:
        return purpose if self.has_worked(purpose) else None

    def has_worked(self, purpose: Purpose) -> bool:
        """Whether the upstream is known to have accepted a token for a purpose."""
        return purpose in self._worked

    def proves_denial(
        self, rejection: Rejection, before: Sequence[Rejection], purpose: Purpose, *, works: bool
    ) -> bool:
        """Whether the rejections of one request prove that no token would help.

        They do if the last token was fetched after the first rejection and one of these holds: it is known to
        work, the purpose never worked, or it is the second such token, also if another request caused the
        first fetch. Otherwise the issuer may have revoked its tokens again.

        Args:
            rejection: The last rejection.
            before: The earlier ones.
            purpose: The purpose of the request.
            works: Whether the last token was accepted for a request that was sent later.
        """
        if not before or rejection.token.obtained < before[0].at:
            return False
        is_second = before[-1].token.obtained < rejection.token.obtained and (
            self.is_fruitless(before[-1].token, purpose)
            or (len(before) > 1 and before[-1].token.obtained >= before[0].at)
        )
        return works or is_second or not self.has_worked(purpose)

    # --- rations

    def delay(self, caller: str, purpose: Purpose, now: float) -> float:
        """Return the number of seconds until a rejection of this caller may cause a fetch."""
        ration = self._rations.get(self._key(caller, purpose))
        own = -math.inf if ration is None else ration.until
        return max(own - now, self._forced_at + self._spacing(caller, purpose) - now, 0.0)

    def charge(self, caller: str, purpose: Purpose, now: float, replaces: bytes | None = None) -> None:
        """Charge a fetch to a caller, whose next fetch then has to wait unless this one helps.

        Args:
            caller: The caller whose request was rejected.
            purpose: The purpose of that request.
            now: The time.
            replaces: The digest of the token that the fetch is meant to replace.
        """
        key = self._key(caller, purpose)
        ration = self._rations.pop(key, None) or _Ration()
        ration.before = (ration.until, ration.cooldown)
        is_quiet = now - ration.until > max(ration.cooldown, COOLDOWN_SECONDS)
        shortest = SPACING_SECONDS if key.worked else COOLDOWN_SECONDS
        limit = COOLDOWN_SECONDS if key.worked else COOLDOWN_SECONDS_MAX
        doubled = min(2 * ration.cooldown, limit)
        ration.cooldown = shortest if is_quiet or not ration.cooldown else doubled
        ration.until = now + ration.cooldown
        self._forced_at = now
        self._charged, self._to_replace = key, replaces
        self._pending = caller, self._scope(purpose)
        _put(self._rations, key, ration, 2 * CALLERS_MAX)

    def refund(self) -> None:
        """Undo the last charge, because its fetch helped or did not take place."""
        ration = None if self._charged is None else self._rations.get(self._charged)
        if ration is not None:
            ration.until, ration.cooldown = ration.before
        self._charged = self._to_replace = self._pending = None

    def refund_replaced(self, digest: bytes) -> None:
        """Undo the last charge if its fetch was meant to replace this token."""
        if digest == self._to_replace:
            self.refund()

    def _spacing(self, caller: str, purpose: Purpose) -> float:
        """Return the shortest interval between two fetches caused by rejections."""
        known = self._fruitless.get(self._scope(purpose))
        if known is None or not (known.is_shared or known.caller == caller):
            return SPACING_SECONDS
        growth = SPACING_GROWTH ** min(max(known.fetches - 1, 0), 16)
        return min(SPACING_SECONDS * growth, SPACING_SECONDS_MAX)

    def _scope(self, purpose: Purpose) -> _Scope:
        return purpose.route if self.has_worked(purpose) else (purpose.upstream,)

    def _key(self, caller: str, purpose: Purpose) -> _RationKey:
        return _RationKey(caller, self.has_worked(purpose))

    @property
    def size(self) -> int:
        """The number of entries."""
        tables = self._denials, self._unproved, self._worked, self._rations, self._declined, self._fruitless
        return sum(len(table) for table in tables)


def _put(table: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    table[key] = value
    while len(table) > limit:
        table.popitem(last=False)

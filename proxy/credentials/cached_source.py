"""One token shared by all requests: fetched once at a time, refreshed ahead of expiry, replaced after a 401.

A state machine on one event loop. Every change of state is a synchronous function, so no lock is held across
an await: the "lock" is the existence of the flight, a task that no caller owns. Its states are those of the
token (empty, fresh, stale, suspect, expired) crossed with those of the fetching (idle, flying, backing off).

A rejected token is suspect: whoever had it rejected waits for a newer one, and everybody else keeps using it
until there is one. `suspicion.py` decides what such a rejection may cost.
"""

import asyncio
import contextvars
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.credentials.credential import Credential, skew_of
from proxy.credentials.learned_life import LearnedLife
from proxy.credentials.metered_source import MeteredSource, state_of
from proxy.credentials.refresh_policy import RefreshPolicy, is_in_use, next_fetch, retry_delay
from proxy.credentials.sharing import Known, Sharing
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.suspicion import Purpose, Suspicion
from proxy.credentials.tasks import OwnedTasks
from proxy.credentials.waiters import Waiters
from proxy.errors import CredentialError, IssuerRefuses, TokenUnavailable
from proxy.telemetry import TokenReading, TokenStats, bind_context, get_logger

RATION_PATIENCE_SECONDS: Final = 1.0
"""A rejected request waits so long for its turn to cause a fetch; with a longer wait it is answered 503."""
MOMENT_SECONDS: Final = 0.4
"""By our count, a token with a shorter life is over before its fetch is. It serves those who waited for it
all the same. If any other token is past its end when it comes, this process slept, and the token is dead."""
_SERVED_MAX: Final = 8
"""Tokens whose last accepted request is remembered."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An upstream's rejection of a token. Times are those of the machine's clock."""

    token: Credential
    sent_at: float
    at: float


class CachedTokenSource:
    """A token source whose token is shared, as `get` returns it.

    Args:
        name: The credential's name in the configuration.
        source: Where tokens come from.
        sharing: Who shares them.
        policy: Clocks and bounds.
        stats: Where it counts.
    """

    def __init__(
        self, name: str, source: TokenSource, sharing: Sharing, policy: RefreshPolicy, stats: TokenStats
    ) -> None:
        self.name = name
        self.stats = stats
        self.clock = policy.clock
        self._source = MeteredSource(source, self.stats, policy.fetch_timeout, policy.clock)
        self._sharing = sharing
        self._policy = policy
        self._log = get_logger("credentials").bind(credential=name)
        # A flight outlives the request that started it: it must not carry that request's context along.
        self._context = contextvars.Context()
        self._context.run(bind_context, credential=name)
        self._current: Credential | None = None
        self._generation = 0
        self._suspect: bytes | None = None
        """Digest of the token that an upstream has rejected, while it is not known why."""
        self._suspect_since = -math.inf
        self._dead: deque[bytes] = deque(maxlen=8)
        """Digests of tokens whose successors were accepted where they were rejected."""
        self._served: OrderedDict[bytes, float] = OrderedDict()
        """By digest, when the last request was sent that the upstream accepted."""
        self._suspicion = Suspicion()
        self._life = LearnedLife()
        self._charged_for: bytes | None = None
        """Digest of the token for which the last rationed fetch was made."""
        self._tasks = OwnedTasks()
        self._flight: asyncio.Task[Credential] | None = None
        self._flight_started = 0.0
        self._waiters = Waiters(self._policy.max_waiters)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failure: TokenFetchError | None = None
        self._backoff_until = -1.0
        self._last_used = self.clock()
        self._closed = False

    async def get(self) -> Credential:
        """Return a credential that may be sent now; without a wait if there is one.

        Raises:
            CredentialError: there is none, and none can be had now.
        """
        self._last_used = now = self.clock()
        current = self._current
        if current is None or now >= current.hard:
            try:
                return await self._wait()
            finally:
                self.stats.waited(self.clock() - now)
        if now >= current.soft:
            self.stats.served_stale += 1
            self._refresh(now)
        else:
            self.stats.served_fresh += 1
        return current

    # --- what upstreams say of tokens

    def accepted(
        self, token: Credential, sent_at: float, purpose: Purpose, before: Rejection | None = None
    ) -> None:
        """Note that an upstream accepted a token.

        Args:
            token: It.
            sent_at: When the request was sent.
            purpose: Of the request.
            before: How another token was rejected for the same request.
        """
        served = self._served
        served[token.digest] = max(sent_at, served.get(token.digest, -math.inf))
        served.move_to_end(token.digest)
        if len(served) > _SERVED_MAX:
            served.popitem(last=False)
        if self._current is None or token.digest == self._current.digest:
            self._suspicion.accepted(purpose, sent_at)
            if sent_at > self._suspect_since:
                self._suspect = None
        if before is not None and before.token.digest != token.digest:
            self._learn(before, token)

    def rejected(
        self,
        rejection: Rejection,
        caller: str,
        purpose: Purpose,
        *,
        before: Sequence[Rejection],
        reason: str,
    ) -> bool:
        """Note that an upstream rejected a token, and return whether another one may help.

        Args:
            rejection: What was rejected, and when.
            caller: Whose request it was.
            purpose: Of the request.
            before: The earlier rejections of the same request.
            reason: Words for the log.
        """
        now, token = rejection.at, rejection.token
        current = self._valid(now)
        if before and token.obtained >= before[0].at and self._proves_denial(rejection, purpose, before):
            self._deny(token, caller, purpose, now)
            return False
        if current is None or current.digest != token.digest:
            self.stats.rejections_without_effect += 1  # there is a newer one already, or none
            return True
        if self._suspicion.explains(purpose, caller, now):
            self.stats.rejections_without_effect += 1
            return False
        if self._suspect != token.digest:
            self._suspect, self._suspect_since = token.digest, now
            self._log.warning(
                "token_rejected", generation=token.generation, fingerprint=token.fingerprint, reason=reason
            )
        wait = self._force(caller, purpose, now)
        if wait > 0:
            self._suspicion.postponed(purpose, now)
            self.stats.rejections_without_effect += 1
        else:
            self.stats.rejections += 1
        return True

    def _proves_denial(self, rejection: Rejection, purpose: Purpose, before: Sequence[Rejection]) -> bool:
        """Whether the rejection of a token fetched since the first one proves that no token would help.

        It does if the token is known to work, if the purpose never worked, or if it is the second such token:
        otherwise the issuer may have revoked its tokens again.
        """
        works = self._served.get(rejection.token.digest, -math.inf) > rejection.sent_at
        is_second = len(before) > 1 and before[-1].token.obtained >= before[0].at
        return works or is_second or not self._suspicion.has_worked(purpose)

    async def newer(self, rejection: Rejection, caller: str, purpose: Purpose) -> Credential | None:
        """Return another token than the one that was rejected.

        Returns:
            None if the issuer gives the rejected token again, or only that one.

        Raises:
            CredentialError: there is no other one now.
        """
        deadline = self.clock() + self._policy.wait_timeout
        refused = rejection.token
        while True:
            now = self.clock()
            current = self._valid(now)
            if current is not None and current.digest != refused.digest:
                return current
            if (
                current is not None
                and current.generation > refused.generation
                and (current.obtained >= rejection.at)
            ):
                return None
            if current is None:
                self._refresh(now)
            if self._flight is None:
                if self._closed or now < self._backoff_until:
                    raise self._unavailable(now)
                wait = self._force(caller, purpose, now)
                if wait > RATION_PATIENCE_SECONDS:
                    raise TokenUnavailable(
                        wait, reason=f"the token was rejected, and fetches are rationed for {wait:.1f} s"
                    )
                if wait > 0:
                    await asyncio.sleep(max(wait, 0.01))  # a loop may be early by its own resolution
                    continue
            await self._waiters.join(deadline - now)

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has accepted any token so far."""
        return bool(self._served)

    def deny(self, token: Credential, caller: str, purpose: Purpose) -> None:
        """Note that the issuer has nothing better than a token that was rejected for a purpose."""
        self._deny(token, caller, purpose, self.clock())

    def _deny(self, token: Credential, caller: str, purpose: Purpose, now: float) -> None:
        self._suspicion.denied(purpose, caller, now)
        if self._suspect == token.digest:
            self._suspect = None
        self.stats.rejections_without_effect += 1
        self._log.info(
            "token_denied", endpoint=purpose.endpoint, model=purpose.model, generation=token.generation
        )

    def _force(self, caller: str, purpose: Purpose, now: float) -> float:
        """Start a fetch because of a rejection; return the seconds to wait if that is not possible now."""
        self._follow_loop()
        if self._flight is not None or self._closed:
            return 0.0
        if now < self._backoff_until:
            return self._backoff_until - now
        wait = self._suspicion.wait(caller, purpose, now)
        if wait > 0:
            return wait
        self._suspicion.spend(caller, purpose, now)
        self._charged_for = None if self._current is None else self._current.digest
        self._launch(now)
        return 0.0

    def _refund(self) -> None:
        """A flight ended without a fetch that the issuer answered with a token."""
        if self._charged_for is not None:
            self._suspicion.refund()
        self._charged_for = None

    def _learn(self, rejection: Rejection, accepted: Credential) -> None:
        """A token was rejected and its successor accepted: it is dead, unless it served somebody since."""
        token = rejection.token
        if token.digest in self._dead or self._served.get(token.digest, -math.inf) > rejection.at:
            return
        self._dead.append(token.digest)
        if token.digest == self._charged_for:
            self._suspicion.refund()
        reissued = self._policy.exclusive and (accepted.adopted or accepted.obtained < rejection.sent_at)
        if reissued or rejection.sent_at >= token.hard:
            return
        age = rejection.sent_at - token.obtained
        self.stats.early_deaths += 1
        if self._life.died(age, certain=token.certain):
            self._log.warning(
                "token_life_learned", announced_s=_shown(token.announced), observed_s=_shown(age),
                meaning="tokens die before their announced end; they are refreshed by the observed life",
            )  # fmt: skip
            self._shorten()

    def _shorten(self) -> None:
        """Give the current token no longer than the learned life."""
        current, longest = self._current, self._life.longest
        if current is not None and current.obtained + longest < current.hard:
            hard = current.obtained + longest - skew_of(longest)
            soft = min(current.soft, current.obtained + 0.6 * longest)
            self._current = replace(current, hard=hard, soft=soft)
            self._arm()

    # --- how things stand

    def prefetch(self) -> None:
        """Start a fetch now, without waiting for it: a first caller should find a token."""
        self._refresh(self.clock())

    @property
    def healthy(self) -> bool:
        """False only while there is no valid token and the last fetch failed. Cold is healthy."""
        return self._failures == 0 or self._valid(self.clock()) is not None

    @property
    def remaining(self) -> float | None:
        """Seconds that the token in hand may still be sent, None without one."""
        now = self.clock()
        current = self._valid(now)
        return None if current is None else current.hard - now

    def reading(self) -> TokenReading:
        """How things stand now."""
        now = self.clock()
        return TokenReading(
            credential=self.name,
            state=state_of(self._current, now, suspect=self._suspect),
            remaining_seconds=self.remaining or 0.0,
            generation=self._generation,
            waiters=len(self._waiters),
            backoff_seconds=max(self._backoff_until - now, 0.0),
            learned_life_seconds=self._life.seconds or 0.0,
            counts=self.stats,
        )

    async def close(self) -> None:
        """Stop fetching and close the source; whoever still waits gets an error."""
        self._closed = True
        self._disarm()
        self._follow_loop()
        await self._tasks.close()
        self._waiters.fail(_closing)
        await self._source.close()

    # --- waiting

    async def _wait(self) -> Credential:
        deadline = self.clock() + self._policy.wait_timeout
        while True:
            now = self.clock()
            current = self._valid(now)
            if current is not None:
                return current
            self._refresh(now)
            if self._flight is None:
                raise self._unavailable(now)
            # What lands may be too short-lived to pass the check above: it is new, and used once.
            return await self._waiters.join(deadline - now)

    def _unavailable(self, now: float) -> CredentialError:
        if self._closed or self._failure is None:
            return _closing()
        wait = max(self._backoff_until - now, 0.0)
        return _error_for(self._failure, wait, f"{self._failure.reason}; the next attempt is in {wait:.1f} s")

    # --- the flight

    def _refresh(self, now: float) -> None:
        """Start a flight, unless one is under way, a failure is fresh, or the service is closing."""
        self._follow_loop()
        if self._flight is None and now >= self._backoff_until and not self._closed:
            self._launch(now)

    def _launch(self, now: float) -> None:
        self._flight_started = now
        task = self._tasks.start(self._fly(), name=f"token-flight:{self.name}", context=self._context)
        task.add_done_callback(self._landed, context=self._context)
        self._flight = task

    async def _fly(self) -> Credential:
        rejected = {*self._dead, *([] if self._suspect is None else [self._suspect])}
        known = Known(
            generation=self._generation,
            current=self._valid(self.clock()),
            rejected=frozenset(rejected),
            failures=self._failures,
            longest=self._life.longest,
        )
        async with asyncio.timeout(self._policy.flight_timeout):
            return await self._sharing.bring(self._source.fetch, known)

    def _landed(self, flight: asyncio.Task[Credential]) -> None:
        if flight is not self._flight:
            if not flight.cancelled():
                flight.exception()  # of a loop that is gone; looked at, so that nothing warns
            return
        self._flight = None
        if flight.cancelled() and flight.cancelling():  # by `close`, or by a loop that ends
            self._waiters.fail(_closing)
            return
        error = asyncio.CancelledError() if flight.cancelled() else flight.exception()
        if error is None:
            self._accept(flight.result())
        else:
            self._back_off(as_fetch_error(error))
        self._arm()

    def _accept(self, credential: Credential) -> None:
        now = self.clock()
        self._generation = credential.generation
        if credential.adopted:
            self._refund()
        if credential.hard <= now and credential.lifetime > MOMENT_SECONDS:
            self._back_off(TokenFetchError("the token was past its end when it came"))
            return
        self._failures, self._failure, self._backoff_until = 0, None, -1.0
        before, self._current = self._current, credential
        again = before is not None and before.digest == credential.digest
        if not again:
            self._suspicion.token_changed()
            if before is not None:
                self._end_life(before)
        write = self._log.debug if again else self._log.info  # a file is read again every minute
        write(
            "token_adopted" if credential.adopted else "token_fetched",
            generation=credential.generation, fingerprint=credential.fingerprint,
            lifetime_s=_shown(credential.lifetime), flight_s=_shown(now - self._flight_started),
        )  # fmt: skip
        self._waiters.publish(credential)

    def _end_life(self, token: Credential) -> None:
        """A token was replaced. If it worked until late in its life, that life was healthy."""
        is_rejected = self._suspect == token.digest or token.digest in self._dead
        if self._suspect == token.digest:
            self._suspect = None
        middle = token.obtained + token.lifetime / 2
        if is_rejected or self._served.get(token.digest, -math.inf) < middle:
            return
        if self._life.lived(token.announced):
            self._log.info(
                "token_life_restored" if self._life.seconds is None else "token_life_extended",
                believed_s=_shown(min(self._life.longest, token.announced)),
            )

    def _back_off(self, error: TokenFetchError) -> None:
        now = self.clock()
        current = self._valid(now)
        self._refund()
        self._failures += 1
        self._failure = error
        remaining = None if current is None else current.hard - now
        delay = retry_delay(error, self._failures, remaining, self._policy.uniform)
        self._backoff_until = now + delay
        self._log.warning(
            "token_fetch_failed", reason=error.reason, permanent=error.permanent, failures=self._failures,
            retry_in_s=_shown(delay), remaining_s=None if remaining is None else _shown(remaining),
        )  # fmt: skip
        self._waiters.fail(lambda: _error_for(error, delay, error.reason))

    # --- the timer

    def _arm(self) -> None:
        """Plan the next fetch that nobody has to ask for."""
        self._disarm()
        now = self.clock()
        due = next_fetch(
            self._valid(now),
            now,
            idle=now - self._last_used,
            failures=self._failures,
            backoff_until=self._backoff_until,
        )
        if math.isfinite(due) and not self._closed and self._flight is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(due - now, 0), self._on_timer, due, context=self._context)

    def _on_timer(self, due: float) -> None:
        now = max(self.clock(), due)  # a loop may be early by its own resolution
        if self._failures or is_in_use(self._valid(now), now - self._last_used):
            self._refresh(now)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _valid(self, now: float) -> Credential | None:
        current = self._current
        return None if current is None or now >= current.hard else current

    def _follow_loop(self) -> None:
        """Drop a flight that belongs to another event loop: nobody could ever await it here."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._timer = loop, None, None
            self._waiters = Waiters(self._policy.max_waiters)


def _error_for(error: TokenFetchError, wait: float, reason: str) -> CredentialError:
    """The error that callers get: whether a retry makes sense depends on who failed."""
    if error.permanent and error.certain:
        return IssuerRefuses(reason=reason)
    return TokenUnavailable(wait, reason=reason)


def _closing() -> CredentialError:
    return TokenUnavailable(reason="the service is closing")


def _shown(seconds: float) -> float:
    return round(seconds, 3)

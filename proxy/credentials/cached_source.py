"""One token shared by all requests: single flight, refresh ahead of expiry, replacement after a 401.

A state machine on one event loop. Every change of state is synchronous, so no lock is held across an await:
the lock is the flight itself, a task that no caller owns. The state is that of the token (empty, fresh,
stale, suspect, expired) together with that of fetching (idle, in flight, backing off).

A rejected token is suspect: the rejected request waits for a newer token, and all others keep using it until
there is one. `rejections.py` decides which rejections may cause a fetch.
"""

import asyncio
import contextvars
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.credentials.credential import Credential, FetchedToken, skew_of
from proxy.credentials.refresh_policy import LearnedLife, RefreshPolicy, is_in_use, next_fetch, retry_delay
from proxy.credentials.rejections import Purpose, RejectionHistory
from proxy.credentials.sharing import FlightContext, Sharing
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.tasks import OwnedTasks, Waiters
from proxy.errors import CredentialError, IssuerRefuses, TokenUnavailable
from proxy.telemetry import TokenReading, TokenState, TokenStats, bind_context, get_logger

RATION_PATIENCE_SECONDS: Final = 1.0
"""How long a rejected request waits until it may cause a fetch; a longer wait is answered 503."""
IMMEDIATE_EXPIRY_SECONDS: Final = 0.4
"""A token with a shorter lifetime may expire during its fetch, but its waiters use it anyway. Any other token
that is already expired arrived while this process was suspended; discard it."""
_LAST_ACCEPTED_MAX: Final = 8
"""The number of tokens whose last accepted request is remembered."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A token that an upstream rejected, and when. Times are those of the source's clock."""

    token: Credential
    sent_at: float
    at: float


class CachedTokenSource:
    """A token source whose current token is shared by all callers of `get`.

    Args:
        name: The name of the credential in the configuration.
        source: Fetches tokens.
        sharing: Shares tokens with other parts of the process, or with other processes.
        policy: Time limits and other bounds.
        stats: Counters.
    """

    def __init__(
        self, name: str, source: TokenSource, sharing: Sharing, policy: RefreshPolicy, stats: TokenStats
    ) -> None:
        self.name = name
        self.stats = stats
        self.clock = policy.clock
        self._source = source
        self._sharing = sharing
        self._policy = policy
        self._log = get_logger("credentials").bind(credential=name)
        # A flight outlives the request that started it, so it must not run in that request's context.
        self._context = contextvars.Context()
        self._context.run(bind_context, credential=name)
        self._current: Credential | None = None
        self._generation = 0
        self._suspect: bytes | None = None
        """The digest of a token that an upstream has rejected, while the reason is unknown."""
        self._suspect_since = -math.inf
        self._dead: deque[bytes] = deque(maxlen=8)
        """Digests of tokens that were rejected for requests for which their successors were accepted."""
        self._last_accepted: OrderedDict[bytes, float] = OrderedDict()
        """For each token's digest, when the last request that the upstream accepted was sent."""
        self._history = RejectionHistory()
        self._life = LearnedLife()
        self._charged_for: bytes | None = None
        """The digest of the token that the last rationed fetch was meant to replace."""
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

    @property
    def is_ready(self) -> bool:
        """Whether there is a token that may be sent now."""
        return self._current is not None and self.clock() < self._current.expires_at

    async def get(self) -> Credential:
        """Return a credential that may be sent now; wait only if there is none.

        Raises:
            CredentialError: No token is available.
        """
        self._last_used = now = self.clock()
        current = self._current
        if current is None or now >= current.expires_at:
            try:
                return await self._wait()
            finally:
                self.stats.waited(self.clock() - now)
        if now >= current.refresh_at:
            self.stats.served_stale += 1
            self._refresh(now)
        else:
            self.stats.served_fresh += 1
        return current

    # --- accepted and rejected tokens

    def accepted(
        self, token: Credential, sent_at: float, purpose: Purpose, before: Rejection | None = None
    ) -> None:
        """Record that an upstream accepted a token.

        Args:
            sent_at: When the request was sent.
            purpose: The purpose of the request.
            before: The rejection of an earlier token for the same request.
        """
        last = self._last_accepted
        last[token.digest] = max(sent_at, last.get(token.digest, -math.inf))
        last.move_to_end(token.digest)
        if len(last) > _LAST_ACCEPTED_MAX:
            last.popitem(last=False)
        if self._current is None or token.digest == self._current.digest:
            self._history.accepted(purpose, sent_at)
            if sent_at > self._suspect_since:
                self._suspect = None
        if before is not None and before.token.digest != token.digest:
            self._learn_from_rejected(before, token)

    def rejected(
        self,
        rejection: Rejection,
        caller: str,
        purpose: Purpose,
        *,
        before: Sequence[Rejection],
        reason: str,
    ) -> bool:
        """Record that an upstream rejected a token, and return whether another token may help.

        Args:
            rejection: The rejected token, and when it was rejected.
            caller: The caller who sent the request.
            purpose: The purpose of the request.
            before: The earlier rejections of the same request.
            reason: The reason for the log.
        """
        now, token = rejection.at, rejection.token
        current = self._valid(now)
        if before and token.obtained >= before[0].at and self._proves_denial(rejection, purpose, before):
            self._deny(token, caller, purpose, now)
            return False
        if current is None or current.digest != token.digest:
            self.stats.rejections_without_effect += 1  # there is already a newer one, or none
            return True
        if self._history.is_denied(purpose, caller, now):
            self.stats.rejections_without_effect += 1
            return False
        if self._suspect != token.digest:
            self._suspect, self._suspect_since = token.digest, now
            self._log.warning(
                "token_rejected", generation=token.generation, fingerprint=token.fingerprint, reason=reason
            )
        wait = self._fetch_after_rejection(caller, purpose, now)
        if wait > 0:
            self._history.postponed(purpose, now)
            self.stats.rejections_without_effect += 1
        else:
            self.stats.rejections += 1
        return True

    def _proves_denial(self, rejection: Rejection, purpose: Purpose, before: Sequence[Rejection]) -> bool:
        """Whether the rejection of a token fetched after the first rejection proves that no token would help.

        It does if the token is known to work, if the purpose never worked, or if it is the second such token.
        Otherwise the issuer may have revoked its tokens again.
        """
        works = self._last_accepted.get(rejection.token.digest, -math.inf) > rejection.sent_at
        is_second = len(before) > 1 and before[-1].token.obtained >= before[0].at
        return works or is_second or not self._history.has_worked(purpose)

    async def newer(self, rejection: Rejection, caller: str, purpose: Purpose) -> Credential | None:
        """Return a token other than the rejected one.

        Returns:
            None if the issuer returned the rejected token again.

        Raises:
            CredentialError: No other token is available.
        """
        deadline = self.clock() + self._policy.wait_timeout
        while True:
            now = self.clock()
            current = self._valid(now)
            if current is not None and current.digest != rejection.token.digest:
                return current
            if current is not None and _is_newer(current, rejection):
                return None  # the issuer returned the same token again
            if current is None:
                self._refresh(now)
            if self._flight is None:
                if self._closed or now < self._backoff_until:
                    raise self._unavailable(now)
                wait = self._fetch_after_rejection(caller, purpose, now)
                if wait > RATION_PATIENCE_SECONDS:
                    raise TokenUnavailable(
                        wait, reason=f"the token was rejected, and fetches are rationed for {wait:.1f} s"
                    )
                if wait > 0:
                    await asyncio.sleep(max(wait, 0.01))  # timers may fire slightly early
                    continue
            await self._waiters.join(deadline - now)

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has ever accepted a token of this credential."""
        return bool(self._last_accepted)

    def deny(self, token: Credential, caller: str, purpose: Purpose) -> None:
        """Record that no newer token helps with a purpose."""
        self._deny(token, caller, purpose, self.clock())

    def _deny(self, token: Credential, caller: str, purpose: Purpose, now: float) -> None:
        self._history.denied(purpose, caller, now)
        if self._suspect == token.digest:
            self._suspect = None
        self.stats.rejections_without_effect += 1
        self._log.info(
            "token_denied", endpoint=purpose.endpoint, model=purpose.model, generation=token.generation
        )

    def _fetch_after_rejection(self, caller: str, purpose: Purpose, now: float) -> float:
        """Start a fetch because of a rejection, or return the number of seconds until that is possible."""
        self._follow_loop()
        if self._flight is not None or self._closed:
            return 0.0
        if now < self._backoff_until:
            return self._backoff_until - now
        wait = self._history.delay(caller, purpose, now)
        if wait > 0:
            return wait
        self._history.charge(caller, purpose, now)
        self._charged_for = None if self._current is None else self._current.digest
        self._start_flight(now)
        return 0.0

    def _refund(self) -> None:
        """Return the ration of a flight that ended without a token from the issuer."""
        if self._charged_for is not None:
            self._history.refund()
        self._charged_for = None

    def _learn_from_rejected(self, rejection: Rejection, accepted: Credential) -> None:
        """Learn from a rejected token whose successor was accepted: it is dead unless accepted since."""
        token = rejection.token
        if token.digest in self._dead or self._last_accepted.get(token.digest, -math.inf) > rejection.at:
            return
        self._dead.append(token.digest)
        if token.digest == self._charged_for:
            self._history.refund()
        reissued = self._policy.exclusive and (accepted.adopted or accepted.obtained < rejection.sent_at)
        if reissued or rejection.sent_at >= token.expires_at:
            return
        age = rejection.sent_at - token.obtained
        self.stats.early_deaths += 1
        if self._life.record_early_death(age, certain=token.certain):
            self._log.warning(
                "token_life_learned", announced_s=_shown(token.announced), observed_s=_shown(age),
                meaning="tokens expire earlier than announced; they are refreshed by their observed lifetime",
            )  # fmt: skip
            self._apply_learned_life()

    def _apply_learned_life(self) -> None:
        """Shorten the current token to the learned lifetime."""
        current, longest = self._current, self._life.longest
        if current is not None and current.obtained + longest < current.expires_at:
            expires_at = current.obtained + longest - skew_of(longest)
            refresh_at = min(current.refresh_at, current.obtained + 0.6 * longest)
            self._current = replace(current, expires_at=expires_at, refresh_at=refresh_at)
            self._schedule_fetch()

    # --- state

    def prefetch(self) -> None:
        """Start a fetch without waiting for it, so that the first caller finds a token."""
        self._refresh(self.clock())

    @property
    def healthy(self) -> bool:
        """Whether there is a valid token, or the last fetch did not fail. An idle credential is healthy."""
        return self._failures == 0 or self._valid(self.clock()) is not None

    @property
    def remaining(self) -> float | None:
        """Seconds for which the current token may still be sent; None without a token."""
        now = self.clock()
        current = self._valid(now)
        return None if current is None else current.expires_at - now

    def reading(self) -> TokenReading:
        """Return the current state for metrics."""
        now = self.clock()
        current = self._valid(now)
        return TokenReading(
            credential=self.name,
            state=state_of(self._current, now, suspect=self._suspect),
            remaining_seconds=0.0 if current is None else current.expires_at - now,
            lifetime_seconds=0.0 if current is None else current.lifetime,
            generation=self._generation,
            waiters=len(self._waiters),
            backoff_seconds=max(self._backoff_until - now, 0.0),
            learned_life_seconds=self._life.seconds or 0.0,
            counts=self.stats,
            life=None if self._current is None else self._current.life(now),
        )

    async def close(self) -> None:
        """Stop fetching, fail all waiters, and close the source."""
        self._closed = True
        self._cancel_timer()
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
            # A new token may be too short-lived to pass the check above, but may be used once.
            return await self._waiters.join(deadline - now)

    def _unavailable(self, now: float) -> CredentialError:
        if self._closed or self._failure is None:
            return _closing()
        wait = max(self._backoff_until - now, 0.0)
        return _error_for(self._failure, wait, f"{self._failure.reason}; the next attempt is in {wait:.1f} s")

    # --- the flight

    def _refresh(self, now: float) -> None:
        """Start a flight, unless there is one, or the back-off has not ended, or the source is closed."""
        self._follow_loop()
        if self._flight is None and now >= self._backoff_until and not self._closed:
            self._start_flight(now)

    def _start_flight(self, now: float) -> None:
        self._flight_started = now
        task = self._tasks.start(
            self._fetch_shared(), name=f"token-flight:{self.name}", context=self._context
        )
        task.add_done_callback(self._end_flight, context=self._context)
        self._flight = task

    async def _fetch_shared(self) -> Credential:
        rejected = {*self._dead, *([] if self._suspect is None else [self._suspect])}
        known = FlightContext(
            generation=self._generation,
            current=self._valid(self.clock()),
            rejected=frozenset(rejected),
            failures=self._failures,
            longest=self._life.longest,
        )
        async with asyncio.timeout(self._policy.flight_timeout):
            return await self._sharing.obtain(self._fetch, known)

    async def _fetch(self) -> FetchedToken:
        """Fetch one token in bounded time, and count it.

        Raises:
            TokenFetchError: The source failed, with any exception, or did not answer in time.
        """
        started = self.clock()
        try:
            async with asyncio.timeout(self._policy.fetch_timeout):
                return await self._source.fetch()
        except Exception as error:  # a source may raise anything
            failure = as_fetch_error(error)
            if failure.permanent:
                self.stats.fetches_failed_permanent += 1
            else:
                self.stats.fetches_failed_passing += 1
            if failure is error:
                raise
            raise failure from error
        finally:
            self.stats.fetches += 1
            self.stats.fetch_seconds += self.clock() - started

    def _end_flight(self, flight: asyncio.Task[Credential]) -> None:
        if flight is not self._flight:
            if not flight.cancelled():
                flight.exception()  # retrieved so that asyncio does not warn; its event loop is gone
            return
        self._flight = None
        if flight.cancelled() and flight.cancelling():  # by `close`, or because the event loop ends
            self._waiters.fail(_closing)
            return
        error = asyncio.CancelledError() if flight.cancelled() else flight.exception()
        if error is None:
            self._install(flight.result())
        else:
            self._back_off(as_fetch_error(error))
        self._schedule_fetch()

    def _install(self, credential: Credential) -> None:
        now = self.clock()
        self._generation = credential.generation
        if credential.adopted:
            self._refund()
        if credential.expires_at <= now and credential.lifetime > IMMEDIATE_EXPIRY_SECONDS:
            self._back_off(TokenFetchError("the token had already expired when it arrived"))
            return
        self._failures, self._failure, self._backoff_until = 0, None, -1.0
        before, self._current = self._current, credential
        is_same = before is not None and before.digest == credential.digest
        if not is_same:
            self._history.token_changed()
            if before is not None:
                self._learn_from_replaced(before)
        write = self._log.debug if is_same else self._log.info  # a file is read again every minute
        write(
            "token_adopted" if credential.adopted else "token_fetched",
            generation=credential.generation, fingerprint=credential.fingerprint,
            lifetime_s=_shown(credential.lifetime), flight_s=_shown(now - self._flight_started),
        )  # fmt: skip
        self._waiters.publish(credential)

    def _learn_from_replaced(self, token: Credential) -> None:
        """Learn from a replaced token: if it worked until late in its lifetime, that lifetime was true."""
        is_rejected = self._suspect == token.digest or token.digest in self._dead
        if self._suspect == token.digest:
            self._suspect = None
        middle = token.obtained + token.lifetime / 2
        if is_rejected or self._last_accepted.get(token.digest, -math.inf) < middle:
            return
        if self._life.record_full_life(token.announced):
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
        remaining = None if current is None else current.expires_at - now
        delay = retry_delay(error, self._failures, remaining, self._policy.uniform)
        self._backoff_until = now + delay
        self._log.warning(
            "token_fetch_failed", reason=error.reason, permanent=error.permanent, failures=self._failures,
            retry_in_s=_shown(delay), remaining_s=None if remaining is None else _shown(remaining),
        )  # fmt: skip
        self._waiters.fail(lambda: _error_for(error, delay, error.reason))

    # --- the timer

    def _schedule_fetch(self) -> None:
        """Schedule the next fetch that no caller triggers."""
        self._cancel_timer()
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
        now = max(self.clock(), due)  # timers may fire slightly early
        if self._failures or is_in_use(self._valid(now), now - self._last_used):
            self._refresh(now)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _valid(self, now: float) -> Credential | None:
        current = self._current
        return None if current is None or now >= current.expires_at else current

    def _follow_loop(self) -> None:
        """Forget a flight of another event loop, which cannot be awaited in this one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._timer = loop, None, None
            self._waiters = Waiters(self._policy.max_waiters)


def _is_newer(token: Credential, rejection: Rejection) -> bool:
    """Whether a token was fetched after the rejection of another one."""
    return token.generation > rejection.token.generation and token.obtained >= rejection.at


def _error_for(error: TokenFetchError, wait: float, reason: str) -> CredentialError:
    """Return the error for callers. A retry makes no sense if the issuer itself refuses."""
    if error.permanent and error.certain:
        return IssuerRefuses(reason=reason)
    return TokenUnavailable(wait, reason=reason)


def _closing() -> CredentialError:
    return TokenUnavailable(reason="the service is closing")


def _shown(seconds: float) -> float:
    return round(seconds, 3)


def state_of(current: Credential | None, now: float, *, suspect: bytes | None) -> TokenState:
    """Return the state of a token.

    Args:
        current: The newest token.
        now: The time on the clock of its deadlines.
        suspect: The digest of the token that an upstream has rejected for an unknown reason.
    """
    if current is None:
        return "empty"
    if now >= current.expires_at:
        return "expired"
    if current.digest == suspect:
        return "suspect"
    return "stale" if now >= current.refresh_at else "fresh"

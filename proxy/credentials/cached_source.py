"""One token shared by all requests: single flight, refresh ahead of expiry, replacement after a 401.

A state machine on one event loop. Every change of state is synchronous, so no lock is held across an await:
the lock is the flight itself, a task that no caller owns. The state is that of the token (empty, fresh,
stale, suspect, expired) together with that of fetching (idle, in flight, backing off).

A rejected token is suspect: the rejected request waits for a newer token, and all others keep using it until
there is one. `rejections.py` decides which rejections may cause a fetch, and `observed_tokens.py` remembers
which tokens were accepted, suspect or dead.
"""

import asyncio
import contextvars
import math
from collections.abc import Sequence
from typing import Final

from proxy.credentials.observed_tokens import ObservedTokens, Rejection
from proxy.credentials.refresh_policy import Backoff, RefreshPolicy, is_in_use, next_fetch
from proxy.credentials.rejections import Purpose, RejectionHistory
from proxy.credentials.sharing import FlightContext, Sharing
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.tasks import OwnedTasks, Waiters
from proxy.credentials.token import FetchedToken, Token, shortened
from proxy.errors import CredentialError, IssuerRefuses, TokenUnavailable
from proxy.telemetry import TokenReading, TokenStats, bind_context, get_logger

RATION_PATIENCE_SECONDS: Final = 1.0
"""How long a rejected request waits until it may cause a fetch; a longer wait is answered 503."""
IMMEDIATE_EXPIRY_SECONDS: Final = 0.4
"""A token with a shorter lifetime may expire during its fetch, but its waiters use it anyway. Any other token
that is already expired arrived while this process was suspended; discard it."""


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
        self._current: Token | None = None
        self._generation = 0
        self._observed = ObservedTokens()
        self._history = RejectionHistory()
        self._tasks = OwnedTasks()
        self._flight: asyncio.Task[Token] | None = None
        self._flight_started = 0.0
        self._waiters = Waiters(self._policy.max_waiters)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(policy.uniform)
        self._last_used = self.clock()
        self._closed = False

    @property
    def is_ready(self) -> bool:
        """Whether there is a token that may be sent now."""
        return self._current is not None and self.clock() < self._current.expires_at

    async def get(self) -> Token:
        """Return a token that may be sent now; wait only if there is none.

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
        self, token: Token, sent_at: float, purpose: Purpose, before: Rejection | None = None
    ) -> None:
        """Record that an upstream accepted a token.

        Args:
            sent_at: When the request was sent.
            purpose: The purpose of the request.
            before: The rejection of an earlier token for the same request.
        """
        self._observed.accepted(token, sent_at)
        if self._current is None or token.digest == self._current.digest:
            self._history.accepted(purpose, sent_at)
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
        works = self._observed.last_accepted(token) > rejection.sent_at
        if self._history.proves_denial(rejection, before, purpose, works=works):
            self._deny(token, caller, purpose, now)
            return False
        if current is None or current.digest != token.digest:
            self.stats.rejections_without_effect += 1  # there is already a newer one, or none
            return True
        if self._history.is_denied(purpose, caller, now):
            self.stats.rejections_without_effect += 1
            return False
        if self._observed.suspect(token, now):
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

    async def newer(self, rejection: Rejection, caller: str, purpose: Purpose) -> Token | None:
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
                if self._closed or self._backoff.remaining(now):
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
        return self._observed.ever_accepted

    def deny(self, token: Token, caller: str, purpose: Purpose) -> None:
        """Record that no newer token helps with a purpose."""
        self._deny(token, caller, purpose, self.clock())

    def _deny(self, token: Token, caller: str, purpose: Purpose, now: float) -> None:
        self._history.denied(purpose, caller, now)
        self._observed.acquit(token)
        self.stats.rejections_without_effect += 1
        self._log.info(
            "token_denied", endpoint=purpose.endpoint, model=purpose.model, generation=token.generation
        )

    def _fetch_after_rejection(self, caller: str, purpose: Purpose, now: float) -> float:
        """Start a fetch because of a rejection, or return the number of seconds until that is possible."""
        self._follow_loop()
        if self._flight is not None or self._closed:
            return 0.0
        wait = self._backoff.remaining(now) or self._history.delay(caller, purpose, now)
        if wait > 0:
            return wait
        replaces = None if self._current is None else self._current.digest
        self._history.charge(caller, purpose, now, replaces=replaces)
        self._start_flight(now)
        return 0.0

    def _learn_from_rejected(self, rejection: Rejection, accepted: Token) -> None:
        """Learn from a rejected token whose successor was accepted."""
        token, life = rejection.token, self._observed.life
        if not self._observed.died(rejection):
            return
        self._history.refund_replaced(token.digest)
        if not rejection.shows_early_death(accepted, exclusive=self._policy.exclusive):
            return
        self.stats.early_deaths += 1
        if life.record_early_death(rejection.age, certain=token.certain):
            self._log.warning(
                "token_life_learned", announced_s=_shown(token.announced), observed_s=_shown(rejection.age),
                meaning="tokens expire earlier than announced; they are refreshed by their observed lifetime",
            )  # fmt: skip
            current = None if self._current is None else shortened(self._current, life.longest)
            if current is not self._current:
                self._current = current
                self._schedule_fetch()

    # --- state

    def prefetch(self) -> None:
        """Start a fetch without waiting for it, so that the first caller finds a token."""
        self._refresh(self.clock())

    @property
    def healthy(self) -> bool:
        """Whether there is a valid token, or the last fetch did not fail. An idle token is healthy."""
        return self._backoff.failures == 0 or self._valid(self.clock()) is not None

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
            state=self._observed.state(self._current, now),
            remaining_seconds=0.0 if current is None else current.expires_at - now,
            lifetime_seconds=0.0 if current is None else current.lifetime,
            generation=self._generation,
            waiters=len(self._waiters),
            backoff_seconds=self._backoff.remaining(now),
            learned_life_seconds=self._observed.life.seconds or 0.0,
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

    async def _wait(self) -> Token:
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
        failure = self._backoff.failure
        if self._closed or failure is None:
            return _closing()
        wait = self._backoff.remaining(now)
        return _error_for(failure, wait, f"{failure.reason}; the next attempt is in {wait:.1f} s")

    # --- the flight

    def _refresh(self, now: float) -> None:
        """Start a flight, unless there is one, or the back-off has not ended, or the source is closed."""
        self._follow_loop()
        if self._flight is None and not self._backoff.remaining(now) and not self._closed:
            self._start_flight(now)

    def _start_flight(self, now: float) -> None:
        self._flight_started = now
        task = self._tasks.start(
            self._fetch_shared(), name=f"token-flight:{self.name}", context=self._context
        )
        task.add_done_callback(self._end_flight, context=self._context)
        self._flight = task

    async def _fetch_shared(self) -> Token:
        known = FlightContext(
            generation=self._generation,
            current=self._valid(self.clock()),
            rejected=self._observed.rejected,
            failures=self._backoff.failures,
            longest=self._observed.life.longest,
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

    def _end_flight(self, flight: asyncio.Task[Token]) -> None:
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

    def _install(self, token: Token) -> None:
        now = self.clock()
        self._generation = token.generation
        if token.adopted:
            self._history.refund()
        if token.expires_at <= now and token.lifetime > IMMEDIATE_EXPIRY_SECONDS:
            self._back_off(TokenFetchError("the token had already expired when it arrived"))
            return
        self._backoff = Backoff(self._policy.uniform)
        before, self._current = self._current, token
        is_same = before is not None and before.digest == token.digest
        if not is_same:
            self._history.token_changed()
            if before is not None:
                self._learn_from_replaced(before)
        write = self._log.debug if is_same else self._log.info  # a file is read again every minute
        write(
            "token_adopted" if token.adopted else "token_fetched",
            generation=token.generation, fingerprint=token.fingerprint,
            lifetime_s=_shown(token.lifetime), flight_s=_shown(now - self._flight_started),
        )  # fmt: skip
        self._waiters.publish(token)

    def _learn_from_replaced(self, token: Token) -> None:
        life = self._observed.life
        if self._observed.replaced(token):
            self._log.info(
                "token_life_restored" if life.seconds is None else "token_life_extended",
                believed_s=_shown(min(life.longest, token.announced)),
            )

    def _back_off(self, error: TokenFetchError) -> None:
        now = self.clock()
        current = self._valid(now)
        self._history.refund()
        remaining = None if current is None else current.expires_at - now
        delay = self._backoff.fail(error, now, remaining)
        self._log.warning(
            "token_fetch_failed", reason=error.reason, permanent=error.permanent,
            failures=self._backoff.failures, retry_in_s=_shown(delay),
            remaining_s=None if remaining is None else _shown(remaining),
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
            failures=self._backoff.failures,
            backoff_until=self._backoff.until,
        )
        if math.isfinite(due) and not self._closed and self._flight is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(due - now, 0), self._on_timer, due, context=self._context)

    def _on_timer(self, due: float) -> None:
        now = max(self.clock(), due)  # timers may fire slightly early
        if self._backoff.failures or is_in_use(self._valid(now), now - self._last_used):
            self._refresh(now)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _valid(self, now: float) -> Token | None:
        current = self._current
        return None if current is None or now >= current.expires_at else current

    def _follow_loop(self) -> None:
        """Forget a flight of another event loop, which cannot be awaited in this one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._timer = loop, None, None
            self._waiters = Waiters(self._policy.max_waiters)


def _is_newer(token: Token, rejection: Rejection) -> bool:
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

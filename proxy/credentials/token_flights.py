"""Fetches the token that all requests share: one flight at a time, the pauses after failures, and the timer.

A state machine on one event loop. Every change of state is synchronous, so no lock is held across an await:
the lock is the flight itself, a task that no caller owns.
"""

import asyncio
import contextvars
import math
from typing import Final

from proxy.credentials.observed_tokens import ObservedTokens
from proxy.credentials.refresh_policy import Backoff, RefreshPolicy, is_in_use, next_fetch
from proxy.credentials.rejections import RejectionHistory
from proxy.credentials.sharing import FlightContext, Sharing
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.token import FetchedToken, Token, shortened
from proxy.errors import CredentialError, IssuerRefuses, TokenUnavailable
from proxy.shared_tasks import OwnedTasks, Waiters
from proxy.telemetry import TokenStats, bind_context, get_logger

IMMEDIATE_EXPIRY_SECONDS: Final = 0.4
"""A token with a shorter lifetime may expire during its fetch, but its waiters use it anyway. Any other token
that has expired on arrival is discarded: the process was suspended meanwhile."""


class TokenFlights:
    """The current token of one credential, and the flights that replace it.

    Args:
        name: The name of the credential in the configuration.
        source: Fetches tokens.
        sharing: Shares tokens with other parts of the process, or with other processes.
        policy: Time limits and other bounds.
        stats: Counters.
        observed: What upstreams have shown about the tokens.
        history: Its last charge is refunded if a flight brings no token from the issuer.
    """

    def __init__(
        self,
        name: str,
        source: TokenSource,
        sharing: Sharing,
        policy: RefreshPolicy,
        stats: TokenStats,
        observed: ObservedTokens,
        history: RejectionHistory,
    ) -> None:
        self.current: Token | None = None
        """The newest token, which may have expired."""
        self.generation = 0
        """The number of the token that arrived last."""
        self.is_closed = False
        self._backoff = Backoff(policy.uniform)
        self._last_used = policy.clock()
        """When a caller last asked for a token."""
        self._name = name
        self._clock = policy.clock
        self._source = source
        self._sharing = sharing
        self._policy = policy
        self._stats = stats
        self._observed = observed
        self._history = history
        self._log = get_logger("credentials").bind(credential=name)
        # A flight outlives the request that started it, so it must not run in that request's context.
        self._context = contextvars.Context()
        self._context.run(bind_context, credential=name)
        self._tasks = OwnedTasks()
        self._flight: asyncio.Task[Token] | None = None
        self._flight_started = 0.0
        self._is_looking = False
        self._waiters = Waiters[Token](policy.max_waiters, _reject)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def valid(self, now: float) -> Token | None:
        """Return the current token if it may still be sent."""
        current = self.current
        return None if current is None or now >= current.expires_at else current

    def use(self, now: float) -> Token | None:
        """Return the current token if it may still be sent, and note that a caller asks for it."""
        self._last_used = now
        return self.valid(now)

    @property
    def waiters(self) -> int:
        """The number of callers that wait for a token."""
        return len(self._waiters)

    @property
    def is_flying(self) -> bool:
        """Whether a fetch is in progress on the running event loop."""
        self._follow_loop()
        return self._flight is not None

    @property
    def is_failing(self) -> bool:
        """Whether the last flight failed."""
        return self._backoff.failures > 0

    def pause(self, now: float) -> float:
        """Return the number of seconds that the back-off still lasts."""
        return self._backoff.remaining(now)

    def is_blocked(self, now: float) -> bool:
        """Whether no flight may start: during the back-off, and once this is closed."""
        return self.is_closed or self.pause(now) > 0

    def refresh(self, now: float) -> None:
        """Start a flight, unless there is one or none may start."""
        if not self.is_flying and not self.is_blocked(now):
            self.start(now)

    def start(self, now: float) -> None:
        """Start a flight. Call this only if none is in progress."""
        self._flight_started = now
        task = self._tasks.start(
            self._fetch_shared(), name=f"token-flight:{self._name}", context=self._context
        )
        task.add_done_callback(self._end_flight, context=self._context)
        self._flight = task

    def look(self, now: float) -> None:
        """Adopt a better token that somebody else has fetched, if there is one, without fetching one."""
        if not self.is_flying and not self.is_closed and not self._is_looking:
            self._is_looking = True
            self._tasks.start(self._look(now), name=f"token-look:{self._name}", context=self._context)

    async def wait(self) -> Token:
        """Return a token that may be sent, from a flight if there is none yet.

        Raises:
            CredentialError: No token is available.
        """
        now = self._clock()
        self.refresh(now)
        if self._flight is None:
            raise self.unavailable(now)
        # A new token may expire before its waiters run, but may be used once.
        return await self._waiters.join(self._policy.wait_timeout)

    async def join(self, timeout: float) -> None:
        """Wait for the end of the flight.

        Raises:
            CredentialError: It failed, `timeout` seconds have passed, or there are too many waiters.
        """
        await self._waiters.join(timeout)

    def unavailable(self, now: float) -> CredentialError:
        """Return the error for a caller that gets no token."""
        failure = self._backoff.failure
        if self.is_closed or failure is None:
            return _closing()
        wait = self.pause(now)
        return _error_for(failure, wait, f"{failure.reason}; the next attempt is in {wait:.1f} s")

    def shorten(self, longest: float) -> None:
        """Let the current token end after a lifetime in seconds, unless it ends earlier anyway."""
        current = None if self.current is None else shortened(self.current, longest)
        if current is not self.current:
            self.current = current
            self._schedule()

    async def close(self) -> None:
        """Stop fetching, fail all waiters, and close the source."""
        self.is_closed = True
        self._cancel_timer()
        self._follow_loop()
        await self._tasks.close()
        self._waiters.fail(_closing)
        await self._source.close()

    # --- one flight

    async def _fetch_shared(self) -> Token:
        known = self._known()
        async with asyncio.timeout(self._policy.flight_timeout):
            return await self._sharing.obtain(self._fetch, known)

    def _known(self) -> FlightContext:
        return FlightContext(
            generation=self.generation,
            current=self.valid(self._clock()),
            rejected=self._observed.rejected,
            failures=self._backoff.failures,
            longest=self._observed.life.longest,
            exclusive=self._policy.exclusive,
        )

    async def _look(self, now: float) -> None:
        known = self._known()
        try:
            found = await self._sharing.look(known)
        finally:
            self._is_looking = False
        # A flight that has begun meanwhile adopts it itself, and one that has ended may have a newer one.
        if found is not None and self._flight is None and self.generation == known.generation:
            self._stats.adopted += 1
            self._flight_started = now
            self._install(found)
            self._schedule()

    async def _fetch(self) -> FetchedToken:
        """Fetch one token in bounded time, and count it.

        Raises:
            TokenFetchError: The source failed, with any exception, or did not answer in time.
        """
        started = self._clock()
        try:
            async with asyncio.timeout(self._policy.fetch_timeout):
                return await self._source.fetch()
        except Exception as error:  # a source may raise anything
            failure = as_fetch_error(error)
            if failure.permanent:
                self._stats.fetches_failed_permanent += 1
            else:
                self._stats.fetches_failed_passing += 1
            if failure is error:
                raise
            raise failure from error
        finally:
            self._stats.fetches += 1
            self._stats.fetch_seconds += self._clock() - started

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
        self._schedule()

    def _install(self, token: Token) -> None:
        now = self._clock()
        self.generation = token.generation
        # A fetch may take longer than a learned lifetime; its waiters use the token anyway.
        if token.announced_end <= now and token.lifetime > IMMEDIATE_EXPIRY_SECONDS:
            self._back_off(TokenFetchError("the token had already expired when it arrived"))
            return
        self._backoff = Backoff(self._policy.uniform)
        self._history.fetched(token)
        if token.adopted:
            self._history.refund()
        before, self.current = self.current, token
        is_same = before is not None and before.digest == token.digest
        if before is not None and not is_same:
            self._learn_from_replaced(before, now)
        write = self._log.debug if is_same else self._log.info  # a file is read again every minute
        write(
            "token_adopted" if token.adopted else "token_fetched",
            generation=token.generation, fingerprint=token.fingerprint,
            lifetime_s=_shown(token.lifetime), flight_s=_shown(now - self._flight_started),
        )  # fmt: skip
        self._waiters.publish(token)

    def _learn_from_replaced(self, token: Token, now: float) -> None:
        life = self._observed.life
        if self._observed.replaced(token, now):
            self._log.info(
                "token_life_restored" if life.seconds is None else "token_life_extended",
                believed_s=_shown(min(life.longest, token.announced)),
            )

    def _back_off(self, error: TokenFetchError) -> None:
        now = self._clock()
        current = self.valid(now)
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

    def _schedule(self) -> None:
        """Schedule the next fetch that no caller triggers."""
        self._cancel_timer()
        now = self._clock()
        due = next_fetch(
            self.valid(now),
            now,
            idle=now - self._last_used,
            failures=self._backoff.failures,
            backoff_until=self._backoff.until,
        )
        if math.isfinite(due) and not self.is_closed and self._flight is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(due - now, 0), self._on_timer, due, context=self._context)

    def _on_timer(self, due: float) -> None:
        now = max(self._clock(), due)  # timers may fire slightly early
        if self.is_failing or is_in_use(self.valid(now), now - self._last_used):
            self.refresh(now)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _follow_loop(self) -> None:
        """Forget a flight of another event loop, which cannot be awaited in this one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._timer, self._is_looking = loop, None, None, False
            self._waiters = Waiters[Token](self._policy.max_waiters, _reject)


def _error_for(error: TokenFetchError, wait: float, reason: str) -> CredentialError:
    """Return the error for callers. A retry makes no sense if the issuer itself refuses."""
    if error.permanent and error.certain:
        return IssuerRefuses(reason=reason)
    return TokenUnavailable(wait, reason=reason)


def _reject(reason: str) -> CredentialError:
    return TokenUnavailable(reason=f"{reason} for a token")


def _closing() -> CredentialError:
    return TokenUnavailable(reason="the service is closing")


def _shown(seconds: float) -> float:
    return round(seconds, 3)

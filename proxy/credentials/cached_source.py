"""One token shared by all requests: fetched once at a time, refreshed ahead of expiry, repaired after a 401.

A state machine on one event loop. Every change of state is a synchronous function, so no lock is held across
an await: the "lock" is the existence of the flight, a task that no caller owns. Its states are those of the
token (empty, fresh, stale, expired, rejected) crossed with those of the fetching (idle, flying, backing off).
"""

import asyncio
import contextvars
import math
from collections import deque

from proxy.credentials.credential import Credential
from proxy.credentials.metered_source import MeteredSource, state_of
from proxy.credentials.refresh_policy import (
    ForcedRefreshLimit,
    RefreshPolicy,
    is_in_use,
    next_fetch,
    retry_delay,
)
from proxy.credentials.sharing import Known, Sharing
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.tasks import OwnedTasks
from proxy.credentials.waiters import Waiters
from proxy.errors import TokenUnavailable
from proxy.telemetry import TokenReading, TokenStats, bind_context, get_logger


class CachedTokenSource:
    """A token source whose token is shared, as `get` hands it out.

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
        self._clock = policy.clock
        self._source = MeteredSource(source, self.stats, policy.fetch_timeout, policy.clock)
        self._sharing = sharing
        self._policy = policy
        self._log = get_logger("credentials").bind(credential=name)
        # A flight outlives the request that started it: it must not carry that request's context along.
        self._context = contextvars.Context()
        self._context.run(bind_context, credential=name)
        self._current: Credential | None = None
        self._generation = 0
        self._rejected_generation = 0
        self._rejected_at = -1.0
        self._rejected_digests: deque[bytes] = deque(maxlen=8)
        self._forced = ForcedRefreshLimit()
        self._is_forced = False
        self._tasks = OwnedTasks()
        self._flight: asyncio.Task[Credential] | None = None
        self._flight_started = 0.0
        self._waiters = Waiters(self._policy.max_waiters)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._backoff_until = -1.0
        self._last_used = self._clock()
        self._closed = False

    async def get(self, *, min_ttl: float = 0.0) -> Credential:
        """A credential that may be sent now; without a wait wherever there is one.

        Args:
            min_ttl: Seconds of life that it must still have, where a new one could have them.

        Raises:
            TokenUnavailable: no token, and none can be had now.
        """
        self._last_used = now = self._clock()
        current = self._current
        if current is not None and min_ttl >= current.lifetime:
            min_ttl = 0.0  # or every call would cost a fetch
        if (
            current is None
            or now + min_ttl >= current.hard
            or current.generation <= self._rejected_generation
        ):
            try:
                return await self._wait(min_ttl)
            finally:
                self.stats.waited(self._clock() - now)
        if now >= current.soft:
            self.stats.served_stale += 1
            self._refresh(now)
        else:
            self.stats.served_fresh += 1
        return current

    def invalidate(self, generation: int, reason: str) -> float:
        """Take back a credential that the upstream refused.

        A late word about an older or an expired generation costs nothing. Within the cool-down of the last
        forced refresh the token is kept: whoever is refused then lacks a permission, or the issuer gives
        nothing better.

        Returns:
            This moment, on the clock that `Credential.obtained` is told by.
        """
        now = self._clock()
        current = self._valid(now)
        if current is None or current.generation != generation or not self._forced.allows(now):
            self.stats.rejections_without_effect += 1
            return now
        self.stats.rejections += 1
        self._log.warning(
            "token_rejected", generation=generation, fingerprint=current.fingerprint, reason=reason
        )
        self._rejected_generation, self._rejected_at, self._is_forced = generation, now, True
        self._rejected_digests.append(current.digest)
        self._refresh(now)
        return now

    def prefetch(self) -> None:
        """Start a fetch now, without waiting for it: a first caller should find a token."""
        self._refresh(self._clock())

    @property
    def healthy(self) -> bool:
        """False only while there is no valid token and the last fetch failed. Cold is healthy."""
        return self._failures == 0 or self._valid(self._clock()) is not None

    @property
    def remaining(self) -> float | None:
        """Seconds that the token in hand may still be sent, None where there is none."""
        now = self._clock()
        current = self._valid(now)
        return None if current is None else current.hard - now

    def reading(self) -> TokenReading:
        """How things stand now."""
        now = self._clock()
        state = state_of(self._current, now, rejected=self._rejected_generation)
        waiters, backoff = len(self._waiters), max(self._backoff_until - now, 0.0)
        return TokenReading(
            self.name, state, self.remaining or 0.0, self._generation, waiters, backoff, self.stats
        )

    async def close(self) -> None:
        """Stop fetching and let go of the source; whoever still waits is told that no token can be had."""
        self._closed = True
        self._disarm()
        self._follow_loop()
        await self._tasks.close()
        self._waiters.fail(TokenUnavailable(reason="the service is closing"))
        await self._source.close()

    # --- waiting

    async def _wait(self, min_ttl: float) -> Credential:
        deadline = self._clock() + self._policy.wait_timeout
        while True:
            now = self._clock()
            current = self._valid(now)
            if current is not None and now + min_ttl < current.hard:
                return current
            self._refresh(now)
            try:
                if self._flight is None:
                    raise self._unavailable(now)
                landed = await self._waiters.join(deadline - now)
            except TokenUnavailable:
                current = self._valid(self._clock())
                if current is None:
                    raise
                return current  # not as long-lived as was asked for, yet better than an error
            if landed.generation > self._rejected_generation:
                return landed  # also one too short-lived to pass the checks above: it is new, and used once

    def _unavailable(self, now: float) -> TokenUnavailable:
        if self._closed:
            return TokenUnavailable(reason="the service is closing")
        return TokenUnavailable(
            max(self._backoff_until - now, 0.0), reason="backing off after a failed fetch"
        )

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
        current, rejected = self._valid(self._clock()), frozenset(self._rejected_digests)
        known = Known(self._generation, current, rejected, self._failures)
        async with asyncio.timeout(self._policy.flight_timeout):
            return await self._sharing.bring(self._source.fetch, known)

    def _landed(self, flight: asyncio.Task[Credential]) -> None:
        if flight is not self._flight:
            if not flight.cancelled():
                flight.exception()  # of a loop that is gone; looked at, so that nothing warns
            return
        self._flight = None
        if flight.cancelled() and flight.cancelling():  # by `close`, or by a loop that ends
            self._waiters.fail(TokenUnavailable(reason="the service is closing"))
            return
        error = asyncio.CancelledError() if flight.cancelled() else flight.exception()
        if error is None:
            self._accept(flight.result())
        else:
            self._back_off(as_fetch_error(error))
        self._arm()

    def _accept(self, credential: Credential) -> None:
        now = self._clock()
        self._generation = credential.generation
        if credential.soft < credential.hard <= now:
            self._back_off(TokenFetchError("the token was past its end when it came"))
            return
        self._failures, self._backoff_until = 0, -1.0
        if credential.digest in self._rejected_digests and self._flight_started < self._rejected_at:
            self._launch(now)  # it left before the rejection and brings back the very token that was rejected
            return
        if self._is_forced and self._flight_started >= self._rejected_at and not credential.adopted:
            self._forced.spend(now)  # a fetch that a rejection caused, not one that was under way
        self._is_forced = False
        again = self._current is not None and self._current.digest == credential.digest
        self._current = credential
        write = self._log.debug if again else self._log.info  # a file is read again every minute
        write(
            "token_adopted" if credential.adopted else "token_fetched",
            generation=credential.generation, fingerprint=credential.fingerprint,
            lifetime_s=round(credential.lifetime, 3), flight_s=round(now - self._flight_started, 3),
        )  # fmt: skip
        self._waiters.publish(credential)

    def _back_off(self, error: TokenFetchError) -> None:
        now = self._clock()
        current = self._valid(now)
        self._failures += 1
        remaining = None if current is None else current.hard - now
        delay = retry_delay(error, self._failures, remaining, self._policy.uniform)
        self._backoff_until = now + delay
        self._log.warning(
            "token_fetch_failed", reason=error.reason, permanent=error.permanent, failures=self._failures,
            retry_in_s=round(delay, 3), remaining_s=None if remaining is None else round(remaining, 3),
        )  # fmt: skip
        self._waiters.fail(TokenUnavailable(delay, reason=error.reason))

    # --- the timer

    def _arm(self) -> None:
        """Plan the next fetch that nobody has to ask for."""
        self._disarm()
        now = self._clock()
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
        now = max(self._clock(), due)  # a loop may be early by its own resolution
        if self._failures or is_in_use(self._valid(now), now - self._last_used):
            self._refresh(now)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what is so

    def _valid(self, now: float) -> Credential | None:
        current = self._current
        if current is None or now >= current.hard or current.generation <= self._rejected_generation:
            return None
        return current

    def _follow_loop(self) -> None:
        """Let go of a flight that belongs to another event loop: nobody could ever await it here."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._flight, self._timer = loop, None, None
            self._waiters = Waiters(self._policy.max_waiters)

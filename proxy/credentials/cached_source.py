"""One token shared by all requests, which is replaced ahead of its expiry and after a 401.

`token_flights.py` fetches it, and has the current one. The state is that of the token (empty, fresh, stale,
suspect, expired) together with that of fetching (idle, in flight, backing off).

A rejected token is suspect: the rejected request waits for a newer token, and all others keep using it until
there is one. If a newer token would revoke it, the request first waits for proof that it works.
`rejections.py` decides which rejections may cause a fetch, and `observed_tokens.py` remembers which tokens
were accepted, suspect or dead.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from proxy.credentials.observed_tokens import (
    PROPAGATION_SECONDS,
    ObservedRoutes,
    ObservedTokens,
    Rejection,
)
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.rejections import RECENT_SECONDS, Purpose, RejectionHistory
from proxy.credentials.sharing import Sharing
from proxy.credentials.sources import TokenSource
from proxy.credentials.token import Token
from proxy.credentials.token_flights import TokenFlights
from proxy.errors import TokenUnavailable
from proxy.telemetry import TokenReading, TokenStats, get_logger

RATION_PATIENCE_SECONDS: Final = 1.0
"""How long a rejected request waits until it may cause a fetch; a longer wait is answered 503."""
EVIDENCE_INTERVAL_SECONDS: Final = 0.1
"""How often a rejected request checks whether the upstream has accepted its token meanwhile."""


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
        self._policy = policy
        self._log = get_logger("credentials").bind(credential=name)
        self._observed = ObservedTokens()
        self._routes = ObservedRoutes()
        self._history = RejectionHistory()
        self._flights = TokenFlights(name, source, sharing, policy, stats, self._observed, self._history)

    @property
    def is_ready(self) -> bool:
        """Whether there is a token that may be sent now."""
        return self._flights.valid(self.clock()) is not None

    async def get(self) -> Token:
        """Return a token that may be sent now; wait only if there is none.

        Raises:
            CredentialError: No token is available.
        """
        flights, now = self._flights, self.clock()
        current = flights.use(now)
        if current is None:
            try:
                return await flights.wait()
            finally:
                self.stats.waited(self.clock() - now)
        if now >= current.refresh_at:
            self.stats.served_stale += 1
            flights.refresh(now)
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
        is_evidence = self._routes.accepted(purpose.route, token, sent_at)
        if is_evidence:
            self._observed.accepted(token, sent_at)
        current = self._flights.current
        if current is None or token.digest == current.digest:
            self._history.accepted(purpose, is_evidence=is_evidence)
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
        self._routes.rejected(purpose.route)
        self._history.declined(token, caller, purpose, rejection.sent_at)
        current = self._flights.valid(now)
        works = self._works(rejection, purpose)
        if self._history.proves_denial(rejection, before, purpose, works=works) or (
            self._policy.exclusive and before and self._worked_throughout(before[0], rejection, purpose)
        ):
            self.deny(rejection, caller, purpose)
            return False
        if current is None or current.digest != token.digest:
            self.stats.rejections_without_effect += 1  # there is already a newer one, or none
            return True
        if self._history.is_denied(purpose, caller, now, self._routes.last_accepted(purpose.route, token)):
            self.stats.rejections_without_effect += 1
            return False
        if self._evidence_wait(rejection, purpose, now) > 0:
            self.stats.rejections_without_effect += 1
            return True  # `newer` waits, because a new token would take this one from all callers
        self._suspect(token, now, reason)
        wait = self._fetch_after_rejection(caller, purpose, now)
        if wait > 0:
            self._history.postponed(purpose, now)
            self.stats.rejections_without_effect += 1
        else:
            self.stats.rejections += 1
        return True

    def predecessor(self, rejection: Rejection, caller: str, purpose: Purpose) -> Token | None:
        """Return the last token that worked, if the upstream may not know the rejected one yet.

        A caller for whose purpose that token was rejected gets it again only if it was accepted since.
        """
        last = self._routes.last_token(purpose.route)
        token = self._observed.predecessor(rejection.token, rejection.at, last)
        if token is None:
            return None
        if self._history.last_declined(token, caller, purpose) >= self._observed.last_accepted(token):
            return None
        self.stats.rejections_without_effect += 1
        return token

    def predecessor_rejected(self, rejection: Rejection, caller: str, purpose: Purpose) -> None:
        """Record that the token that worked before was rejected as well."""
        self._history.declined(rejection.token, caller, purpose, rejection.sent_at)

    def predecessor_accepted(self, rejection: Rejection, caller: str, purpose: Purpose) -> None:
        """Record that the token that worked before was accepted after the rejection of the current one.

        If the upstream should know the current one by now, fetch another one meanwhile.
        """
        now, token = self.clock(), rejection.token
        self._routes.rejected(purpose.route)
        current = self._flights.valid(now)
        if current is None or current.digest != token.digest or not self._observed.is_overdue(now):
            return
        self._suspect(token, now, "the upstream accepts the previous token, but not this one")
        self._fetch_after_rejection(caller, purpose, now)

    async def newer(self, rejection: Rejection, caller: str, purpose: Purpose) -> Token | None:
        """Return a token other than the rejected one, or the same one if the upstream has accepted it since.

        Returns:
            None if no other token would help: the issuer returned the rejected one again, or the previous one
            was rejected as well.

        Raises:
            CredentialError: No other token is available.
        """
        deadline = self.clock() + self._policy.wait_timeout
        is_new = not self._is_known(rejection.token, purpose)
        has_waited = False
        while True:
            now = self.clock()
            current = self._flights.valid(now)
            if current is not None and current.digest != rejection.token.digest:
                return current
            if current is not None and _is_newer(current, rejection):
                self.deny(rejection, caller, purpose)
                return None  # the issuer returned the same token again
            if current is not None and is_new and self._is_known(current, purpose):
                return current  # the upstream has learned of it in the meantime
            if current is not None and self._policy.exclusive and self._works(rejection, purpose):
                return current  # a second rejection shows that the request is the reason
            if current is None:
                self._flights.refresh(now)
            if current is not None and self._policy.exclusive and not self._flights.is_flying:
                wait = self._evidence_wait(rejection, purpose, now)
                if wait > 0:
                    self._flights.look(now)  # another process may have revoked it with a newer one
                    await asyncio.sleep(min(max(wait, 0.01), EVIDENCE_INTERVAL_SECONDS))
                    continue
                if self._is_too_new(rejection, purpose):
                    return current  # perhaps every caller waits for another to try it again
                self._suspect(current, now, "the upstream has not accepted it for another request since")
            if not self._flights.is_flying:
                if self._flights.is_blocked(now):
                    raise self._flights.unavailable(now)
                if current is not None and has_waited and self._is_too_new(rejection, purpose):
                    return current  # the upstream may know it by now
                wait = self._fetch_after_rejection(caller, purpose, now)
                if wait > RATION_PATIENCE_SECONDS:
                    if self._is_hopeless(rejection, purpose):
                        return None
                    raise TokenUnavailable(
                        wait, reason=f"the token was rejected, and fetches are rationed for {wait:.1f} s"
                    )
                if wait > 0:
                    await asyncio.sleep(max(wait, 0.01))  # timers may fire slightly early
                    has_waited = True
                    continue
            await self._flights.join(deadline - now)

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has ever accepted a token of this credential."""
        return self._observed.ever_accepted

    def deny(self, rejection: Rejection, caller: str, purpose: Purpose) -> None:
        """Record that no newer token helps with a purpose."""
        token = rejection.token
        works = self._works(rejection, purpose)
        self._history.denied(purpose, caller, self.clock(), works=works)
        self._observed.acquit(token)
        self.stats.rejections_without_effect += 1
        self._log.info(
            "token_denied", upstream=purpose.upstream, endpoint=purpose.endpoint, model=purpose.model,
            generation=token.generation,
        )  # fmt: skip

    def _is_known(self, token: Token, purpose: Purpose) -> bool:
        """Whether the upstream knows a token: only the same route shows that, unless it never worked."""
        last = self._routes.last_token(purpose.route)
        return self._observed.is_known(token) if last is None else last.digest == token.digest

    def _is_unproved(self, token: Token, purpose: Purpose) -> bool:
        """Whether the route has accepted tokens, but not this one yet."""
        last = self._routes.last_token(purpose.route)
        return last is not None and last.digest != token.digest

    def _is_too_new(self, rejection: Rejection, purpose: Purpose) -> bool:
        """Whether the route may have rejected a token only because it was less than a second old."""
        return rejection.age < RECENT_SECONDS and self._is_unproved(rejection.token, purpose)

    def _works(self, rejection: Rejection, purpose: Purpose) -> bool:
        """Whether the same route accepted the rejected token for a request that was sent later."""
        return self._routes.last_accepted(purpose.route, rejection.token) > rejection.sent_at

    def _worked_throughout(self, first: Rejection, last: Rejection, purpose: Purpose) -> bool:
        """Whether the route accepted a token both before and after the first of two rejections."""
        route, token = purpose.route, last.token
        return (
            first.token.digest == token.digest
            and self._routes.first_accepted(route, token) < first.sent_at
            and self._works(first, purpose)
        )

    def _evidence_wait(self, rejection: Rejection, purpose: Purpose, now: float) -> float:
        """Return for how many seconds a rejection causes no fetch, because the token may work.

        If a new token revokes this one, a request that is rejected for its content would disturb all others.
        So it waits for another one if the route accepted the token a moment ago, or has never accepted it.
        """
        if not self._policy.exclusive:
            return 0.0
        last = self._routes.last_accepted(purpose.route, rejection.token)
        is_new = rejection.age < PROPAGATION_SECONDS and self._is_unproved(rejection.token, purpose)
        if not is_new and rejection.sent_at - last > RECENT_SECONDS:
            return 0.0
        return rejection.at + RECENT_SECONDS - now

    def _suspect(self, token: Token, now: float, reason: str) -> None:
        if self._observed.suspect(token, now):
            self._log.warning(
                "token_rejected", generation=token.generation, fingerprint=token.fingerprint, reason=reason
            )

    def _is_hopeless(self, rejection: Rejection, purpose: Purpose) -> bool:
        """Whether the token, like its predecessor, was rejected although it is not too new."""
        return rejection.age >= PROPAGATION_SECONDS and self._history.is_fruitless(rejection.token, purpose)

    def _fetch_after_rejection(self, caller: str, purpose: Purpose, now: float) -> float:
        """Start a fetch because of a rejection, or return the number of seconds until that is possible."""
        flights = self._flights
        if flights.is_flying or flights.is_closed:
            return 0.0
        wait = flights.pause(now) or self._history.delay(caller, purpose, now)
        if wait > 0:
            return wait
        replaces = None if flights.current is None else flights.current.digest
        self._history.charge(caller, purpose, now, replaces=replaces)
        flights.start(now)
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
        if life.record_early_death(rejection.age, self._observed.lived(token), certain=token.certain):
            self._log.warning(
                "token_life_learned",
                announced_s=round(token.announced, 3), observed_s=round(life.longest, 3),
                meaning="tokens expire earlier than announced; they are refreshed by their observed lifetime",
            )  # fmt: skip
            self._flights.shorten(life.longest)

    # --- state

    def prefetch(self) -> None:
        """Start a fetch without waiting for it, so that the first caller finds a token."""
        self._flights.refresh(self.clock())

    @property
    def healthy(self) -> bool:
        """Whether there is a valid token, or the last fetch did not fail. An idle token is healthy."""
        return not self._flights.is_failing or self.is_ready

    @property
    def remaining(self) -> float | None:
        """Seconds for which the current token may still be sent; None without a token."""
        now = self.clock()
        current = self._flights.valid(now)
        return None if current is None else current.expires_at - now

    def reading(self) -> TokenReading:
        """Return the current state for metrics."""
        now, flights = self.clock(), self._flights
        current = flights.valid(now)
        return TokenReading(
            credential=self.name,
            state=self._observed.state(flights.current, now),
            remaining_seconds=0.0 if current is None else current.expires_at - now,
            lifetime_seconds=0.0 if current is None else current.lifetime,
            generation=flights.generation,
            waiters=flights.waiters,
            backoff_seconds=flights.pause(now),
            learned_life_seconds=self._observed.life.seconds or 0.0,
            counts=self.stats,
            life=None if flights.current is None else flights.current.life(now),
        )

    async def close(self) -> None:
        """Stop fetching, fail all waiters, and close the source."""
        await self._flights.close()


def _is_newer(token: Token, rejection: Rejection) -> bool:
    """Whether a token was fetched after the rejection of another one."""
    return token.generation > rejection.token.generation and token.obtained >= rejection.at

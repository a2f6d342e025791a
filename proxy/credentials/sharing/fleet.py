"""A fleet that shares a token over Redis: one process fetches, the others adopt.

Only flights use Redis, never a request that finds a token in its own process. What is stored there is sealed,
and Redis' own clock says how long a token still lives, so that the hosts' clocks do not matter.

A member's own trouble stays its own. What it hears from the issuer stops others only once a second member has
heard it too; a fetch without an answer loses its lease; and a Redis that is slow is left out.
"""

import asyncio
import contextlib
import math
import secrets
from typing import Any, Final, NamedTuple

from proxy.credentials.credential import (
    LEADER_FRACTION,
    Credential,
    FetchedToken,
    mint,
)
from proxy.credentials.refresh_policy import RefreshPolicy, retry_delay
from proxy.credentials.sharing import Fetch, Known
from proxy.credentials.sharing.record import adopt, read_record, usable_life, write_record
from proxy.credentials.sharing.scripts import ACQUIRE, FAIL, KEEP, LOOK, PARTS, RELEASE, STORE
from proxy.credentials.sharing.seal import Seal
from proxy.credentials.sources import TokenFetchError, as_fetch_error
from proxy.credentials.tasks import OwnedTasks
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable
from proxy.settings import Shared
from proxy.telemetry import TokenStats, get_logger

RENEW_FRACTION: Final = 0.3
"""A holder that lives renews its lease in time, even if one renewal is lost."""
POLL_SECONDS: Final = (0.05, 0.15)
LOOK_SECONDS: Final = 0.25
"""A fetch that is late looks so often whether another member was faster."""
HOLD_MARGIN_SECONDS: Final = 0.3
HOLD_SECONDS_MIN: Final = 0.8
"""Where tokens are independent a lease lasts as long as the last fetch took, and a margin; `lease_seconds` at
most, or if no fetch is known. Nobody renews it: another member may fetch when it is over."""
SUCCESSOR_SECONDS: Final = 0.4
"""The lease after one that ended without an answer: a second fetch that hangs must not cost as much again."""
BUSY_SECONDS: Final = 0.5
"""Members wait so long after one of them, and only one, has heard from the issuer that it is busy."""
WITNESS_SECONDS: Final = 60.0
UNUSED_SECONDS: Final = 40 * 86400
"""A counter that was not raised for so long is forgotten."""
REDIS_SECONDS: Final = 1.0
"""All calls to Redis of a flight take no longer than this together; then the process goes on alone."""
REST_SECONDS: Final = 5.0
"""Redis is left alone for so long after a failure, or every flight would wait for it in vain."""
CERTAIN_FAILURES: Final = 3
"""A fleet of one has no second member: so many refusals in a row are believed as well."""


class Lease(NamedTuple):
    """The right to fetch."""

    owner: str
    epoch: bytes
    """Of the counter that the number comes from."""
    number: int
    """Of the token that is fetched under it."""
    seconds: float
    failures: int
    """How often the issuer has failed in a row."""


class _Flight:
    """What one flight knows, and the Redis time that it has left."""

    def __init__(self, fetch: Fetch, known: Known, seconds: float) -> None:
        self.fetch = fetch
        self.known = known
        self.owner = secrets.token_hex(8)
        self.seconds_left = seconds
        self.seen = b""
        """The tag of the record that was looked at last."""


class FleetSharing:
    """Shares one credential between all processes whose recipe and keys are the same.

    Args:
        record: The name of its record in Redis, the same for the whole fleet and no other recipe.
        redis: The service's connection to Redis.
        tasks: Hold what runs beside a flight.
        seal: Seals what is stored.
        policy: Clock, dice and bounds.
        stats: Where it counts.
        required: Whether a token may be fetched only while Redis can be used. Otherwise each process fetches
            for itself without it.
    """

    def __init__(
        self,
        record: str,
        redis: RedisConnection,
        tasks: OwnedTasks,
        seal: Seal,
        policy: RefreshPolicy,
        stats: TokenStats,
        *,
        required: bool,
    ) -> None:
        # The braces keep all parts on one node of a cluster.
        self._keys = [f"{NAMESPACE}:{{{record}}}:{part}" for part in PARTS]
        self._redis = redis
        self._tasks = tasks
        self._seal = seal
        self._policy = policy
        self._clock = policy.clock
        self._required = required
        self._member = secrets.token_hex(8)
        self._fetch_seconds: float | None = None
        """How long the last fetch of this process took."""
        self._rest_until = -1.0
        self._log = get_logger("credentials")
        self.stats = stats

    async def bring(self, fetch: Fetch, known: Known) -> Credential:
        """Return what the fleet has, or else what this process fetches for it.

        Raises:
            TokenFetchError: the fetch failed, here or in other members.
        """
        if self._clock() >= self._rest_until:
            flight = _Flight(fetch, known, math.inf if self._required else REDIS_SECONDS)
            try:
                return await self._bring(flight)
            except StoreUnavailable as error:
                self._rest_until = self._clock() + REST_SECONDS
                self.stats.store_errors += 1
                self._log.warning("token_store_unavailable", reason=str(error), required=self._required)
        if self._required:
            raise TokenFetchError("the shared token store cannot be reached")
        started = self._clock()
        return self._mint(await fetch(), started, known)

    async def _bring(self, flight: _Flight) -> Credential:
        waiting_since = self._clock()
        try:
            found = await self._acquire(flight)
        finally:
            self.stats.lease_wait_seconds += self._clock() - waiting_since
        if isinstance(found, Credential):
            self.stats.adopted += 1
            return found
        return await self._fetch(flight, found)

    # --- a token of the fleet, or the right to fetch one

    async def _acquire(self, flight: _Flight) -> Credential | Lease:
        while True:
            asked, hold = self._clock(), self._hold()
            answer = await self._run(
                flight, ACQUIRE, flight.owner, flight.seen, _ms(hold),
                "" if self._policy.exclusive else _ms(min(SUCCESSOR_SECONDS, hold)), secrets.token_hex(8),
                _ms(UNUSED_SECONDS), _ms(hold + self._policy.fetch_timeout),
            )  # fmt: skip
            match answer:
                case [b"record", bytes(raw), int(left)]:
                    found = self._open(flight, raw, asked, left / 1000)
                    if found is not None:
                        return found
                    continue
                case [b"failure", bytes(why), int(left)]:
                    if why.startswith(b"1 "):
                        raise self._failure_of_others(why[2:].decode(), left / 1000)
                case [b"lease", bytes(epoch), int(number), int(held), int(failures)]:
                    return Lease(flight.owner, epoch, number, held / 1000, failures)
            await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))

    def _hold(self) -> float:
        """Return how long a lease of this process lasts unless it is renewed."""
        if self._policy.exclusive or self._fetch_seconds is None:
            return self._policy.lease_seconds
        wanted = max(self._fetch_seconds + HOLD_MARGIN_SECONDS, HOLD_SECONDS_MIN)
        return min(wanted, self._policy.lease_seconds)

    def _open(self, flight: _Flight, raw: bytes, asked: float, remaining: float) -> Credential | None:
        """Return a stored token if it is news; remember that it was looked at."""
        flight.seen = raw.partition(b" ")[0]
        fetched = read_record(raw, self._seal, self._keys[0])
        if fetched is None:
            self._log.warning("shared_token_unreadable", meaning="sealed with a key that is not known here")
            return None
        credential = adopt(
            fetched,
            asked=asked,
            remaining=remaining,
            generation=flight.known.generation + 1,
            uniform=self._policy.uniform,
            longest=flight.known.longest,
        )
        return credential if flight.known.is_news(credential, self._clock()) else None

    @staticmethod
    def _failure_of_others(kind: str, seconds: float) -> TokenFetchError:
        refused = kind == "refused"
        said = "refuses the request" if refused else "is in trouble"
        reason = f"the token endpoint {said}, as two other processes have seen"
        return TokenFetchError(reason, permanent=refused, retry_after=seconds)

    # --- the fetch

    async def _fetch(self, flight: _Flight, lease: Lease) -> Credential:
        started = self._clock()
        fetching = self._tasks.start(_awaited(flight.fetch), name="token-fetch")
        beside = self._keep(flight, lease) if self._policy.exclusive else self._watch(flight, lease)
        watching = self._tasks.start(beside, name="token-lease")
        ended = False
        try:
            await asyncio.wait({fetching, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done() and (found := watching.result()) is not None:
                self.stats.adopted += 1
                return found
            await asyncio.wait({fetching})
            try:
                fetched = fetching.result()
            except Exception as error:  # whatever it is: the lease ends, and the fleet may have to know
                ended = True
                raise await self._failed(flight, lease, as_fetch_error(error)) from error
            ended = True
            self._fetch_seconds = self._clock() - started
            return await self._store(flight, lease, fetched, started)
        finally:
            # Nothing waits for what is dropped here: the end of a flight does not depend on it.
            self._tasks.drop(watching)
            if not fetching.done():
                self._tasks.drop(fetching)
            if not ended:
                with contextlib.suppress(StoreUnavailable):
                    await self._run(flight, RELEASE, lease.owner)

    async def _keep(self, flight: _Flight, lease: Lease) -> None:
        """Renew the lease for as long as a fetch may take, and no longer."""
        pause = RENEW_FRACTION * lease.seconds
        with contextlib.suppress(StoreUnavailable):  # then it lapses, and the fence keeps order
            for _ in range(math.ceil(self._policy.fetch_timeout / pause)):
                await asyncio.sleep(pause)
                await self._run(flight, KEEP, lease.owner, _ms(lease.seconds))

    async def _watch(self, flight: _Flight, lease: Lease) -> Credential | None:
        """Return what another member has fetched, once the lease is over and it was faster."""
        await asyncio.sleep(lease.seconds)
        with contextlib.suppress(StoreUnavailable):
            for _ in range(math.ceil(self._policy.fetch_timeout / LOOK_SECONDS)):
                asked = self._clock()
                answer = await self._run(flight, LOOK, lease.owner, flight.seen)
                if answer:
                    found = self._open(flight, answer[0], asked, answer[1] / 1000)
                    if found is not None:
                        return found
                await asyncio.sleep(LOOK_SECONDS)
        return None

    async def _store(
        self, flight: _Flight, lease: Lease, fetched: FetchedToken, started: float
    ) -> Credential:
        credential = self._mint(fetched, started, flight.known)
        left = min(started + usable_life(fetched) - self._clock(), UNUSED_SECONDS)
        if left <= 0:
            return credential
        sealed = write_record(fetched, self._seal, self._keys[0])
        asked = self._clock()
        try:
            answer = await self._run(
                flight, STORE, lease.owner, lease.number, lease.epoch, sealed, _ms(left), _ms(UNUSED_SECONDS)
            )
        except StoreUnavailable as error:  # the token is good all the same, for this process
            self.stats.store_errors += 1
            self._log.warning("token_not_shared", reason=str(error))
            return credential
        match answer:
            case [bytes(raw), int(remaining)]:
                self._log.warning("token_not_shared", reason="a later one was there", number=lease.number)
                # A later fetch has revoked this token, where tokens revoke each other.
                return self._open(flight, raw, asked, remaining / 1000) or credential
        return credential

    async def _failed(self, flight: _Flight, lease: Lease, error: TokenFetchError) -> TokenFetchError:
        """End the lease of a fetch that failed; return the failure as this process should take it."""
        known = flight.known
        remaining = None if known.current is None else known.current.hard - self._clock()
        failures = max(lease.failures, known.failures) + 1
        delay = retry_delay(error, failures, remaining, self._policy.uniform)
        confirmed = False
        try:
            if error.answered:
                kind, brief = ("refused", 0.0) if error.permanent else ("busy", min(BUSY_SECONDS, delay))
                pauses = _ms(delay), _ms(brief), _ms(WITNESS_SECONDS + delay)
                confirmed = bool(await self._run(flight, FAIL, lease.owner, self._member, kind, *pauses))
            else:
                await self._run(flight, RELEASE, lease.owner)
        except StoreUnavailable:
            pass  # the lease lapses
        # Others come first: this process has just failed.
        return TokenFetchError(
            error.reason,
            permanent=error.permanent,
            retry_after=delay + BUSY_SECONDS / 2,
            answered=error.answered,
            certain=error.certain and (confirmed or failures >= CERTAIN_FAILURES),
        )

    def _mint(self, fetched: FetchedToken, started: float, known: Known) -> Credential:
        return mint(
            fetched,
            generation=known.generation + 1,
            obtained=started,
            uniform=self._policy.uniform,
            spread=LEADER_FRACTION,
            longest=known.longest,
        )

    async def _run(self, flight: _Flight, script: str, *arguments: str | int | bytes) -> Any:
        """Run a script in what is left of the flight's Redis time.

        Raises:
            StoreUnavailable: no answer in time, an error, or no time left.
        """
        if flight.seconds_left <= 0:
            raise StoreUnavailable("too slow for this flight")
        asked = self._clock()
        try:
            within = min(flight.seconds_left, self._redis.timeout)
            return await self._redis.run_script(script, self._keys, *arguments, within=within)
        finally:
            flight.seconds_left -= self._clock() - asked


class Fleet:
    """What all credentials of one process share by: the connection to Redis, and the seal.

    Args:
        settings: The `[shared]` section.
        redis: The service's connection to the Redis of that section.
    """

    def __init__(self, settings: Shared, redis: RedisConnection) -> None:
        self._redis = redis
        self._tasks = OwnedTasks()
        self._seal = Seal(settings.keys, settings.naming_key)

    def sharing(
        self, identity: bytes, policy: RefreshPolicy, stats: TokenStats, *, required: bool
    ) -> FleetSharing:
        """Build the sharing of one credential.

        Args:
            identity: See `identity.identity_of`.
            policy: Clock, dice and bounds.
            stats: Where it counts.
            required: Whether a token may be fetched only while Redis can be used.
        """
        record = self._seal.name(identity)
        return FleetSharing(record, self._redis, self._tasks, self._seal, policy, stats, required=required)

    async def close(self) -> None:
        """Stop what still runs beside flights."""
        await self._tasks.close()


async def _awaited(fetch: Fetch) -> FetchedToken:
    return await fetch()


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 0)

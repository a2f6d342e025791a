"""Sharing of a token over Redis: one process of a fleet fetches it, and the others adopt it.

Only flights use Redis, never a request that finds a token in its process. Records are encrypted. The
remaining lifetime of a token is measured by Redis, so that the clocks of the hosts do not matter.

A process cannot block the others: failures of the issuer apply to the fleet only after a second host has
seen one, a fetch without a response loses its lease, and a process stops waiting for a slow Redis.
"""

import asyncio
import contextlib
import math
import secrets
import socket
from pathlib import Path
from typing import Final, NamedTuple

from proxy.credentials.refresh_policy import RETRY_AFTER_SECONDS_MAX, RefreshPolicy, retry_delay
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.record import (
    RECORD_SECONDS_MAX,
    Seal,
    adopt,
    read_record,
    record_life,
    write_record,
)
from proxy.credentials.sharing.scripts import ACQUIRE, FAIL, KEEP, LOOK, PARTS, RELEASE, STORE
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import (
    LEADER_FRACTION,
    FetchedToken,
    Token,
)
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable
from proxy.settings import Shared
from proxy.shared_tasks import OwnedTasks
from proxy.telemetry import TokenStats, get_logger

RENEW_FRACTION: Final = 0.3
"""The part of a lease after which it is renewed. One renewal may fail."""
LEASE_SECONDS_MAX: Final = 10.0
"""Longer than any lease of this program, with a margin for other versions of it."""
FAILURE_SECONDS_MAX: Final = 2 * RETRY_AFTER_SECONDS_MAX
"""The same for failures that two hosts have seen."""
POLL_SECONDS: Final = (0.05, 0.15)
LOOK_SECONDS: Final = 0.25
"""How often a late fetch checks whether another process was faster."""
HOLD_MARGIN_SECONDS: Final = 0.3
HOLD_SECONDS_MIN: Final = 0.8
"""If tokens are independent, a lease lasts as long as the last fetch took, plus a margin, and
`lease_seconds` at most. It is not renewed: another process may fetch when it has expired."""
SUCCESSOR_SECONDS: Final = 0.4
"""A lease that follows a late fetch is shorter, because the second fetch may hang as well."""
BUSY_SECONDS: Final = 0.5
"""How long other processes wait after a 429 or 5xx that only one process has seen."""
WITNESS_SECONDS: Final = 60.0
UNUSED_SECONDS: Final = RECORD_SECONDS_MAX + 3600
"""How long an unused counter is kept: longer than any record."""
REDIS_SECONDS: Final = 1.0
"""The time limit for all Redis calls of a flight; after that the process continues without Redis."""
REDIS_PAUSE_SECONDS: Final = 5.0
"""How long Redis is not used after a failure."""
CERTAIN_FAILURES: Final = 3
"""The number of consecutive refusals that count as confirmed without a second host."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Different for each host, even if two have the same name. Only Linux has it."""


class Lease(NamedTuple):
    """The exclusive right to fetch."""

    owner: str
    epoch: bytes
    """The epoch of the counter."""
    number: int
    """The number of the token that is fetched under the lease: its fence."""
    seconds: float
    failures: int
    """The number of consecutive failures of the issuer."""


class _Flight:
    """The state of one flight, and the Redis time that it has left."""

    def __init__(self, known: FlightContext, seconds: float) -> None:
        self.known = known
        self.owner = secrets.token_hex(8)
        self.seconds_left = seconds
        self.seen = b""
        """The tag of the last record that was read."""


class FleetSharing:
    """Shares the token of one credential between all processes with the same recipe and encryption keys.

    Args:
        record: The name of the record in Redis, which is unique for the recipe.
        redis: The connection to Redis.
        tasks: Starts the tasks of a flight.
        seal: Encrypts records.
        policy: Time limits, the clock and the random source.
        stats: Counters.
        witness: What counts as one observer of the issuer's failures.
        required: Whether a token may be fetched only if Redis is available. Otherwise each process fetches
            tokens for itself without Redis.
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
        witness: str,
        required: bool,
    ) -> None:
        # The braces place all parts on the same node of a cluster.
        self._keys = [f"{NAMESPACE}:{{{record}}}:{part}" for part in PARTS]
        self._redis = redis
        self._tasks = tasks
        self._seal = seal
        self._policy = policy
        self._clock = policy.clock
        self._required = required
        self._witness = witness
        self._fetch_seconds: float | None = None
        """The duration of the last fetch of this process."""
        self._redis_pause_until = -1.0
        self._looked_at = b""
        """The tag of the last record that `look` has read."""
        self._log = get_logger("credentials")
        self.stats = stats

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Adopt the token of the fleet, or fetch one for it.

        Raises:
            TokenFetchError: The fetch failed, here or in other processes.
        """
        if self._clock() >= self._redis_pause_until:
            flight = _Flight(known, math.inf if self._required else REDIS_SECONDS)
            try:
                return await self._obtain(flight, fetch)
            except StoreUnavailable as error:
                self._redis_pause_until = self._clock() + REDIS_PAUSE_SECONDS
                self.stats.store_errors += 1
                self._log.warning("token_store_unavailable", reason=str(error), required=self._required)
        if self._required:
            raise TokenFetchError("the shared token store cannot be reached")
        started = self._clock()
        return known.next_token(await fetch(), started, self._policy.uniform, LEADER_FRACTION)

    async def look(self, known: FlightContext) -> Token | None:
        """Return the token of the fleet if it is better than the current one. Each record is read once."""
        if self._clock() < self._redis_pause_until:
            return None
        flight = _Flight(known, REDIS_SECONDS)
        flight.seen = self._looked_at
        try:
            return await self._look(flight)
        except StoreUnavailable:
            return None
        finally:
            self._looked_at = flight.seen

    async def _obtain(self, flight: _Flight, fetch: Fetch) -> Token:
        waiting_since = self._clock()
        try:
            found = await self._acquire(flight)
        except asyncio.CancelledError:
            await self._release(flight)  # Redis may have given the lease already.
            raise
        finally:
            self.stats.lease_wait_seconds += self._clock() - waiting_since
        if isinstance(found, Token):
            self.stats.adopted += 1
            return found
        return await self._fetch(flight, found, fetch)

    # --- the token of the fleet, or the lease to fetch one

    async def _acquire(self, flight: _Flight) -> Token | Lease:
        while True:
            read_at, hold = self._clock(), self._hold()
            reply = await self._run(
                flight, ACQUIRE, flight.owner, flight.seen, _ms(hold),
                "" if self._policy.exclusive else _ms(min(SUCCESSOR_SECONDS, hold)), secrets.token_hex(8),
                _ms(UNUSED_SECONDS), _ms(hold + self._policy.fetch_timeout), int(flight.known.failures > 0),
                _ms(LEASE_SECONDS_MAX), _ms(FAILURE_SECONDS_MAX), _ms(2 * BUSY_SECONDS),
            )  # fmt: skip
            match reply:
                case [b"record", bytes(raw), int(left)]:
                    found = self._open(flight, raw, read_at, left / 1000)
                    if found is not None:
                        return found
                case [b"failure", bytes(why), int(left)]:
                    if why.startswith(b"1 "):
                        raise self._fleet_failure(why[2:], left / 1000)
                case [b"lease", bytes(epoch), int(number), int(held), int(failures)]:
                    return Lease(flight.owner, epoch, number, held / 1000, failures)
            await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))

    def _hold(self) -> float:
        """Return the duration of a lease in seconds."""
        if self._policy.exclusive or self._fetch_seconds is None:
            return self._policy.lease_seconds
        wanted = max(self._fetch_seconds + HOLD_MARGIN_SECONDS, HOLD_SECONDS_MIN)
        return min(wanted, self._policy.lease_seconds)

    def _open(self, flight: _Flight, raw: bytes, read_at: float, remaining: float) -> Token | None:
        """Return the token of a record if it is better than the current one."""
        flight.seen = raw.partition(b" ")[0]
        fetched = read_record(raw, self._seal, self._keys[0])
        if fetched is None:
            self._log.warning("shared_token_unreadable", meaning="it is encrypted with an unknown key")
            return None
        token = adopt(
            fetched,
            read_at=read_at,
            remaining=remaining,
            generation=flight.known.generation + 1,
            uniform=self._policy.uniform,
            longest=flight.known.longest,
        )
        return token if flight.known.is_better(token, self._clock()) else None

    @staticmethod
    def _fleet_failure(kind: bytes, seconds: float) -> TokenFetchError:
        refused = kind == b"refused"
        problem = "refuses the request" if refused else "is failing"
        reason = f"the token endpoint {problem}, according to two other hosts"
        return TokenFetchError(reason, permanent=refused, retry_after=seconds)

    # --- the fetch

    async def _fetch(self, flight: _Flight, lease: Lease, fetch: Fetch) -> Token:
        started = self._clock()
        fetching = self._tasks.start(_awaited(fetch), name="token-fetch")
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
            except TokenFetchError as error:
                failure = await self._failed(flight, lease, error)
                ended = True
                raise failure from error
            self._fetch_seconds = self._clock() - started
            token = await self._store(flight, lease, fetched, started)
            ended = True
            return token
        finally:
            # The flight must not wait for these tasks.
            self._tasks.drop(watching)
            if not fetching.done():
                self._tasks.drop(fetching)
            if not ended:
                await self._release(flight)

    async def _release(self, flight: _Flight) -> None:
        """Let others fetch at once, after a flight that was cancelled."""
        with contextlib.suppress(StoreUnavailable):
            await self._run(flight, RELEASE, flight.owner)

    async def _keep(self, flight: _Flight, lease: Lease) -> None:
        """Renew the lease until the time limit of the fetch."""
        pause = RENEW_FRACTION * lease.seconds
        for _ in range(math.ceil(self._policy.fetch_timeout / pause)):
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable):  # the next renewal may be in time
                if not await self._run(flight, KEEP, lease.owner, _ms(lease.seconds)):
                    return  # the lease has expired, but the fence protects the record

    async def _watch(self, flight: _Flight, lease: Lease) -> Token | None:
        """Return the token of another process that was faster after the lease expired."""
        await asyncio.sleep(lease.seconds)
        with contextlib.suppress(StoreUnavailable):
            for _ in range(math.ceil(self._policy.fetch_timeout / LOOK_SECONDS)):
                if (found := await self._look(flight)) is not None:
                    return found
                await asyncio.sleep(LOOK_SECONDS)
        return None

    async def _look(self, flight: _Flight) -> Token | None:
        read_at = self._clock()
        match await self._run(flight, LOOK, flight.owner, flight.seen):
            case [bytes(raw), int(remaining)]:
                return self._open(flight, raw, read_at, remaining / 1000)
        return None

    async def _store(self, flight: _Flight, lease: Lease, fetched: FetchedToken, started: float) -> Token:
        token = flight.known.next_token(fetched, started, self._policy.uniform, LEADER_FRACTION)
        left = started + record_life(fetched) - self._clock()
        if left <= 0:
            return token
        sealed = write_record(fetched, self._seal, self._keys[0])
        read_at = self._clock()
        try:
            reply = await self._run(
                flight, STORE, lease.owner, lease.number, lease.epoch, sealed, _ms(left), _ms(UNUSED_SECONDS)
            )
        except StoreUnavailable as error:  # this process can use the token anyway
            self.stats.store_errors += 1
            self._log.warning("token_not_shared", reason=str(error))
            return token
        match reply:
            case [bytes(raw), int(remaining)]:
                self._log.warning("token_not_shared", reason="there is a later one", number=lease.number)
                # If a new token revokes the previous one, the later fetch has revoked this token.
                return self._open(flight, raw, read_at, remaining / 1000) or token
        return token

    async def _failed(self, flight: _Flight, lease: Lease, error: TokenFetchError) -> TokenFetchError:
        """Release the lease after a failed fetch, and return the error for this process."""
        known = flight.known
        remaining = None if known.current is None else known.current.expires_at - self._clock()
        failures = max(lease.failures, known.failures) + 1
        # Each member asks an issuer that rejects them, so the failures of all say little about one member's.
        own = known.failures + 1 if error.permanent else failures
        delay = retry_delay(error, own, remaining, self._policy.uniform)
        confirmed = False
        try:
            if error.has_reply:
                kind, brief = ("refused", 0.0) if error.permanent else ("busy", min(BUSY_SECONDS, delay))
                pauses = _ms(delay), _ms(brief), _ms(WITNESS_SECONDS + delay)
                confirmed = bool(await self._run(flight, FAIL, lease.owner, self._witness, kind, *pauses))
            else:
                await self._run(flight, RELEASE, lease.owner)
        except StoreUnavailable:
            pass  # the lease expires
        # Other processes should try first, because this one has just failed.
        return TokenFetchError(
            error.reason,
            permanent=error.permanent,
            retry_after=delay + BUSY_SECONDS / 2,
            has_reply=error.has_reply,
            certain=error.certain and (confirmed or failures >= CERTAIN_FAILURES),
        )

    async def _run(self, flight: _Flight, script: str, *arguments: str | int | bytes) -> object:
        """Run a script within the remaining Redis time of the flight.

        Raises:
            StoreUnavailable: There was no reply in time, or an error, or no time is left.
        """
        if flight.seconds_left <= 0:
            raise StoreUnavailable("too slow for this flight")
        started = self._clock()
        try:
            within = min(flight.seconds_left, self._redis.timeout)
            return await self._redis.run_script(script, self._keys, *arguments, within=within)
        finally:
            flight.seconds_left -= self._clock() - started


class Fleet:
    """Builds the sharing of all credentials of one process.

    Args:
        settings: The `[shared]` section.
        redis: The connection to the Redis of that section.
        host: Identifies the host; by default this one. All processes of a host, and all credentials of a
            process, count as one witness of the issuer's failures: the same firewall may answer all of them.
    """

    def __init__(self, settings: Shared, redis: RedisConnection, host: bytes | None = None) -> None:
        self._redis = redis
        self._tasks = OwnedTasks()
        self._seal = Seal(settings.keys, settings.naming_key)
        self._witness = self._seal.name(b"host " + (this_host() if host is None else host))

    def sharing(
        self, identity: bytes, policy: RefreshPolicy, stats: TokenStats, *, required: bool
    ) -> FleetSharing:
        """Build the sharing of one credential.

        Args:
            identity: See `record.identity_of`.
            policy: Time limits, the clock and the random source.
            stats: Counters.
            required: Whether a token may be fetched only if Redis is available.
        """
        record = self._seal.name(identity)
        return FleetSharing(
            record, self._redis, self._tasks, self._seal, policy, stats,
            witness=self._witness, required=required,
        )  # fmt: skip

    async def close(self) -> None:
        """Stop the tasks that still accompany fetches."""
        await self._tasks.close()


def this_host() -> bytes:
    """Return what identifies this host, or this container, among those with the same Redis."""
    boot = _BOOT_ID.read_bytes() if _BOOT_ID.exists() else b""
    return socket.gethostname().encode() + b" " + boot


async def _awaited(fetch: Fetch) -> FetchedToken:
    return await fetch()


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 0)

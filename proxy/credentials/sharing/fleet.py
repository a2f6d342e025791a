"""A fleet that shares a token over Redis: one process fetches, the others adopt.

Redis is asked by flights alone, never for a request that finds a token in its own process. What lies there is
sealed; how long a token still lives is told by Redis' own clock, so that the hosts' clocks do not matter.
"""

import asyncio
import contextlib
import math
import secrets
from typing import Any, Final, NamedTuple

from proxy.credentials.credential import Credential, FetchedToken, mint
from proxy.credentials.refresh_policy import RefreshPolicy, retry_delay
from proxy.credentials.sharing import Fetch, Known
from proxy.credentials.sharing.record import adopt, read_record, write_record
from proxy.credentials.sharing.scripts import FAIL, KEEP, LET_GO, LOOK, STORE, TAKE
from proxy.credentials.sharing.seal import Seal
from proxy.credentials.sources import TokenFetchError, as_fetch_error
from proxy.credentials.tasks import OwnedTasks
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable
from proxy.settings import Shared
from proxy.telemetry import TokenStats, get_logger

RENEW_FRACTION: Final = 0.3
"""A holder that lives renews its lease in time, also if one renewal goes lost."""
POLL_SECONDS: Final = (0.05, 0.15)
UNUSED_SECONDS: Final = 40 * 86400
"""A counter that nobody raised for so long is forgotten."""
REST_SECONDS: Final = 5.0
"""After a failure Redis is left alone for so long, or every flight would wait for it in vain."""
_PERMANENT: Final = b"permanent"
_PASSING: Final = b"passing"


class Lease(NamedTuple):
    """The right to fetch: the number that the fetched token will bear, and the epoch that it counts in."""

    owner: str
    number: int
    epoch: bytes


class FleetSharing:
    """Shares one credential between all processes whose recipe and keys are the same.

    Args:
        record: The name of its record in Redis, the same for the whole fleet and no other recipe.
        redis: The service's connection to Redis.
        tasks: Hold what runs beside a fetch.
        seal: Seals what lies there.
        policy: Clock, dice and bounds.
        stats: Where it counts.
        required: Whether a token may be fetched only while Redis can be asked; else, without it, each
            process fetches for itself.
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
        self._keys = {
            # The braces keep all parts on one node of a cluster.
            part: f"{NAMESPACE}:{{{record}}}:{part}"
            for part in ("record", "failure", "lease", "counter", "epoch")
        }
        self._redis = redis
        self._tasks = tasks
        self._seal = seal
        self._policy = policy
        self._clock = policy.clock
        self._required = required
        self._lease_ms = int(policy.lease_seconds * 1000)
        self._rest_until = -1.0
        self._log = get_logger("credentials")
        self.stats = stats

    async def bring(self, fetch: Fetch, known: Known) -> Credential:
        """What the fleet has, or else what this process fetches for it.

        Raises:
            TokenFetchError: the fetch failed, here or in the process that holds the lease.
        """
        if self._clock() >= self._rest_until:
            try:
                return await self._bring_for_all(fetch, known)
            except StoreUnavailable as error:
                self._rest_until = self._clock() + REST_SECONDS
                self.stats.store_errors += 1
                self._log.warning("token_store_unavailable", reason=str(error), required=self._required)
        if self._required:
            raise TokenFetchError("the shared token store cannot be reached")
        started = self._clock()
        return self._mint(await fetch(), started, known)

    async def _bring_for_all(self, fetch: Fetch, known: Known) -> Credential:
        waiting_since = self._clock()
        try:
            while True:
                found = await self._look(known)
                if found is not None:
                    self.stats.adopted += 1
                    return found
                lease = await self._take()
                if lease is not None:
                    break
                await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))
        finally:
            self.stats.lease_wait_seconds += self._clock() - waiting_since
        return await self._fetch_for_all(fetch, known, lease)

    async def _look(self, known: Known) -> Credential | None:
        """The fleet's credential, if it is news.

        Raises:
            TokenFetchError: somebody's fetch failed just now; its back-off is everybody's.
        """
        now = self._clock()
        raw, record_ms, failure, failure_ms = await self._run(
            LOOK, [self._keys["record"], self._keys["failure"]]
        )
        if raw is not None:
            credential = self._open(raw, now, record_ms / 1000, known)
            if credential is not None and known.is_news(credential, self._clock()):
                return credential
        if failure is not None:
            raise TokenFetchError(
                "another process has just failed to fetch",
                permanent=failure == _PERMANENT,
                retry_after=failure_ms / 1000,
            )
        return None

    def _open(self, raw: bytes, asked: float, remaining: float, known: Known) -> Credential | None:
        fetched = read_record(raw, self._seal, self._keys["record"])
        if fetched is None:
            self._log.warning("shared_token_unreadable", meaning="sealed with a key that is not known here")
            return None
        return adopt(
            fetched,
            asked=asked,
            remaining=remaining,
            generation=known.generation + 1,
            uniform=self._policy.uniform,
        )

    async def _take(self) -> Lease | None:
        owner = secrets.token_hex(8)
        number, epoch, _ = await self._run(
            TAKE,
            [self._keys["lease"], self._keys["counter"], self._keys["epoch"]],
            owner, self._lease_ms, secrets.token_hex(8), UNUSED_SECONDS * 1000,
        )  # fmt: skip
        return Lease(owner, number, epoch) if number else None

    async def _fetch_for_all(self, fetch: Fetch, known: Known, lease: Lease) -> Credential:
        keeper = self._tasks.start(self._keep(lease), name="token-lease")
        try:
            # Somebody may have stored between the look and the lease.
            return await self._look(known) or await self._fetch(fetch, known, lease)
        finally:
            # The end of a flight does not depend on its keeper: it is dropped, and nobody waits for it.
            self._tasks.drop(keeper)
            with contextlib.suppress(StoreUnavailable):
                await self._run(LET_GO, [self._keys["lease"]], lease.owner)

    async def _keep(self, lease: Lease) -> None:
        """Renew the lease for as long as a fetch may take, and no longer."""
        pause = RENEW_FRACTION * self._policy.lease_seconds
        with contextlib.suppress(StoreUnavailable):  # then it lapses, and the fence keeps order
            for _ in range(math.ceil(self._policy.fetch_timeout / pause)):
                await asyncio.sleep(pause)
                await self._run(KEEP, [self._keys["lease"]], lease.owner, self._lease_ms)

    async def _run(self, script: str, keys: list[str], *arguments: str | int | bytes) -> Any:
        return await self._redis.run_script(script, keys, *arguments, within=self._redis.timeout)

    async def _fetch(self, fetch: Fetch, known: Known, lease: Lease) -> Credential:
        started = self._clock()
        try:
            fetched = await fetch()
        except Exception as error:  # whatever it is, the fleet shares its back-off
            raise await self._tell_failure(as_fetch_error(error), known) from error
        credential = self._mint(fetched, started, known)
        await self._store(fetched, credential, lease)
        return credential

    async def _store(self, fetched: FetchedToken, credential: Credential, lease: Lease) -> None:
        left_ms = int(min(credential.hard - self._clock(), UNUSED_SECONDS) * 1000)
        if left_ms <= 0:
            return
        sealed = write_record(fetched, self._seal, self._keys["record"])
        try:
            (stored,) = await self._run(
                STORE,
                [self._keys["record"], self._keys["epoch"], self._keys["failure"]],
                lease.number, lease.epoch, sealed, left_ms,
            )  # fmt: skip
        except StoreUnavailable as error:  # the token is good all the same, for this process
            self.stats.store_errors += 1
            self._log.warning("token_not_shared", reason=str(error))
            return
        if not stored:
            self._log.warning("token_not_shared", reason="a later one was there", number=lease.number)

    async def _tell_failure(self, error: TokenFetchError, known: Known) -> TokenFetchError:
        """Share the back-off, so that a fleet probes an issuer as seldom as one process."""
        remaining = None if known.current is None else known.current.hard - self._clock()
        delay = retry_delay(error, known.failures + 1, remaining, self._policy.uniform)
        kind = _PERMANENT if error.permanent else _PASSING
        with contextlib.suppress(StoreUnavailable):
            await self._run(FAIL, [self._keys["failure"]], kind, max(int(delay * 1000), 1))
        return TokenFetchError(error.reason, permanent=error.permanent, retry_after=delay)

    def _mint(self, fetched: FetchedToken, started: float, known: Known) -> Credential:
        return mint(fetched, generation=known.generation + 1, obtained=started, uniform=self._policy.uniform)


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
        """The sharing of one credential.

        Args:
            identity: See `identity.identity_of`.
            policy: Clock, dice and bounds.
            stats: Where it counts.
            required: Whether a token may be fetched only while Redis can be asked.
        """
        record = self._seal.name(identity)
        return FleetSharing(record, self._redis, self._tasks, self._seal, policy, stats, required=required)

    async def close(self) -> None:
        """Stop what still runs beside fetches."""
        await self._tasks.close()

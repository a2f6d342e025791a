"""Sharing of a token over files among the worker processes of a service: one fetches it, the others adopt it.

A kernel lock protects each fetch: the kernel releases it when its process ends. The record is encrypted
with a key that only these processes know, and contains the time of its request by the monotonic clock of
the host.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.record import Seal, read_record, write_record
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FOLLOWER_FRACTION, LEADER_FRACTION, FetchedToken, Token
from proxy.telemetry import TokenStats, get_logger

POLL_SECONDS: Final = (0.02, 0.06)
_PLACE: Final = "the folder that the workers share"


class HostSharing:
    """Shares the token of one credential between the workers of a service.

    Args:
        path: The path of the record; the lock has the same name with another suffix.
        seal: Encrypts the record.
        policy: The clock and the random source.
        stats: Counters.
    """

    def __init__(self, path: Path, seal: Seal, policy: RefreshPolicy, stats: TokenStats) -> None:
        self._path = path
        self._seal = seal
        self._policy = policy
        self._stats = stats
        self._log = get_logger("credentials")

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Adopt the token of another worker, or fetch one; without the folder, fetch one for this worker.

        Raises:
            TokenFetchError: The fetch failed. Failures are not shared.
        """
        waiting_since = self._policy.clock()
        try:
            lock = await self._take_lock()
        except OSError as error:  # a cleaner may have removed the folder
            return await self._fetch_alone(fetch, known, error)
        try:
            self._stats.lease_wait_seconds += self._policy.clock() - waiting_since
            found = self._read(known)
            if found is not None:
                self._stats.adopted += 1
                return found
            obtained = self._policy.clock()
            fetched = await fetch()
            self._write(fetched, obtained)
            return known.next_token(fetched, obtained, self._policy.uniform, LEADER_FRACTION)
        finally:
            os.close(lock)  # this releases the lock

    async def _take_lock(self) -> int:
        """Return the descriptor that holds the lock. The time limit of the flight also limits the wait.

        Raises:
            OSError: The file of the lock cannot be used.
        """
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _lock(descriptor):  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))
        except BaseException:  # also when the flight is cancelled
            os.close(descriptor)
            raise
        return descriptor

    async def _fetch_alone(self, fetch: Fetch, known: FlightContext, error: OSError) -> Token:
        required = self._policy.exclusive
        self._stats.store_errors += 1
        self._log.warning("token_store_unavailable", reason=f"{_PLACE}: {error.strerror}", required=required)
        if required:  # workers would revoke each other's tokens
            raise TokenFetchError(f"{_PLACE} cannot be used; restart the service")
        obtained = self._policy.clock()
        return known.next_token(await fetch(), obtained, self._policy.uniform)

    def _read(self, known: FlightContext) -> Token | None:
        """Return the token of the record if it is better than the current one."""
        try:
            raw = self._path.read_bytes()
            obtained = float(raw.partition(b" ")[0])
        except (OSError, ValueError):
            return None
        fetched = read_record(raw, self._seal, self._path.name)
        if fetched is None:
            return None
        token = known.next_token(fetched, obtained, self._policy.uniform, FOLLOWER_FRACTION, adopted=True)
        now = self._policy.clock()
        return token if now < token.refresh_at and known.is_better(token, now) else None

    def _write(self, fetched: FetchedToken, obtained: float) -> None:
        """Write the record. This worker can use the token even if that fails, as on a full disk."""
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(b"%r " % obtained + write_record(fetched, self._seal, self._path.name))
            new.replace(self._path)
        except OSError as error:
            self._stats.store_errors += 1
            self._log.warning("token_not_shared", reason=f"{_PLACE}: {error.strerror}")


class TokenFolder:
    """The folder in which the workers of a service share their tokens.

    Args:
        folder: The folder of the records, which only the user of the service can read.
        key: The encryption key, 32 bytes.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._seal = Seal([key])

    def sharing(self, identity: bytes, policy: RefreshPolicy, stats: TokenStats) -> HostSharing:
        """Build the sharing of one credential.

        Args:
            identity: See `record.identity_of`.
            policy: Time limits, the clock and the random source.
            stats: Counters.
        """
        return HostSharing(self._folder / self._seal.name(identity), self._seal, policy, stats)


def _lock(descriptor: int) -> bool:
    """Take the lock without waiting; return whether that succeeded."""
    import fcntl  # only on POSIX; other systems run a single worker

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Sharing of a token over files among the worker processes of a service: one fetches it, the others adopt it.

A kernel lock protects each fetch: the kernel releases it when its process ends. If its holder is stopped or
hangs instead, another worker replaces the file of the lock after a while. The record is encrypted with a key
that only these processes know, and contains the time of its request by the monotonic clock of the host.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.record import Seal, read_record, write_record
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import FOLLOWER_FRACTION, LEADER_FRACTION, FetchedToken, Token
from proxy.telemetry import TokenStats, get_logger

POLL_SECONDS: Final = (0.02, 0.06)
HOLD_SECONDS: Final = 5.0
"""How long a worker may keep the lock before another one fetches, if tokens are independent."""
HOLD_MARGIN_SECONDS: Final = 1.0
"""The same if a new token revokes the previous one, counted from the time limit of a fetch."""
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
        # A holder that is alive gives up in time.
        longest = policy.fetch_timeout + HOLD_MARGIN_SECONDS
        self._hold = longest if policy.exclusive else min(HOLD_SECONDS, longest)
        self._log = get_logger("credentials")

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Adopt the token of another worker, or fetch one; without the folder, fetch one for this worker.

        Raises:
            TokenFetchError: The fetch failed. Failures are not shared.
        """
        waiting_since = self._policy.clock()
        try:
            lock = await self._take_lock(known)
        except OSError as error:  # a cleaner may have removed the folder
            return await self._fetch_alone(fetch, known, error)
        finally:
            self._stats.lease_wait_seconds += self._policy.clock() - waiting_since
        if isinstance(lock, Token):
            self._stats.adopted += 1
            return lock
        try:
            obtained = self._policy.clock()
            fetched = await fetch()
            later = self._read(known)
            if later is not None and later.obtained > obtained:  # another worker has replaced the lock
                self._stats.adopted += 1
                return later
            self._write(fetched, obtained)
            return known.next_token(fetched, obtained, self._policy.uniform, LEADER_FRACTION)
        finally:
            os.close(lock)  # this releases the lock

    async def look(self, known: FlightContext) -> Token | None:
        """Return the token of another worker if it is better than the current one."""
        return self._read(known)

    async def _take_lock(self, known: FlightContext) -> Token | int:
        """Return the token of another worker, or the descriptor that holds the lock.

        Raises:
            OSError: The file of the lock cannot be used.
        """
        path, holder, held_since = self._path.with_suffix(".lock"), (0, 0, 0), 0.0
        while True:
            descriptor, file = _try_lock(path)
            found = self._read(known)
            if found is None and descriptor is not None:
                return descriptor
            if descriptor is not None:
                os.close(descriptor)
            if found is not None:
                return found
            now = self._policy.clock()
            if holder != (hold := (file.st_dev, file.st_ino, file.st_mtime_ns)):
                holder, held_since = hold, now
            elif now - held_since >= self._hold:
                self._log.warning("token_lock_replaced", held_s=round(now - held_since, 3))
                return _replace_lock(path)
            await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))

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
        new = self._path.with_suffix(f".new{os.getpid()}")
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


def _try_lock(path: Path) -> tuple[int | None, os.stat_result]:
    """Try to take a lock; return its descriptor if that succeeded, and the state of its file.

    Each holder sets the time of the file, so that those who wait see when the lock changes hands.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    is_ours = False
    try:
        file = os.fstat(descriptor)
        is_ours = _lock(descriptor) and _is_at(path, file)
        if is_ours:
            now = time.time_ns()
            os.utime(descriptor, ns=(now, now))
        return (descriptor if is_ours else None), file
    finally:
        if not is_ours:
            os.close(descriptor)


def _is_at(path: Path, file: os.stat_result) -> bool:
    """Whether a file is still at a path: another worker may have replaced it."""
    try:
        return os.path.samestat(path.stat(), file)
    except FileNotFoundError:
        return False


def _replace_lock(path: Path) -> int:
    """Replace the file of a lock by one that this process has locked, and return its descriptor."""
    new = path.with_suffix(f".lock{os.getpid()}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
        new.replace(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> bool:
    """Take the lock without waiting; return whether that succeeded."""
    import fcntl  # only on POSIX; other systems run a single worker

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

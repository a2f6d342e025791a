"""Sharing of a token over files among the worker processes of a service: one fetches it, the others adopt it.

A kernel lock protects each fetch: the kernel releases it when its process ends. The record is encrypted
with a key that only these processes know, and contains the time of its request by the monotonic clock of
the host.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.record import Seal, read_record, write_record
from proxy.credentials.token import FOLLOWER_FRACTION, LEADER_FRACTION, FetchedToken, Token
from proxy.telemetry import TokenStats

POLL_SECONDS: Final = (0.02, 0.06)


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

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
        """Adopt the token of another worker, or fetch one.

        Raises:
            TokenFetchError: The fetch failed. Failures are not shared.
        """
        waiting_since = self._policy.clock()
        async with self._locked():
            self._stats.lease_wait_seconds += self._policy.clock() - waiting_since
            found = self._read(known)
            if found is not None:
                self._stats.adopted += 1
                return found
            obtained = self._policy.clock()
            fetched = await fetch()
            self._write(fetched, obtained)
            return known.next_token(fetched, obtained, self._policy.uniform, LEADER_FRACTION)

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Hold the lock. The time limit of the flight also limits the wait for it."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _lock(descriptor):  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))
            yield
        finally:
            os.close(descriptor)  # this releases the lock

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
        new = self._path.with_suffix(".new")
        new.write_bytes(b"%r " % obtained + write_record(fetched, self._seal, self._path.name))
        new.replace(self._path)


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

"""The worker processes of one service on one host share a token over files: one fetches, the others adopt it.

A lock of the kernel guards each fetch: it ends with the process that holds it, however that dies. The record
is sealed with a key that only these processes know, and holds the moment of its request by the clock that
all processes of a host have in common.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from proxy.credentials.credential import FOLLOWER_FRACTION, LEADER_FRACTION, Credential, FetchedToken, mint
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sharing.record import Seal, read_record, write_record
from proxy.telemetry import TokenStats

POLL_SECONDS: Final = (0.02, 0.06)


class HostSharing:
    """Shares one credential between the workers of a service.

    Args:
        path: Of its record; the lock is beside it.
        seal: Seals the record.
        policy: Clock and dice.
        stats: Where it counts.
    """

    def __init__(self, path: Path, seal: Seal, policy: RefreshPolicy, stats: TokenStats) -> None:
        self._path = path
        self._seal = seal
        self._policy = policy
        self._stats = stats

    async def obtain(self, fetch: Fetch, known: FlightContext) -> Credential:
        """Return what another worker has fetched, or else what the source gives.

        Raises:
            TokenFetchError: the fetch failed. Each worker finds out for itself.
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
            return self._mint(fetched, obtained, known, LEADER_FRACTION)

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Hold the lock. The flight's own clock bounds the wait."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _lock(descriptor):  # noqa: ASYNC110 - another process sets no event
                await asyncio.sleep(self._policy.uniform(*POLL_SECONDS))
            yield
        finally:
            os.close(descriptor)  # which lets the lock go

    def _read(self, known: FlightContext) -> Credential | None:
        """Return the stored token if it is news. It is a small file that was just written."""
        try:
            raw = self._path.read_bytes()
            obtained = float(raw.partition(b" ")[0])
        except (OSError, ValueError):
            return None
        fetched = read_record(raw, self._seal, self._path.name)
        if fetched is None:
            return None
        credential = self._mint(fetched, obtained, known, FOLLOWER_FRACTION, adopted=True)
        now = self._policy.clock()
        return credential if now < credential.refresh_at and known.is_better(credential, now) else None

    def _write(self, fetched: FetchedToken, obtained: float) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(b"%r " % obtained + write_record(fetched, self._seal, self._path.name))
        new.replace(self._path)

    def _mint(
        self,
        fetched: FetchedToken,
        obtained: float,
        known: FlightContext,
        spread: tuple[float, float],
        *,
        adopted: bool = False,
    ) -> Credential:
        return mint(
            fetched,
            generation=known.generation + 1,
            obtained=obtained,
            uniform=self._policy.uniform,
            spread=spread,
            longest=known.longest,
            adopted=adopted,
        )


class Host:
    """What the workers of a service on one host have in common.

    Args:
        folder: For the records; only the user of the service can read it.
        key: Seals them; 32 bytes.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._seal = Seal([key])

    def sharing(self, identity: bytes, policy: RefreshPolicy, stats: TokenStats) -> HostSharing:
        """Build the sharing of one credential.

        Args:
            identity: Bytes that are the same for the same recipe, and differ for any other.
            policy: Clock, dice and bounds.
            stats: Where it counts.
        """
        return HostSharing(self._folder / self._seal.name(identity), self._seal, policy, stats)


def _lock(descriptor: int) -> bool:
    """Take the lock if nobody holds it."""
    import fcntl  # of POSIX systems; others have one worker

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Callers that wait for the flight: each has its own future and clock, and none of them owns the flight."""

import asyncio
from collections.abc import Callable

from proxy.credentials.credential import Credential
from proxy.errors import CredentialError, TokenUnavailable


class Waiters:
    """Share one outcome among any number of waiters.

    A future a waiter, never a shield around the flight: cancelling n shields takes n squared steps (40 s of a
    blocked loop for 20,000), discarding n futures takes n.

    Args:
        limit: How many may wait at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._futures: set[asyncio.Future[Credential]] = set()

    def __len__(self) -> int:
        return len(self._futures)

    async def join(self, timeout: float) -> Credential:
        """Wait for the next outcome.

        Raises:
            CredentialError: the flight failed, `timeout` seconds went by, or too many wait already.
        """
        if len(self._futures) >= self._limit:
            raise TokenUnavailable(reason="too many callers wait for a token")
        waiter: asyncio.Future[Credential] = asyncio.get_running_loop().create_future()
        self._futures.add(waiter)
        try:
            async with asyncio.timeout(max(timeout, 0)):
                return await waiter
        except TimeoutError as error:
            raise TokenUnavailable(reason="waited too long for a token") from error
        finally:
            self._futures.discard(waiter)

    def publish(self, credential: Credential) -> None:
        """Give every waiter the credential."""
        for waiter in self._take():
            waiter.set_result(credential)

    def fail(self, build: Callable[[], CredentialError]) -> None:
        """Give every waiter the failure, each an instance of its own: raising one collects a traceback."""
        for waiter in self._take():
            waiter.set_exception(build())

    def _take(self) -> list[asyncio.Future[Credential]]:
        futures, self._futures = self._futures, set()
        return [future for future in futures if not future.done()]

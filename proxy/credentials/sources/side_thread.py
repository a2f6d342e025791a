"""Run the blocking calls of vendors' SDKs, one at a time for each token source."""

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

from proxy.credentials.sources import TokenFetchError
from proxy.daemon_threads import start_call

T = TypeVar("T")


class SideThread:
    """Runs one blocking call at a time for one token source."""

    def __init__(self) -> None:
        self._last: asyncio.Future[object] | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call. A cancellation abandons the call.

        Raises:
            TokenFetchError: An abandoned call has not returned yet.
        """
        if self._last is not None and not self._last.done():
            raise TokenFetchError("the last attempt has not returned yet")
        future = start_call(call, "token-source")
        self._last = cast(asyncio.Future[object], future)
        await asyncio.wait([future])
        return future.result()

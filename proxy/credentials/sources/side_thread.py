"""Run what blocks beside the event loop, in threads that a process does not wait for when it ends.

The loop's own pool is no place for a vendor's SDK: one that hangs would keep a thread of the few that name
look-ups and files need too, and would keep the process from ending.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from proxy.credentials.sources import TokenFetchError

T = TypeVar("T")


class SideThread:
    """One blocking call at a time, for one token source."""

    def __init__(self) -> None:
        self._is_busy = False

    async def run(self, call: Callable[[], T]) -> T:
        """The outcome of a call. A caller who gives up leaves it behind.

        Raises:
            TokenFetchError: the last call, which was given up, has not come back yet.
        """
        if self._is_busy:
            raise TokenFetchError("the last attempt still hangs")
        self._is_busy = True
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def tell(method: Callable[[Any], None], value: Any) -> None:
            self._is_busy = False
            with contextlib.suppress(RuntimeError):  # the loop has ended since
                loop.call_soon_threadsafe(lambda: None if outcome.done() else method(value))

        def work() -> None:
            try:
                result = call()
            except Exception as error:  # of a thread nobody joins: it goes to whoever waits for the result
                tell(outcome.set_exception, error)
            else:
                tell(outcome.set_result, result)

        threading.Thread(target=work, name="token-source", daemon=True).start()
        return await outcome

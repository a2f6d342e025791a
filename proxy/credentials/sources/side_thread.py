"""Run blocking calls in daemon threads.

The event loop's thread pool is not suitable for vendors' SDKs: a call that hangs would occupy a thread that
name look-ups and files need, and would prevent the process from exiting.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from proxy.credentials.sources import TokenFetchError

T = TypeVar("T")


class SideThread:
    """Runs one blocking call at a time for one token source."""

    def __init__(self) -> None:
        self._is_busy = False

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call. A cancellation abandons the call.

        Raises:
            TokenFetchError: An abandoned call has not returned yet.
        """
        if self._is_busy:
            raise TokenFetchError("the last attempt has not returned yet")
        self._is_busy = True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(resolve: Callable[[], None]) -> None:
            self._is_busy = False
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if future.done() else resolve())

        def work() -> None:
            try:
                result = call()
            except Exception as error:  # nothing joins the thread, so the caller must receive any error
                deliver(partial(future.set_exception, error))
            else:
                deliver(partial(future.set_result, result))

        threading.Thread(target=work, name="token-source", daemon=True).start()
        return await future

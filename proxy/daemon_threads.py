"""Run blocking calls in daemon threads.

The event loop's own pool of threads is not suitable for calls that may hang: each would occupy a thread that
other work needs, and prevent the process from exiting.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start_call(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start a call in a new thread, and return its result as a future.

    A call cannot be cancelled: wait with `asyncio.wait`, which leaves the future alone when it is cancelled.

    Args:
        call: The call.
        name: The name of the thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(resolve: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(resolve)

    def fail(error: Exception) -> None:
        future.set_exception(error)
        future.exception()  # Nobody may be waiting any more.

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # nothing joins the thread, so the caller must receive any error
            failure = error
            deliver(lambda: fail(failure))
        else:
            deliver(lambda: future.set_result(result))

    threading.Thread(target=work, name=name, daemon=True).start()
    return future

"""Tasks that outlive the call that starts them, such as a shared fetch, and the waiters for their result."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CLOSE_SECONDS: Final = 1.0
"""How long closing waits for cancelled tasks to end."""


class OwnedTasks:
    """Starts tasks and keeps references to them until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def start(
        self, work: Coroutine[object, object, T], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine in a new task.

        Args:
            work: The coroutine.
            name: The name of the task, for debugging.
            context: The context; by default a copy of the caller's.
        """
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    def drop(task: asyncio.Task[object]) -> None:
        """Cancel a task without waiting for its end, and ignore its result."""
        task.add_done_callback(_retrieve_exception)
        task.cancel()

    async def close(self) -> None:
        """Cancel all running tasks, and wait for their end for a limited time."""
        running = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}
        for task in running:
            self.drop(task)
        if running:
            await asyncio.wait(running, timeout=CLOSE_SECONDS)


def _retrieve_exception(task: asyncio.Task[object]) -> None:
    """Retrieve the exception, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()


class Waiters(Generic[T]):
    """Callers that wait for the result of a flight, none of whom owns it.

    Each waiter has a separate future and timeout. A shield around the flight would be slower:
    cancelling n shields takes n squared steps (for 20,000, 40 s in which the loop is blocked).

    Args:
        limit: How many callers may wait.
        reject: Returns the error, for a reason, of a caller that gets no result.
    """

    def __init__(self, limit: int, reject: Callable[[str], Exception]) -> None:
        self._limit = limit
        self._reject = reject
        self._futures: set[asyncio.Future[T]] = set()

    def __len__(self) -> int:
        return len(self._futures)

    async def join(self, timeout: float) -> T:
        """Wait for the result of the flight.

        Raises:
            Exception: The flight failed, `timeout` seconds have passed, or there are too many waiters.
        """
        if len(self._futures) >= self._limit:
            raise self._reject("too many callers are waiting")
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._futures.add(waiter)
        try:
            async with asyncio.timeout(max(timeout, 0)):
                return await waiter
        except TimeoutError as error:
            raise self._reject("waited too long") from error
        finally:
            self._futures.discard(waiter)

    def publish(self, result: T) -> None:
        """Return the result to every waiter."""
        for waiter in self._take_all():
            waiter.set_result(result)

    def fail(self, build: Callable[[], Exception]) -> None:
        """Raise an error in every waiter, a new instance for each because raising one adds a traceback."""
        for waiter in self._take_all():
            waiter.set_exception(build())

    def _take_all(self) -> list[asyncio.Future[T]]:
        futures, self._futures = self._futures, set()
        return [future for future in futures if not future.done()]

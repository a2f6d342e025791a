"""Tasks that outlive the call that starts them: a shared fetch, and what runs beside it."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

CLOSE_SECONDS: Final = 1.0
"""For cancelled tasks to end. One that does not is left behind: closing never depends on it."""


class OwnedTasks:
    """Starts tasks and holds them until they end; whoever owns this closes it.

    Whoever starts a task may drop it at any time: `drop` cancels it and does not wait for its end.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(
        self, work: Coroutine[Any, Any, T], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine in a task of its own.

        Args:
            work: What runs.
            name: Of the task, for debugging.
            context: Where it runs; a copy of the caller's context by default.
        """
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    def drop(task: asyncio.Task[Any]) -> None:
        """Cancel a task whose result nobody needs any more, whatever becomes of it."""
        task.add_done_callback(_look_at_its_end)
        task.cancel()

    async def close(self) -> None:
        """Cancel all that still run, and wait for their end for a moment."""
        running = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}
        for task in running:
            self.drop(task)
        if running:
            await asyncio.wait(running, timeout=CLOSE_SECONDS)


def _look_at_its_end(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()

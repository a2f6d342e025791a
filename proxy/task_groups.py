"""Task groups whose errors are raised as they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Open a task group that raises the error of its body unwrapped, and lets its tasks end first.

    `asyncio.TaskGroup` raises an `ExceptionGroup`, which no `except ProxyError` catches, and cancels its
    tasks. Here the body has to make its tasks end, in a `finally`.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            yield group
        except Exception as error:  # raised again after the group, unwrapped
            failure = error
    if failure is not None:
        raise failure

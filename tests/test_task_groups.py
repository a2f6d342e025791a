"""A task group whose body fails: the error is raised unchanged, after the tasks have ended."""

import asyncio

import pytest

from proxy.task_groups import task_group


async def test_the_error_of_the_body_is_not_wrapped_and_comes_after_the_end_of_the_tasks() -> None:
    ended: list[str] = []

    async def end(stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(0)
        ended.append("task")

    async def body() -> None:
        async with task_group() as group:
            stop = asyncio.Event()
            group.create_task(end(stop))
            try:
                raise LookupError
            finally:
                stop.set()

    with pytest.raises(LookupError):
        await body()
    assert ended == ["task"]


async def test_a_cancellation_passes_and_cancels_the_tasks() -> None:
    cancelled: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("task")
            raise

    async def body() -> None:
        async with task_group() as group:
            group.create_task(wait())
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as outer:
        running = outer.create_task(body())
        for _ in range(3):
            await asyncio.sleep(0)
        running.cancel()
    assert running.cancelled()
    assert cancelled == ["task"]

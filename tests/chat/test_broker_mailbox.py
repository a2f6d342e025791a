"""The queue of one reader."""

import asyncio

import pytest

from proxy.chat.broker import BrokerClosed, Mailbox, SlowReader


async def test_items_are_returned_in_order() -> None:
    mailbox = Mailbox[int](5)
    for number in range(5):
        mailbox.put(number)
    assert [await mailbox.get() for _ in range(5)] == [*range(5)]


async def test_a_waiting_reader_is_woken() -> None:
    mailbox = Mailbox[int](1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(mailbox.get())
        await asyncio.sleep(0)
        mailbox.put(7)
    assert waiting.result() == 7


async def test_an_overflow_disconnects_the_reader_permanently() -> None:
    mailbox = Mailbox[int](2)
    for number in range(3):
        mailbox.put(number)
    for _ in range(2):
        with pytest.raises(SlowReader):
            await mailbox.get()
    mailbox.put(4)
    with pytest.raises(SlowReader):
        await mailbox.get()


async def test_a_closed_mailbox_returns_its_items_and_accepts_no_more() -> None:
    mailbox = Mailbox[int](2)
    mailbox.put(1)
    mailbox.close()
    mailbox.put(2)
    assert await mailbox.get() == 1
    with pytest.raises(BrokerClosed):
        await mailbox.get()


async def test_a_cancelled_reader_takes_no_item() -> None:
    mailbox = Mailbox[int](2)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(mailbox.get())
        await asyncio.sleep(0)
        mailbox.put(1)
        waiting.cancel()  # woken, and cancelled before it ran
    assert await mailbox.get() == 1

"""The request body: its size is limited, it is read with backpressure, and every wait has a timeout."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.drain import Drain
from proxy.errors import BodyTimeout, BodyTooLarge, Draining, RateLimited, ServerOverloaded
from proxy.request_body import BUFFER_BYTES, BoundedBody, HeldBytes, Holding
from proxy.settings import Limits
from tests.loopback import until
from tests.pace import PATIENCE
from tests.virtual_time import run_virtually

ALL = 1 << 40
"""More than the size of any body in these tests."""


async def feed(body: BoundedBody, *chunks: bytes) -> None:
    """Add chunks as the server does, which ends a body with an empty message."""
    for chunk in chunks:
        await body.put(chunk, last=False)
    await body.put(b"", last=True)


async def read_fed(body: BoundedBody, chunks: list[bytes], limit: int = ALL) -> bytes:
    """Read while chunks are added."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(feed(body, *chunks))
        return await body.read(limit)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_bytes_are_read_as_received_and_counted(chunks: list[bytes]) -> None:
    async def main() -> None:
        body = BoundedBody(None, None)
        assert await read_fed(body, chunks) == b"".join(chunks)
        assert body.received == sum(map(len, chunks))
        assert body.finished

    run_virtually(main)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.integers(0, 300))
def test_a_streamed_body_fails_exactly_when_it_passes_the_limit(chunks: list[bytes], limit: int) -> None:
    async def main() -> None:
        body = BoundedBody(None, limit)
        await feed(body, *chunks)
        if sum(map(len, chunks)) > limit:
            with pytest.raises(BodyTooLarge, match=f"limit of {limit} bytes"):
                await body.read(ALL)
            assert not body.finished
        else:
            assert await body.read(ALL) == b"".join(chunks)

    run_virtually(main)


async def test_the_limit_counts_what_has_been_read_already() -> None:
    body = BoundedBody(None, 100)
    for _ in range(10):
        await body.put(b"x" * 10, last=False)
        assert await anext(body) == b"x" * 10
    await body.put(b"x", last=False)
    with pytest.raises(BodyTooLarge):
        await anext(body)


async def test_bytes_after_the_limit_are_not_kept() -> None:
    body = BoundedBody(None, 100)
    for _ in range(1000):
        await body.put(b"x" * 60, last=False)
    assert body.unread <= 100


@pytest.mark.parametrize(("announced", "refused"), [(99, False), (100, False), (101, True)])
async def test_an_announced_length_over_the_limit_fails_before_the_first_byte(
    announced: int, *, refused: bool
) -> None:
    body = BoundedBody(announced, 100)
    assert (body.failure is not None) == refused
    if refused:
        with pytest.raises(BodyTooLarge):
            await anext(body)


async def test_a_waiting_reader_gets_the_error_of_the_limit() -> None:
    body = BoundedBody(None, 10)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        reader = group.create_task(anext_or_error(body))
        await asyncio.sleep(0)
        await body.put(b"x" * 11, last=False)
        assert isinstance(await reader, BodyTooLarge)


async def anext_or_error(body: BoundedBody) -> bytes | Exception:
    """Return the next chunk, or the reason why there is none."""
    try:
        return await anext(body)
    except Exception as error:
        return error


async def test_the_server_waits_until_the_reader_has_read_the_buffer() -> None:
    body, steps = BoundedBody(None, None), list[str]()

    async def server() -> None:
        await body.put(b"x" * BUFFER_BYTES, last=False)
        steps.append("full")
        await body.put(b"y", last=False)
        steps.append("room")

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        task = group.create_task(server())
        await until(lambda: body.received > BUFFER_BYTES)
        for _ in range(20):
            await asyncio.sleep(0)
        assert steps == ["full"]  # Up to the mark at once, but not more.
        assert len(await anext(body)) == BUFFER_BYTES + 1
        await task
    assert steps == ["full", "room"]


async def test_a_body_of_any_size_never_fills_the_memory() -> None:
    body, chunk, most, taken = BoundedBody(None, None), b"x" * 65536, 0, 0

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(feed(body, *[chunk] * 200))
        async for piece in body:
            taken += len(piece)
            for _ in range(10):  # The reader is slow, so the server fills the buffer.
                await asyncio.sleep(0)
            most = max(most, body.unread)
    assert taken == 200 * len(chunk)
    assert BUFFER_BYTES < most <= BUFFER_BYTES + len(chunk)


async def test_the_last_chunk_is_received_without_a_wait() -> None:
    body = BoundedBody(None, None)
    async with asyncio.timeout(PATIENCE):
        await body.put(b"x" * (BUFFER_BYTES + 1), last=True)
    assert len(await body.read(ALL)) == BUFFER_BYTES + 1


async def test_a_body_is_complete_when_its_announced_length_has_arrived() -> None:
    body = BoundedBody(4, None)
    async with asyncio.timeout(PATIENCE):
        await body.put(b"wh", last=False)
        assert await anext(body) == b"wh"
        finished = [body.finished]
        await body.put(b"at", last=False)  # The server has not reported the end yet.
        assert await body.read(ALL) == b"at"
        assert [*finished, body.finished] == [False, True]
        await body.put(b"", last=True)
        assert await body.read(ALL) == b""


async def test_reading_stops_when_the_limit_is_exceeded() -> None:
    body = BoundedBody(None, None)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(feed(body, *[b"x" * 100_000] * 10))
        head = await body.read(150_000)
        assert 150_000 < len(head) < 1_000_000
        assert not body.finished
        rest = [piece async for piece in body]
    assert len(head) + sum(map(len, rest)) == 1_000_000
    assert body.finished


async def test_a_body_as_long_as_the_limit_of_a_read_is_read_to_its_end() -> None:
    body = BoundedBody(None, None)
    await feed(body, b"x" * 100)
    assert len(await body.read(100)) == 100
    assert body.finished


async def test_a_request_without_a_body_is_finished_at_once() -> None:
    body = BoundedBody(None, 10)
    await body.put(b"", last=True)
    assert await body.read(ALL) == b""
    assert body.finished


async def test_it_is_not_finished_while_something_is_unread() -> None:
    body = BoundedBody(None, None)
    await feed(body, b"x")
    before = body.finished
    await anext(body)
    assert (before, body.finished) == (False, True)
    with pytest.raises(StopAsyncIteration):
        await anext(body)


def in_virtual_time(main: Coroutine[Any, Any, float]) -> float:
    """Run in virtual time."""
    return run_virtually(lambda: main)


def test_a_body_that_stops_coming_times_out() -> None:
    async def main() -> float:
        body = BoundedBody(None, None)
        body.timeout = 60.0
        await body.put(b"x", last=False)
        assert await anext(body) == b"x"
        began = asyncio.get_running_loop().time()
        with pytest.raises(BodyTimeout):
            await anext(body)
        passed = asyncio.get_running_loop().time() - began
        assert not body.finished
        await body.put(b"late", last=True)
        with pytest.raises(BodyTimeout):  # Late chunks do not change that.
            await anext(body)
        return passed

    assert in_virtual_time(main()) == pytest.approx(60.0)


def test_each_chunk_restarts_the_timeout_of_a_slow_body() -> None:
    async def main() -> float:
        body = BoundedBody(None, None)
        body.timeout = 60.0

        async def server() -> None:
            for _ in range(10):
                await asyncio.sleep(59.0)
                await body.put(b"x", last=False)
            await body.put(b"", last=True)

        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(server())
            assert await body.read(ALL) == b"x" * 10
        return asyncio.get_running_loop().time() - began

    assert in_virtual_time(main()) == pytest.approx(590.0)


def test_without_a_timeout_the_reader_waits_as_long_as_it_takes() -> None:
    async def main() -> float:
        body = BoundedBody(None, None)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(body.read(ALL))
            await asyncio.sleep(1e6)
            await feed(body, b"x")
            assert await reader == b"x"
        return 0.0

    in_virtual_time(main())


def test_a_discarded_body_is_received_and_dropped() -> None:
    async def main() -> float:
        body = BoundedBody(None, None)
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(body, *[b"x" * BUFFER_BYTES] * 10))  # The second chunk waits for room.
            await asyncio.sleep(0)
            await body.discard(5.0)
        assert body.received == 10 * BUFFER_BYTES
        assert body.unread == 0
        return asyncio.get_running_loop().time() - began

    assert in_virtual_time(main()) == 0.0  # It ends with the body, not with the timeout.


def test_an_endless_body_is_not_discarded_indefinitely() -> None:
    async def main() -> float:
        body = BoundedBody(None, None)
        began = asyncio.get_running_loop().time()
        await body.put(b"x", last=False)
        await body.discard(5.0)
        return asyncio.get_running_loop().time() - began

    assert in_virtual_time(main()) == pytest.approx(5.0)


def test_a_rejected_body_that_fills_the_buffer_does_not_block_its_server() -> None:
    async def main() -> float:
        body = BoundedBody(None, 2 * BUFFER_BYTES)
        async with asyncio.TaskGroup() as group:
            server = group.create_task(feed(body, *[b"x" * (BUFFER_BYTES + 1)] * 3))
            await asyncio.sleep(0)
            assert not server.done()  # The first chunk fills the buffer.
            await body.discard(5.0)
            assert server.done()
        with pytest.raises(BodyTooLarge):
            await anext(body)
        return 0.0

    in_virtual_time(main())


async def test_a_body_that_is_awaited_whole_may_be_larger_than_the_buffer() -> None:
    body, chunks = BoundedBody(None, None), [b"x" * 100_000] * 10
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(feed(body, *chunks))
        assert await body == b"".join(chunks)
    assert await body == b"".join(chunks)  # It stays available.


async def test_a_body_that_is_awaited_whole_keeps_to_the_limit() -> None:
    body = BoundedBody(None, 10)
    await feed(body, b"x" * 6, b"x" * 6)
    with pytest.raises(BodyTooLarge):
        await body


LIMITS = Limits(total_held_bytes=100, held_bytes_per_caller=60)


def test_held_bytes_are_bounded_by_caller_and_in_total() -> None:
    held = HeldBytes()
    first, again, other = (Holding(held, caller, LIMITS) for caller in "aab")
    first.add(40)
    again.add(20)
    with pytest.raises(RateLimited):
        again.add(1)
    other.add(40)
    with pytest.raises(ServerOverloaded) as refused:
        other.add(1)
    assert refused.value.headers["Retry-After"] == "1"
    assert held.total == 100
    again.release()
    assert (held.total, held.by_caller) == (80, {"a": 40, "b": 40})
    first.release()
    other.release()
    assert (held.total, held.by_caller) == (0, {})


def test_the_bytes_of_a_failed_request_are_released() -> None:
    held = HeldBytes()
    holding = Holding(held, "a", LIMITS)
    with pytest.raises(RateLimited):
        holding.add(61)
    holding.release()
    assert (held.total, held.by_caller) == (0, {})


async def test_every_byte_that_is_read_is_held() -> None:
    body, sizes = BoundedBody(None, None), list[int]()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(feed(body, *[b"x" * 1000] * 10))
        await body.read(ALL, sizes.append)
    assert sum(sizes) == 10_000


async def test_the_end_of_a_drain_ends_the_wait_for_a_caller_and_not_a_read_that_need_not_wait() -> None:
    drain = Drain()
    whole, partial, late = (BoundedBody(None, None) for _ in range(3))
    for body in (whole, partial, late):
        body.watch_wait = drain.watch_wait
    await feed(whole, b"all")
    await partial.put(b"some", last=False)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        reading = group.create_task(asyncio.wait_for(_draining(partial), PATIENCE))
        await until(partial.wanted.is_set)
        assert drain.running == 0
        drain.stop_all()
        assert await whole.read(ALL) == b"all"
        await _draining(late)
    assert reading.done()


async def _draining(body: BoundedBody) -> None:
    with pytest.raises(Draining):
        await body.read(ALL)

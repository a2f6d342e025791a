"""The timeouts of one exchange, in virtual time: when each starts and expires, and that no timer is left."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.errors import Draining, ProxyError, SharedTimeout, UpstreamTimeout
from proxy.settings import Timeouts
from proxy.upstream.clock import ExchangeClock
from tests.credentials.fakes import virtually
from tests.upstream.build import first_byte

NONE = Timeouts(first_byte=0, idle=0, total=0)
HOUR = 3600.0


def clock_of(*, first_byte: float = 0, idle: float = 0, total: float = 0) -> ExchangeClock:
    """Return a clock with only these timeouts."""
    return ExchangeClock(Timeouts(first_byte=first_byte, idle=idle, total=total))


def now() -> float:
    """Return the time of the loop."""
    return asyncio.get_running_loop().time()


async def expiry_of(clock: ExchangeClock) -> tuple[float, str | None]:
    """Return after how many seconds the wait for a first byte that never arrives ends, and the error."""
    begun = now()
    with pytest.raises(UpstreamTimeout) as caught:
        await first_byte(clock, asyncio.Event().wait())
    return now() - begun, caught.value.reason


class Reader:
    """A read that waits until the clock ends it, and records when."""

    def __init__(self, clock: ExchangeClock) -> None:
        self.clock = clock
        self.begun = now()
        self.errors = list[ProxyError]()
        self.times = list[float]()
        self.failed = asyncio.Event()
        clock.watch(self.fail)

    def fail(self, error: ProxyError) -> None:
        """End the read with an error, as the clock does."""
        self.errors.append(error)
        self.times.append(now() - self.begun)
        self.failed.set()

    async def outcome(self) -> tuple[float, str | None]:
        """Wait for the end of the read; return the seconds that it took, and the reason."""
        await self.failed.wait()
        assert len(self.errors) == 1
        return self.times[0], self.errors[0].reason


def has_timers() -> bool:
    """Return whether the loop still has a timer that would fire."""
    loop = asyncio.get_running_loop()
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    return any(not timer.cancelled() for timer in scheduled)


# --- the first byte


@virtually
async def test_a_silent_upstream_ends_at_the_first_byte_timeout() -> None:
    assert await expiry_of(clock_of(first_byte=120)) == (120, "no first byte in time")


@virtually
async def test_a_first_byte_in_time_is_returned_and_leaves_no_timer() -> None:
    async def answer() -> bytes:
        await asyncio.sleep(119)
        return b"x"

    clock = clock_of(first_byte=120, total=HOUR)
    assert await first_byte(clock, answer()) == b"x"
    assert not has_timers()


@virtually
async def test_the_first_byte_timeout_starts_with_the_wait_and_the_total_at_the_beginning() -> None:
    clock = clock_of(first_byte=100)
    await asyncio.sleep(50)
    assert (await expiry_of(clock))[0] == 100
    clock = clock_of(first_byte=100, total=120)
    await asyncio.sleep(50)
    assert (await expiry_of(clock))[0] == 70


@virtually
async def test_without_limits_the_wait_for_the_first_byte_is_endless() -> None:
    clock = ExchangeClock(NONE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000 * HOUR):
            await first_byte(clock, asyncio.Event().wait())


@virtually
async def test_a_running_upload_extends_the_first_byte_timeout() -> None:
    clock = clock_of(first_byte=10)
    begun = now()

    async def upload() -> None:
        for _ in range(20):
            await asyncio.sleep(9)
            clock.restart()
        await asyncio.Event().wait()

    with pytest.raises(UpstreamTimeout):
        await first_byte(clock, upload())
    assert now() - begun == 20 * 9 + 10


@virtually
async def test_an_upload_does_not_extend_the_total_timeout() -> None:
    clock = clock_of(first_byte=10, total=50)
    begun = now()

    async def upload() -> None:
        while True:
            await asyncio.sleep(9)
            clock.restart()

    with pytest.raises(UpstreamTimeout):
        await first_byte(clock, upload())
    assert now() - begun == 50


@pytest.mark.parametrize(
    ("before", "others", "first_byte_timeout", "error"),
    [
        (0, 0, 0, UpstreamTimeout),
        (0, 4, 0, UpstreamTimeout),  # too little to matter
        (0, 46, 0, SharedTimeout),
        (0, 200, 0, SharedTimeout),  # the others still use up the time when it is over
        (46, 0, 0, SharedTimeout),
        (4, 4, 0, SharedTimeout),
        (0, 80, 10, UpstreamTimeout),  # the upstream had the whole of the first-byte timeout
    ],
)
def test_a_total_timeout_blames_the_upstream_only_for_its_own_time(
    before: float, others: float, first_byte_timeout: float, error: type[ProxyError]
) -> None:
    """Before the attempt, another upstream was tried; within it, a caller uploads or a token is fetched."""

    @virtually
    async def end() -> None:
        begun = now()
        await asyncio.sleep(before)
        total = 100 if first_byte_timeout else 50
        clock = ExchangeClock(Timeouts(first_byte=first_byte_timeout, idle=0, total=total), begun)

        async def wait_for_others() -> None:
            clock.suspend()
            await asyncio.sleep(others)
            clock.restart()
            await asyncio.Event().wait()

        with pytest.raises(UpstreamTimeout) as caught:
            await first_byte(clock, wait_for_others())
        assert type(caught.value) is error
        assert now() - begun == (others + first_byte_timeout if first_byte_timeout else total)

    end()


@virtually
async def test_an_upload_outside_the_wait_extends_nothing() -> None:
    clock = clock_of(first_byte=10)
    clock.restart()
    assert (await expiry_of(clock))[0] == 10
    clock.restart()
    assert not has_timers()


@virtually
async def test_an_upload_that_continues_while_the_wait_ends_changes_nothing() -> None:
    clock = clock_of(first_byte=10)

    async def upload() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            clock.restart()

    with pytest.raises(UpstreamTimeout):
        await first_byte(clock, upload())


@virtually
async def test_an_error_of_the_wait_itself_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await first_byte(clock_of(first_byte=10), fail())
    assert not has_timers()


# --- the gaps


@virtually
async def test_the_gap_is_measured_from_the_beginning_of_the_current_wait() -> None:
    clock = clock_of(idle=60)
    reader = Reader(clock)
    for _ in range(10):  # waits of 59 s each: a timer from the first would fire in the second
        clock.start_waiting()
        await asyncio.sleep(59)
        clock.stop_waiting()
    await asyncio.sleep(7)
    clock.start_waiting()
    assert await reader.outcome() == (10 * 59 + 7 + 60, "silence in the middle of the response")


@virtually
async def test_the_time_of_the_caller_is_not_a_gap() -> None:
    clock = clock_of(idle=60)
    reader = Reader(clock)
    clock.start_waiting()
    clock.stop_waiting()
    await asyncio.sleep(10 * HOUR)  # the caller reads slowly
    assert reader.errors == []
    clock.start_waiting()
    assert await reader.outcome() == (10 * HOUR + 60, "silence in the middle of the response")


@virtually
async def test_a_gap_of_exactly_the_limit_is_too_long() -> None:
    clock = clock_of(idle=60)
    reader = Reader(clock)
    clock.start_waiting()
    await asyncio.sleep(59.999)
    assert reader.errors == []
    assert (await reader.outcome())[0] == 60


@virtually
async def test_without_an_idle_timeout_silence_is_allowed() -> None:
    clock = clock_of(total=10 * HOUR)
    reader = Reader(clock)
    clock.start_waiting()
    assert await reader.outcome() == (10 * HOUR, "the whole exchange took too long")


@pytest.mark.parametrize("waits", [True, False], ids=["the upstream", "the caller"])
def test_the_total_timeout_ends_any_wait(waits: bool) -> None:  # noqa: FBT001
    @virtually
    async def end() -> None:
        clock = clock_of(idle=60, total=100)
        await asyncio.sleep(30)
        reader = Reader(clock)
        clock.start_waiting()
        await asyncio.sleep(45)
        clock.stop_waiting()
        if waits:
            clock.start_waiting()
        assert await reader.outcome() == (70, "the whole exchange took too long")

    end()


@virtually
async def test_without_limits_no_timer_is_set() -> None:
    clock = ExchangeClock(NONE)
    Reader(clock)
    clock.start_waiting()
    assert not has_timers()


@virtually
async def test_an_event_needs_no_timer() -> None:
    clock = clock_of(idle=60)
    Reader(clock)
    before = clock._timer
    for _ in range(1000):
        clock.start_waiting()
        clock.stop_waiting()
    assert clock._timer is before
    clock.close()


@virtually
async def test_a_closed_clock_leaves_no_timer_and_never_fails() -> None:
    clock = clock_of(idle=60, total=100)
    reader = Reader(clock)
    clock.start_waiting()
    await asyncio.sleep(59)
    clock.close()
    assert not has_timers()
    clock.close()
    await asyncio.sleep(HOUR)
    assert reader.errors == []


# --- the word to stop


@virtually
async def test_a_stop_ends_the_wait_for_the_first_byte_at_once() -> None:
    clock = clock_of(first_byte=120)
    begun = now()
    asyncio.get_running_loop().call_later(5, clock.stop)
    with pytest.raises(Draining):
        await first_byte(clock, asyncio.Event().wait())
    assert now() - begun == 5


@virtually
async def test_a_stop_ends_an_unbounded_wait_too() -> None:
    clock = ExchangeClock(NONE)
    asyncio.get_running_loop().call_later(5, clock.stop)
    with pytest.raises(Draining):
        await first_byte(clock, asyncio.Event().wait())


@virtually
async def test_a_stop_before_the_wait_prevents_it() -> None:
    clock = clock_of(first_byte=120)
    begun = now()
    clock.stop()
    with pytest.raises(Draining):
        await first_byte(clock, asyncio.Event().wait())
    assert now() == begun


@virtually
async def test_an_upload_does_not_delay_a_stop() -> None:
    clock = clock_of(first_byte=120)
    begun = now()
    loop = asyncio.get_running_loop()
    loop.call_later(5, clock.stop)
    loop.call_later(5, clock.restart)
    with pytest.raises(Draining):
        await first_byte(clock, asyncio.Event().wait())
    assert now() - begun == 5


@virtually
async def test_a_stop_after_the_first_byte_fails_the_read() -> None:
    clock = clock_of(idle=60)
    reader = Reader(clock)
    clock.stop()
    assert [type(error) for error in reader.errors] == [Draining]
    clock.close()
    assert not has_timers()


@virtually
async def test_a_stop_between_first_byte_and_watch_fails_the_first_read() -> None:
    async def answer() -> bytes:
        return b"x"

    clock = clock_of(first_byte=120)
    assert await first_byte(clock, answer()) == b"x"
    clock.stop()
    assert [type(error) for error in Reader(clock).errors] == [Draining]


@pytest.mark.parametrize(
    "end", [lambda clock: None, ExchangeClock.stop], ids=["by the clock", "by an earlier stop"]
)
def test_a_stop_while_the_wait_is_being_ended_disturbs_nothing(end: Callable[[ExchangeClock], None]) -> None:
    @virtually
    async def run() -> None:
        clock = clock_of(first_byte=10)

        async def slow_to_leave() -> None:
            try:
                end_soon = asyncio.get_running_loop().call_soon(end, clock)
                await asyncio.Event().wait()
            finally:
                end_soon.cancel()
                await asyncio.sleep(1)  # closes its connection
                clock.stop()

        with pytest.raises(Draining):
            await first_byte(clock, slow_to_leave())

    run()

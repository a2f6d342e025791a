"""Measure how the cost of a function grows with its input."""

import gc
import hashlib
import math
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from tests.pace import slowness

KIB: Final = 1 << 10
MIB: Final = 1 << 20
SECONDS_PER_MIB: Final = 0.05
"""How long an input may block the event loop of a quiet machine."""
_SECONDS_OF_OVERHEAD: Final = 0.01
_NOISE: Final = 3.0
"""How much the time of two runs may differ because of caches and clock rates."""
_RUNS_MAX: Final = 10
_SECONDS_THAT_COUNT: Final = 0.001
"""Shorter times are not compared, because a garbage collection takes longer."""
_ALLOCATED_MAX: Final = MIB
"""What a function may allocate at the limit whatever the size of its input."""
_STEPS: Final = 2
"""Each takes four times the input; in two, a quadratic cost grows sixteen times as fast as a linear one."""
_ROUNDS: Final = 4
FACTOR: Final = 4
"""How much larger the larger of two requests is."""
_GROWTH_MAX: Final = 6.7
"""The growth of the CPU time where a request grows by `FACTOR`: 4 and noise. A quadratic cost grows by 16."""

UNITS: Final = (
    b' ', b'\t', b'\n', b'\r', b'\r\n', b'\n\n', b'\r\r', b'a', b'0', b'-', b'.', b',', b':', b';', b'=',
    b'/', b'%', b'%2F', b'&', b'?', b'#', b'\\', b'\\\\', b'\\n', b'\\u00e9', b'\\ud83d\\ude00', b'"',
    b'"",', b'\\"', b'[', b']', b'[],', b'{', b'}', b'{},', b'[{', b'{"a":', b'"a":1,', b'null,', b'true,',
    b'1,', b'-0.5e1,', b'<', b'<a ', b'</', b'<!--', b'&amp;', b'`', b'```\n', b'*', b'**a', b'_', b'~',
    b'$', b'$$\n', b'\\(', b'\\[', b'|', b'|-|\n', b'> ', b'- ', b'1. ', b'# ', b'![', b'](', b'[a](',
    b'[^1]', b'\xff', b'\xe4\xbd\xa0', b'\xf0\x9f\x98\x80', b'\x00', b'\x1b[', b'data: x\n', b'data:\n\n',
    b': c\n\n', b'data: {"a":1}\n\n', b'data: [DONE]\n\n', b'event: a\n', b'id\n', b'name= ', b'name="',
    b'model', b'"model":', b'"model":"",', b'"stream":1,', b'"usage":{', b'"error":', b'"finish_reason" ',
    b'--b\r\n', b'\r\n--b', b'--b\r\na:b\r\n\r\n', b'<think>', b'</think>', b'<thi', b'https://',
    b'bearer ',
)  # fmt: skip
"""Inputs that are hard for parsers when repeated."""


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    """Split data into pieces, as a connection delivers it."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def assert_linear(
    run: Callable[[bytes], object],
    units: Iterable[bytes] = UNITS,
    *,
    before: bytes = b"",
    after: bytes = b"",
    limit: int,
    memory: float,
    seconds_per_mib: float = SECONDS_PER_MIB,
) -> None:
    """Run a function on inputs of repeated units, from about 1 KiB in steps of four times up to the limit.

    Args:
        run: The function.
        units: The inputs to repeat, one at a time.
        before: The beginning of each input.
        after: The end of each input.
        limit: The size of the largest input.
        memory: How many times the size of its input the function may allocate.
        seconds_per_mib: How long the function may take.
    """
    gc.freeze()  # As the service does, so that the collector skips existing objects.
    for unit in units:
        best: list[float] = []
        for size in _sizes(limit):
            data = before + unit * (size // len(unit)) + after
            allowed = _NOISE * (_SECONDS_OF_OVERHEAD + seconds_per_mib * size / MIB)
            if len(best) >= _STEPS and best[-_STEPS] >= _SECONDS_THAT_COUNT:
                growth = _NOISE * 4**_STEPS * best[-_STEPS] + _SECONDS_OF_OVERHEAD
                allowed = min(allowed, growth)
            best.append(best_seconds(run, data, allowed))
            assert best[-1] <= allowed, f"{size} bytes of {unit!r} take more than {allowed:.3f} s: {best}"
        _assert_memory(run, unit, before, after, limit, memory)


def _assert_memory(
    run: Callable[[bytes], object], unit: bytes, before: bytes, after: bytes, limit: int, memory: float
) -> None:
    """Measure at the limit only if a quarter of it takes more than its share, because tracing is slow."""
    for size, allowed in ((limit // 4, _ALLOCATED_MAX // 4), (limit, _ALLOCATED_MAX)):
        data = before + unit * (size // len(unit)) + after
        held = _allocated(run, data)
        if held <= memory * len(data) + allowed:
            return
    raise AssertionError(f"{len(data)} bytes of {unit!r} allocate {held} bytes")


def _sizes(limit: int) -> list[int]:
    steps = range((limit // KIB).bit_length() // 2, -1, -1)
    return [size for step in steps if (size := limit >> 2 * step) >= KIB]


def best_seconds(run: Callable[[bytes], object], data: bytes, allowed: float) -> float:
    """Return the shortest time of several runs, since a busy machine slows down only some of them.

    A time above `allowed` is converted into that of a quiet machine, by fixed work beside the run.
    """
    best = math.inf
    for _ in range(_RUNS_MAX):
        began = time.thread_time()
        run(data)
        seconds = time.thread_time() - began
        best = min(best, seconds if seconds <= allowed else seconds / slowness())
        if best <= allowed:
            break
    return best


def _allocated(run: Callable[[bytes], object], data: bytes) -> int:
    tracemalloc.start()
    try:
        run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def assert_linear_requests(run: Callable[[int], Awaitable[None]], size: int) -> None:
    """Compare the best CPU times of both sizes, with more rounds on a busy machine.

    Rounds alternate: a slow spell of the machine meets both.
    """
    await run(size)  # warms up
    small = large = math.inf
    for turn in range(1, _RUNS_MAX + 1):
        small = min(small, await _cpu_seconds(run, size))
        large = min(large, await _cpu_seconds(run, FACTOR * size))
        if turn >= _ROUNDS and large <= _GROWTH_MAX * small:
            return
    raise AssertionError(f"size {size}: {small:.4f} s, {FACTOR} times as large: {large:.4f} s")


async def _cpu_seconds(run: Callable[[int], Awaitable[None]], size: int) -> float:
    began = time.process_time()
    await run(size)
    return time.process_time() - began


def assert_bounded(run: Callable[[bytes], object], data: bytes, *, digests: float, memory: float) -> None:
    """Run a function on one large input, and compare its time with that of MD5 over the same bytes.

    MD5 takes about 2 ns a byte, whatever the bytes are, and is slower on a slow machine as well.

    Args:
        run: The function.
        data: The input.
        digests: How many digests of the input the function may take as long as.
        memory: How many times the size of the input the function may allocate.
    """
    gc.freeze()
    allowed = digests * min(_digest_seconds(data) for _ in range(_ROUNDS)) + _SECONDS_OF_OVERHEAD
    seconds = best_seconds(run, data, allowed)
    assert seconds <= allowed, f"{seconds:.3f} s for {data[:80]!r}, more than {allowed:.3f} s"
    held = _allocated(run, data)
    assert held <= memory * len(data) + _ALLOCATED_MAX, f"{held / len(data):.1f} times {data[:80]!r}"


def _digest_seconds(data: bytes) -> float:
    began = time.thread_time()
    hashlib.md5(data, usedforsecurity=False)
    return time.thread_time() - began

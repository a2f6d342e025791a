"""A WebSocket in both directions: messages, secrets, usage, and how a close reaches the other side."""

import asyncio
import json
from collections.abc import Callable
from typing import cast

import httpx2
import msgspec
import pytest

from proxy.errors import Draining, ModelForbidden, UpstreamTimeout
from proxy.request_body import HeldBytes, Holding
from proxy.settings import Limits, Timeouts
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.duplex import Duplex
from proxy.upstream.websocket import ArrivingMessages
from proxy.wire.websocket import (
    GOING_AWAY,
    INTERNAL,
    LOST,
    NORMAL,
    POLICY,
    TRY_AGAIN_LATER,
    Close,
    message_size,
)
from tests.credentials.fakes import virtually
from tests.upstream.build import build_record

Message = str | bytes | Close
LIMITS = Limits(total_held_bytes=90, held_bytes_per_caller=60)


class Side:
    """One side, which receives the messages of a script, and then waits until the other side closes it."""

    def __init__(self, *script: Message, lost: bool = False) -> None:
        self.script = list(script)
        self.sent: list[str | bytes] = []
        self.closed: Close | None = None
        self._lost = lost
        self._ended = asyncio.Event()

    async def receive(self, hold: Callable[[int], None] = lambda _: None) -> Message:
        """Return the next message of the script."""
        if self.script:
            message = self.script.pop(0)
            if not isinstance(message, Close):
                hold(message_size(message))
            return message
        await self._ended.wait()
        return self.closed or Close(LOST)

    async def wait_closed(self) -> Close:
        """Drop the messages of the script."""
        while not isinstance(message := await self.receive(), Close):
            pass
        return message

    async def send(self, message: str | bytes) -> None:
        """Accept a message, unless the connection is lost."""
        if self._lost:
            raise httpx2.WriteError("lost")
        self.sent.append(message)

    async def close(self, close: Close) -> None:
        """Record the first close."""
        self.closed = self.closed or close
        self._ended.set()


async def mask(data: bytes) -> bytes:
    """Mask the token."""
    return data.replace(b"canary", b"***")


def build(caller: Side, upstream: Side, timeouts: Timeouts | None = None) -> Duplex:
    """Both sides of a WebSocket."""
    clock = ExchangeClock(timeouts or Timeouts())
    holding = Holding(HeldBytes(), "caller", LIMITS)
    return Duplex(caller, cast(ArrivingMessages, upstream), clock, build_record(), holding, mask=mask)


@virtually
async def test_messages_keep_their_kind_and_order_and_the_close_its_code() -> None:
    caller = Side()
    upstream = Side("a", b"\x00", '{"usage": {"input_tokens": 3, "output_tokens": 2}}', Close(4000, "done"))
    duplex = build(caller, upstream)
    await duplex.relay()
    assert caller.sent == ["a", b"\x00", '{"usage": {"input_tokens": 3, "output_tokens": 2}}']
    assert caller.closed == Close(4000, "done")
    assert (duplex.record.events, duplex.record.bytes_down) == (3, 52)
    assert duplex.record.reason == "the upstream closed the WebSocket with 4000"


def delta(response: str) -> str:
    """A message in a response."""
    return json.dumps({"type": "response.output_audio.delta", "response_id": response, "delta": "AAAA"})


def done(response: str, usage: object = None) -> str:
    """The last message of a response."""
    return json.dumps({"type": "response.done", "response": {"id": response, "usage": usage}})


USED = {"input_tokens": 3, "output_tokens": 2}
LIMITS_UPDATED = '{"type": "rate_limits.updated", "rate_limits": []}'
NAMELESS = '{"type": "response.output_audio.delta", "delta": "AAAA"}'
NAMELESS_DONE = json.dumps({"type": "response.done", "response": {"usage": USED}})


@pytest.mark.parametrize(
    ("script", "unreported"),
    [
        ([delta("a"), done("a", USED), LIMITS_UPDATED], 0),
        ([delta("a"), done("a", USED), *[delta("b")] * 50], 50),
        ([delta("a"), done("a", USED), delta("b"), done("b", USED), delta("c")], 1),
        ([*[delta("a")] * 50, delta("b"), done("b", USED)], 50),
        ([*[delta("a")] * 50, done("a"), delta("b"), done("b", USED)], 50),
        ([NAMELESS, NAMELESS_DONE, *[NAMELESS] * 50], 50),
        ([b"AAAA", done("a", USED), *[b"AAAA"] * 50], 50),
        ([NAMELESS, done("a", USED), *[NAMELESS] * 50], 50),
        ([delta("a"), '{"usage": {"input_tokens": 1}, "response": 1}'], 1),
        ([*map(delta, map(str, range(2000))), *(done(str(each), USED) for each in range(2000))], 1000),
    ],
    ids=[
        "reported",
        "the last one is open",
        "a third one is open",
        "one of two at the same time is open",
        "a cancelled one is not reported",
        "without ids",
        "binary",
        "an id in reports alone",
        "a report without a response",
        "too many at the same time",
    ],
)
@virtually
async def test_messages_of_responses_without_reported_usage_are_counted(
    script: list[Message], unreported: int
) -> None:
    caller = Side()
    duplex = build(caller, Side(*script, Close(NORMAL)))
    await duplex.relay()
    assert len(caller.sent) == len(script)
    assert duplex.record.events_unreported == unreported


@virtually
async def test_the_callers_close_is_passed_on() -> None:
    upstream = Side()
    await build(Side("hello", Close(NORMAL, "bye")), upstream).relay()
    assert (upstream.sent, upstream.closed) == (["hello"], Close(NORMAL, "bye"))


@virtually
async def test_an_unusual_close_of_the_caller_is_logged() -> None:
    upstream = Side()
    duplex = build(Side(Close(1002, "unmasked frame")), upstream)
    await duplex.relay()
    assert upstream.closed == Close(1002, "unmasked frame")
    assert duplex.record.reason == "the caller closed the WebSocket with 1002"


@virtually
async def test_a_lost_caller_is_recorded_as_client_gone() -> None:
    upstream = Side()
    duplex = build(Side(Close(LOST)), upstream)
    await duplex.relay()
    assert upstream.closed == Close(GOING_AWAY)
    assert duplex.record.outcome == "client_gone"


@virtually
async def test_an_upstream_that_is_lost_is_an_internal_error_without_details() -> None:
    caller = Side()
    duplex = build(caller, Side("part", Close(LOST)))
    await duplex.relay()
    assert caller.closed == Close(INTERNAL, "the connection to the upstream was lost")
    assert duplex.record.outcome == "upstream_aborted"


@virtually
async def test_errors_and_close_reasons_quote_no_secret() -> None:
    caller = Side()
    upstream = Side('{"error": "canary"}', b"error canary", "canary", Close(4001, "bad canary"))
    await build(caller, upstream).relay()
    assert caller.sent == ['{"error": "***"}', b"error ***", "canary"]
    assert caller.closed == Close(4001, "bad ***")


@virtually
async def test_a_message_that_is_not_allowed_closes_both_sides_by_policy() -> None:
    async def check(message: str | bytes) -> None:
        if message == "forbidden":
            raise ModelForbidden

    caller, upstream = Side("fine", "forbidden", "never sent"), Side()
    duplex = build(caller, upstream)
    await msgspec.structs.replace(duplex, check=check).relay()
    assert upstream.sent == ["fine"]
    assert caller.closed == Close(POLICY, ModelForbidden.message)
    assert upstream.closed == Close(POLICY)
    assert duplex.record.outcome == "model_forbidden"


@pytest.mark.parametrize(
    ("others", "size", "code", "outcome"),
    [(0, 61, POLICY, "rate_limit_exceeded"), (50, 41, TRY_AGAIN_LATER, "server_overloaded")],
    ids=["by the caller", "in total"],
)
@virtually
async def test_messages_beyond_the_held_bytes_close_both_sides(
    others: int, size: int, code: int, outcome: str
) -> None:
    held = HeldBytes()
    Holding(held, "other", LIMITS).add(others)
    # Each of the first two would be too much beside the other, if it were still counted.
    caller, upstream = Side("€" * 13, b"a" * 40, "a" * size), Side()
    duplex = msgspec.structs.replace(build(caller, upstream), holding=Holding(held, "caller", LIMITS))
    await duplex.relay()
    assert upstream.sent == ["€" * 13, b"a" * 40]
    assert (caller.closed or Close(0)).code == (upstream.closed or Close(0)).code == code
    assert duplex.record.outcome == outcome
    duplex.holding.release()
    assert held.total == others


@virtually
async def test_silence_and_the_drain_close_both_sides() -> None:
    caller, upstream = Side(), Side()
    duplex = build(caller, upstream, Timeouts(total=5))
    await duplex.relay()
    assert (caller.closed or Close(0)).code == (upstream.closed or Close(0)).code == INTERNAL
    assert duplex.record.outcome == UpstreamTimeout.code
    caller, upstream = Side(), Side()
    duplex = build(caller, upstream)
    asyncio.get_running_loop().call_later(1, duplex.clock.stop)
    await duplex.relay()
    assert (caller.closed or Close(0)).code == GOING_AWAY
    assert duplex.record.outcome == Draining.code


@pytest.mark.parametrize("close", [Close(LOST), Close(4002)])
def test_an_upstream_that_stops_reading_still_sends_its_close_reason(close: Close) -> None:
    @virtually
    async def run() -> None:
        caller = Side("a", "b")
        await build(caller, Side(close, lost=True)).relay()
        assert (caller.closed or Close(0)).code == (INTERNAL if close.code == LOST else 4002)

    run()

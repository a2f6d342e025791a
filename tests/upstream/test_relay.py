"""The relay of one response: as a whole or as a stream, and how a broken one ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import pytest

from proxy.errors import Aborted, BadResponse, Draining, ProxyError, Unreachable, UpstreamTimeout
from proxy.settings import Limits, Timeouts, Upstream
from proxy.telemetry import ExchangeRecord
from proxy.upstream.client import UpstreamClient
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.health import UpstreamHealth
from proxy.upstream.relay import END_SECONDS, NO_RESPONSE_REPAIRS, Attempt, RelayedResponse
from proxy.upstream.repair_threads import RepairThreads
from proxy.upstream.repaired import INLINE_BYTES_MAX, ResponseRepairs
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.routing import Route
from proxy.wire.endpoints import Shape
from proxy.wire.headers import Headers
from proxy.wire.repairs import Call, resolve
from proxy.wire.repairs.framing import PART_EVENTS
from tests.credentials.fakes import virtually
from tests.endpoints import endpoint_of
from tests.upstream.build import build_record, build_request

T = TypeVar("T")

EVENTS: Headers = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
DONE = b"data: [DONE]\n\n"
CONTENT = b'data: {"choices": [{"delta": {"content": "word"}}]}'
FINISHED = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}'
SECRET = b"s3cret-token"


@dataclass
class FakeResponse:
    """An answer in pieces: bytes come at once, a number is a wait, an error is raised.

    The proper end is an empty piece; without one it waits for ever.
    """

    pieces: list[bytes | float | ProxyError]
    headers: Headers = field(default_factory=list)
    status: int = 200
    opened: ProxyError | None = None
    closed: int = 0
    failed: asyncio.Future[bytes] | None = None
    error: ProxyError | None = None

    async def open(self, request: UpstreamRequest, record: ExchangeRecord) -> "FakeResponse":
        """Play the client as well: return this response."""
        if self.opened is not None:
            raise self.opened
        return self

    def redact(self, data: bytes) -> bytes:
        """Mask one secret."""
        return data.replace(SECRET, b"*" * len(SECRET))

    async def mask(self, data: bytes) -> bytes:
        """Mask one secret in data of any length."""
        return self.redact(data)

    async def read(self) -> bytes:
        """Return the next piece."""
        if self.error is not None:
            raise self.error
        self.failed = asyncio.get_running_loop().create_future()
        while self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, ProxyError):
                raise piece
            if isinstance(piece, bytes):
                return piece
            await asyncio.wait({self.failed}, timeout=piece)
            if self.failed.done():
                break
        return await self.failed

    def has_arrived(self) -> bool:
        """Whether no piece is left."""
        return not self.pieces

    def fail(self, error: ProxyError) -> None:
        """Fail the current read and all later ones."""
        self.error = error
        assert self.failed is not None
        self.failed.set_exception(error)

    async def aclose(self) -> None:
        """Count the call."""
        self.closed += 1


class Relayed:
    """One exchange with a fake upstream."""

    def __init__(
        self,
        response: FakeResponse,
        *,
        endpoint: str = "chat/completions",
        timeouts: Timeouts | None = None,
        max_event_bytes: int = 1000,
        method: str = "POST",
        repairs: ResponseRepairs = NO_RESPONSE_REPAIRS,
    ) -> None:
        timeouts = timeouts or Timeouts()
        self.response = response
        self.record = build_record()
        self.clock = ExchangeClock(timeouts)
        self.closing = contextlib.AsyncExitStack()
        route = Route(
            endpoint=endpoint_of(endpoint, method),
            upstream="chat",
            client=cast(UpstreamClient, response),
            timeouts=timeouts,
            health=UpstreamHealth("chat", Upstream(base_url="http://chat.test/v1")),
        )
        limits = Limits(max_event_bytes=max_event_bytes)
        self.attempt = Attempt(build_request(method), route, self.clock, self.record, limits, repairs)

    async def answer(self) -> RelayedResponse:
        """Return the beginning of the response."""
        return await self.attempt.open(self.closing)

    async def chunks(self) -> list[bytes]:
        """Read a streamed response to its end, and close it."""
        async with self.closing:
            body = (await self.answer()).body
            assert not isinstance(body, bytes)
            return [chunk async for chunk in body]

    async def whole(self) -> bytes:
        """Return a response that must be bytes."""
        async with self.closing:
            body = (await self.answer()).body
            assert isinstance(body, bytes)
            return body


def events(*pieces: bytes | float | ProxyError, **options: object) -> FakeResponse:
    """Return an event stream in these pieces."""
    return FakeResponse(list(pieces), **{"headers": EVENTS, **options})  # type: ignore[arg-type]


def error_in(event: bytes) -> dict[str, str]:
    """Return the error of an error event."""
    assert event.endswith(b"\n\n")
    error: dict[str, str] = json.loads(event.rpartition(b"data: ")[2])["error"]
    return error


# --- the form of the response


@virtually
async def test_a_complete_response_is_forwarded_as_bytes() -> None:
    headers = [(b"Content-Length", b"4"), (b"X-Vendor", b"v"), (b"X-Request-Id", b"up-1"), (b"Server", b"s")]
    relayed = Relayed(FakeResponse([b"body"], headers, status=404))
    answer = await relayed.answer()
    assert (answer.status, answer.body) == (404, b"body")
    assert answer.headers == [
        (b"content-length", b"4"),
        (b"x-vendor", b"v"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox"),
    ]
    assert relayed.record.bytes_down == 4
    assert relayed.record.upstream_request_id == "up-1"
    assert relayed.record.first_byte_at is not None
    assert relayed.response.closed == 1  # another request can use its connection now


@virtually
async def test_an_empty_response_is_forwarded_as_bytes() -> None:
    assert await Relayed(FakeResponse([b""], [(b"Content-Length", b"999")])).whole() == b""


@virtually
async def test_a_response_without_content_has_no_length() -> None:
    answer = await Relayed(FakeResponse([b""], [(b"Content-Length", b"999")], status=204)).answer()
    assert b"content-length" not in dict(answer.headers)


@virtually
async def test_a_head_response_of_an_event_stream_needs_no_event() -> None:
    relayed = Relayed(events(b""), method="HEAD")
    answer = await relayed.answer()
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[0] == (b"content-type", EVENTS[0][1])


@pytest.mark.parametrize("headers", [[(b"Content-Length", b"8")], [(b"Transfer-Encoding", b"chunked")]])
def test_a_partial_response_is_forwarded_as_it_arrives(headers: Headers) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(FakeResponse([b"half", 5.0, b"half", b""], headers))
        assert await relayed.chunks() == [b"half", b"half"]
        assert relayed.record.bytes_down == 8
        assert relayed.record.events is None

    run()


@virtually
async def test_the_first_chunk_is_forwarded_before_the_second_is_read() -> None:
    relayed = Relayed(events(b"data: 1\n\n"))  # and then silence
    body = cast(AsyncIterator[bytes], (await relayed.answer()).body)
    assert await anext(body) == b"data: 1\n\n"
    await relayed.closing.aclose()


@virtually
async def test_only_complete_events_are_forwarded() -> None:
    relayed = Relayed(events(b"data: 1\n\nda", b"ta: ", b"2\n", b"\ndata: 3\n\ndata", b": [DONE]\n\n", b""))
    assert await relayed.chunks() == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", DONE]
    assert relayed.record.events == 4
    assert relayed.record.outcome == ""


@virtually
async def test_a_tail_is_forwarded_unchanged_at_a_proper_end() -> None:
    relayed = Relayed(events(DONE, b": not quite an ev", b""))
    assert b"".join(await relayed.chunks()) == DONE + b": not quite an ev"
    assert relayed.record.bytes_down == len(DONE) + 17


@virtually
async def test_a_stream_of_one_unfinished_line_is_forwarded_too() -> None:
    assert await Relayed(events(b"data: [DONE]", b"")).chunks() == [b"data: [DONE]"]


IDENTITY = [(b"Content-Encoding", b"identity")]


@pytest.mark.parametrize(
    "response",
    [
        events(b"\x1f\x8b half\n\nof", b"it", b"", headers=[*EVENTS, (b"Content-Encoding", b"gzip")]),
        events(
            b"\x1f\x8b half\n\nof", b"it", b"", headers=[*EVENTS, *IDENTITY, (b"Content-Encoding", b"gzip")]
        ),
        events(b"\x1f\x8b half\n\nof", b"it", b"", status=500),
        FakeResponse([b"\x1f\x8b half\n\nof", b"it", b""], [(b"Content-Type", b"text/plain")]),
    ],
    ids=["compressed", "compressed by the second header", "an error status", "another type"],
)
def test_responses_other_than_plain_event_streams_are_not_inspected(response: FakeResponse) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(response, max_event_bytes=1)
        assert await relayed.chunks() == [b"\x1f\x8b half\n\nof", b"it"]
        assert relayed.record.events is None

    run()


@pytest.mark.parametrize("coding", [b"Identity", b"", b" identity", b"identity, identity"])
def test_a_stream_that_says_it_is_not_compressed_is_inspected(coding: bytes) -> None:
    @virtually
    async def run() -> None:
        headers = [*EVENTS, (b"Content-Encoding", coding)]
        assert await Relayed(events(b"da", b"ta: [DONE]\n\n", b"", headers=headers)).chunks() == [DONE]

    run()


@virtually
async def test_an_event_stream_has_no_length_and_may_not_be_held_back() -> None:
    headers = [*EVENTS, (b"Content-Length", b"99"), (b"Cache-Control", b"max-age=9")]
    relayed = Relayed(events(DONE, b"", headers=headers))
    assert (await relayed.answer()).headers == [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store, no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox"),
    ]
    await relayed.closing.aclose()


@virtually
async def test_an_error_event_quotes_no_secret_and_other_events_do_not_change() -> None:
    error = b'data: {"error": {"message": "no: %s"}}\n\n'
    text = CONTENT.replace(b"word", SECRET) + b"\n\n"
    relayed = Relayed(events(text, error % SECRET, error % SECRET + b"data: 1\n\n", b""))
    hidden = error % (b"*" * len(SECRET))
    assert await relayed.chunks() == [text, hidden, hidden + b"data: 1\n\n"]


@virtually
async def test_an_error_at_the_very_end_quotes_no_secret() -> None:
    relayed = Relayed(events(b'event: error\ndata: {"message": "%s"}' % SECRET, DONE, b""))
    assert SECRET not in b"".join(await relayed.chunks())


# --- broken responses


@virtually
async def test_a_cut_stream_drops_its_tail_and_ends_with_one_error_event() -> None:
    relayed = Relayed(events(b"data: 1\n\ndata: ha", Aborted(reason="cut")))
    first, last = await relayed.chunks()
    assert first == b"data: 1\n\n"
    assert last.startswith(b"data: ")
    assert error_in(last)["code"] == "upstream_aborted"
    assert (relayed.record.outcome, relayed.record.reason) == ("upstream_aborted", "cut")
    assert relayed.record.bytes_down == len(first + last)


@pytest.mark.parametrize(
    ("method", "endpoint", "named"),
    [
        ("POST", "responses", True),
        ("GET", "responses/id", True),
        ("POST", "responses/compact", False),
        ("POST", "chat/completions", False),
        ("POST", "never/heard/of", False),
    ],
)
def test_only_streams_of_responses_get_a_named_error_event(
    method: str,
    endpoint: str,
    named: bool,  # noqa: FBT001
) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(events(b"data: 1\n\n", Aborted()), endpoint=endpoint, method=method)
        last = (await relayed.chunks())[-1]
        assert last.startswith(b"event: error\ndata: ") == named

    run()


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_a_stream_without_an_end_marker_has_ended_early(endpoint: str) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(events(b"data: 1\n\ndata: tail", b""), endpoint=endpoint)
        assert (await relayed.chunks())[0] == b"data: 1\n\n"
        assert relayed.record.outcome == "upstream_aborted"

    run()


@pytest.mark.parametrize(
    ("endpoint", "end"),
    [
        ("chat/completions", DONE),
        ("chat/completions", b'data: {"choices": [{"finish_reason": "stop"}]}\n\n'),
        ("responses", b"data: 2\n\n"),
        ("embeddings", b"data: 2\n\n"),
    ],
)
def test_a_complete_stream_gets_no_error_event(endpoint: str, end: bytes) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(events(b"data: 1\n\n", end, b""), endpoint=endpoint)
        assert await relayed.chunks() == [b"data: 1\n\n", end]
        assert relayed.record.outcome == ""

    run()


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
@pytest.mark.parametrize("event", [CONTENT, b"event: message\r\n" + CONTENT, b": wait\n" + CONTENT])
def test_a_stream_that_ends_inside_an_event_gives_whole_events_and_one_error(
    endpoint: str, event: bytes
) -> None:
    @virtually
    async def run() -> None:
        for cut in range(1, len(event)):
            relayed = Relayed(events(b"data: 1\n\n", event[:cut], b""), endpoint=endpoint)
            first, last = await relayed.chunks()
            assert first == b"data: 1\n\n"
            assert error_in(last)["code"] == "upstream_aborted"
            assert last.startswith(b"data: ")

    run()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_an_end_without_its_blank_line_is_whole(end: bytes) -> None:
    @virtually
    async def run() -> None:
        for last in (b"data: [DONE]", FINISHED):
            relayed = Relayed(events(CONTENT + b"\n\n", last + end, b""))
            assert b"".join(await relayed.chunks()) == CONTENT + b"\n\n" + last + end

    run()


@virtually
async def test_a_partial_event_after_the_finish_reason_is_dropped() -> None:
    finished = FINISHED + b"\n\n"
    relayed = Relayed(events(finished, b'data: {"choices": [], "usage": {"to', b""))
    assert await relayed.chunks() == [finished]
    assert relayed.record.outcome == ""


@virtually
async def test_an_error_of_the_upstream_gets_its_blank_line() -> None:
    error = b'data: {"error": {"message": "overloaded"}}'
    for end in (b"", b"\n", b"\r\n"):
        relayed = Relayed(events(CONTENT + b"\n\n", error + end, b""))
        assert await relayed.chunks() == [CONTENT + b"\n\n", error + b"\n\n"]


ERROR = b'data: {"error": {"message": "m", "code": "overloaded"}}\n\n'


@virtually
@pytest.mark.parametrize(
    "pieces", [(ERROR, DONE), (ERROR + DONE,), (ERROR.rstrip(),), (ERROR, *[CONTENT + b"\n\n"] * 9)]
)
async def test_an_error_of_the_upstream_is_the_outcome_of_the_exchange(pieces: tuple[bytes, ...]) -> None:
    relayed = Relayed(events(CONTENT + b"\n\n", *pieces, b""))
    assert b"".join(await relayed.chunks()).count(b"error") == 1
    assert (relayed.record.outcome, relayed.record.reason) == ("error_inside", "overloaded")


@virtually
async def test_the_reason_of_an_error_quotes_no_secret() -> None:
    relayed = Relayed(events(CONTENT + b"\n\n", ERROR.replace(b"overloaded", SECRET), b""))
    await relayed.chunks()
    assert relayed.record.reason == "*" * len(SECRET)


@virtually
async def test_an_event_over_the_cap_ends_the_stream_after_the_events_before_it() -> None:
    response = events(b"data: 1\n\ndata: ", b"x" * 50, b"x" * 50, b"never read")
    relayed = Relayed(response, max_event_bytes=100)
    first, last = await relayed.chunks()
    assert first == b"data: 1\n\n"
    assert error_in(last)["code"] == "upstream_aborted"
    assert relayed.record.reason == "an event was over the limit"
    assert response.pieces == [b"never read"]


@virtually
async def test_an_event_of_exactly_the_cap_passes() -> None:
    event = b"data: " + b"x" * 94
    assert len(event) == 100
    chunks = await Relayed(events(event, b"\n\n" + DONE, b""), max_event_bytes=100).chunks()
    assert b"".join(chunks) == event + b"\n\n" + DONE


@virtually
async def test_a_break_in_another_body_is_raised_so_that_the_connection_is_aborted() -> None:
    relayed = Relayed(FakeResponse([b"half", Aborted()], [(b"Content-Length", b"8")]))
    body = cast(AsyncIterator[bytes], (await relayed.answer()).body)
    assert await anext(body) == b"half"
    with pytest.raises(Aborted):
        await anext(body)
    await relayed.closing.aclose()


# --- clocks


@virtually
async def test_silence_in_mid_stream_is_sent_as_a_cut_and_logged_as_a_timeout() -> None:
    relayed = Relayed(events(b"data: 1\n\n", 59.0, b"data: 2\n\n"), timeouts=Timeouts(idle=60))
    begun = asyncio.get_running_loop().time()
    *sent, last = await relayed.chunks()
    assert sent == [b"data: 1\n\n", b"data: 2\n\n"]
    assert asyncio.get_running_loop().time() - begun == 59 + 60
    assert error_in(last)["code"] == "upstream_aborted"
    assert relayed.record.outcome == "upstream_timeout"


@pytest.mark.parametrize(
    "end", [DONE, b"data: [DONE]\r\n\r\n", b"data: [DONE]\r\r", b"data:  [DONE] \n\n", DONE + b": bye\n\n"]
)
def test_an_open_connection_after_the_end_marker_is_not_waited_for(end: bytes) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(events(b"data: 1\n\n", end), timeouts=Timeouts(idle=60))
        begun = asyncio.get_running_loop().time()
        assert await relayed.chunks() == [b"data: 1\n\n", end]
        assert asyncio.get_running_loop().time() - begun == END_SECONDS
        assert relayed.record.outcome == ""

    run()


@virtually
async def test_a_slow_caller_is_not_a_silent_upstream() -> None:
    relayed = Relayed(events(b"data: 1\n\n", DONE, b""), timeouts=Timeouts(idle=60))
    async with relayed.closing:
        body = cast(AsyncIterator[bytes], (await relayed.answer()).body)
        got = list[bytes]()
        async for chunk in body:
            got.append(chunk)
            await asyncio.sleep(3600)
    assert got == [b"data: 1\n\n", DONE]


@virtually
async def test_a_stop_ends_a_stream_with_its_own_error_event() -> None:
    relayed = Relayed(events(b"data: 1\n\n"))
    asyncio.get_running_loop().call_later(5, relayed.clock.stop)
    assert error_in((await relayed.chunks())[-1])["code"] == "shutting_down"
    assert relayed.record.outcome == "shutting_down"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (FakeResponse([], opened=Unreachable()), Unreachable),
        (FakeResponse([Aborted(reason="cut")]), BadResponse),
        (FakeResponse([121.0, b"late"]), UpstreamTimeout),
    ],
    ids=["no connection", "cut before the first byte", "silence"],
)
def test_a_failure_before_the_first_byte_has_its_own_status(
    response: FakeResponse, error: type[ProxyError]
) -> None:
    @virtually
    async def run() -> None:
        relayed = Relayed(response, timeouts=Timeouts(first_byte=120))
        with pytest.raises(error):
            await relayed.answer()
        assert relayed.record.first_byte_at is None
        await relayed.closing.aclose()
        assert response.closed == (response.opened is None)

    run()


@pytest.mark.parametrize(
    ("end", "is_charged"), [(RuntimeError(), False), (BadResponse(), False), (asyncio.CancelledError(), True)]
)
@virtually
async def test_only_a_caller_who_leaves_is_charged_for_no_response(
    end: BaseException, *, is_charged: bool
) -> None:
    class FailingThreads(RepairThreads):
        async def run(self, caller: str, call: Callable[[], T]) -> T:
            raise end

    repairs = ResponseRepairs(resolve(["ragflow"]), Call(Shape.CHAT), FailingThreads(), "a")
    body = json.dumps({"choices": [{"message": {"content": "a" * INLINE_BYTES_MAX}}]}).encode()
    relayed = Relayed(FakeResponse([body, b""]), repairs=repairs)
    with pytest.raises(type(end)):
        await relayed.answer()
    assert relayed.record.succeeded is is_charged


@virtually
async def test_a_stop_before_the_first_byte_is_an_error_and_closes_the_upstream() -> None:
    response = FakeResponse([])
    relayed = Relayed(response)
    asyncio.get_running_loop().call_later(5, relayed.clock.stop)
    with pytest.raises(Draining):
        await relayed.answer()
    await relayed.closing.aclose()
    assert response.closed == 1


@virtually
async def test_a_body_that_was_never_begun_is_closed_with_its_clock() -> None:
    relayed = Relayed(events(b"data: 1\n\n"))
    await relayed.answer()
    timer = relayed.clock._timer
    assert timer is not None
    await relayed.closing.aclose()
    assert timer.cancelled()
    assert relayed.response.closed == 1


# --- long responses and floods


class OccupiedThreads(RepairThreads):
    """Threads that repair the responses of other callers for a while."""

    async def run(self, caller: str, call: Callable[[], T]) -> T:
        """Call the function when it is its turn."""
        await asyncio.sleep(300)
        return call()


@virtually
async def test_a_wait_for_a_repair_is_not_a_wait_for_the_first_byte() -> None:
    body = json.dumps({"choices": [{"message": {"content": "a" * INLINE_BYTES_MAX}}]}).encode()
    repairs = ResponseRepairs(resolve(["ragflow"]), Call(Shape.CHAT), OccupiedThreads(), "a")
    response = FakeResponse([body, b""], headers=[(b"content-type", b"application/json")])
    relayed = Relayed(response, repairs=repairs, timeouts=Timeouts(first_byte=120))
    assert len(await relayed.whole()) >= len(body) - 100
    assert asyncio.get_running_loop().time() > 120


@pytest.mark.parametrize("streams", [True, False])
@virtually
async def test_other_tasks_run_while_a_flood_of_tiny_events_is_repaired(*, streams: bool) -> None:
    flood = [CONTENT + b"\n\n", b"\n\n" * 100 * PART_EVENTS, FINISHED + b"\n\n", DONE, b""]
    repairs = ResponseRepairs(resolve(["ragflow"]), Call(Shape.CHAT, usage_requested=False, streams=streams))
    relayed = Relayed(events(*flood), repairs=repairs)
    turns, over = 0, False

    async def count_turns() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(count_turns())
    sent = b"".join(await relayed.chunks()) if streams else await relayed.whole()
    over = True
    await counting
    assert turns >= 99  # one between two parts
    assert sent.count(b"word") == 1
    assert not streams or sent == b"".join(flood)

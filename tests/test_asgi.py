"""The connection: it owns the resources of a request, notices disconnects, and writes one line at the end."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from quart import Quart, Response, request
from quart.sessions import SecureCookieSessionInterface
from quart.wrappers.response import IterableBody
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.app_parts import EXTENSION
from proxy.asgi import Application, QuartRequest, RelaySteps, http_request, relayed
from proxy.errors import Aborted, BadResponse
from proxy.request_body import BUFFER_BYTES
from proxy.telemetry import get_logger
from proxy.telemetry.exchange_totals import ExchangeTotals
from proxy.upstream.relay import RelayedResponse
from proxy.wire.disconnect import EXTENSION as DISCONNECTS
from tests.conftest import RunProxy
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller

Message = dict[str, Any]
LAST = {"type": "http.response.body", "body": b"", "more_body": False}


@dataclass
class Exchange:
    """One request as the server sees it, and its result."""

    app: Quart
    lines: list[EventDict]
    steps: list[str] = field(default_factory=list)
    """Steps in order, which views and their clean-up append."""
    sent: list[Message] = field(default_factory=list)
    taking: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the caller reads."""
    is_gone: bool = False
    """Whether nothing can be sent to the caller any more."""
    asked: int = 0
    """Messages that the application has taken from the server."""
    _incoming: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    def arrives(self, data: bytes = b"", *, more: bool = False) -> None:
        """Deliver a part of the request body."""
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leaves(self, **reason: str) -> None:
        """Let the caller disconnect."""
        self._incoming.put_nowait({"type": "http.disconnect", **reason})

    async def run(self, path: str = "/", **scope: Any) -> None:
        """Serve the request."""
        whole = {
            "type": "http",
            "asgi": {},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"x")],
            "client": ("127.0.0.1", 1234),
            "server": ("127.0.0.1", 80),
            "extensions": {},
            **scope,
        }
        async with asyncio.timeout(PATIENCE):
            await self.app(cast(Any, whole), cast(Any, self._receive), cast(Any, self._send))

    async def _receive(self) -> Message:
        message = await self._incoming.get()
        self.asked += 1
        return message

    async def _send(self, message: Message) -> None:
        if self.is_gone:
            raise ConnectionResetError
        await self.taking.wait()
        self.steps.append(message["type"])
        self.sent.append(message)

    @property
    def answered(self) -> bytes:
        """The body that was sent to the caller."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def line(self) -> EventDict:
        """The only log line of the exchange."""
        (line,) = (line for line in self.lines if line["event"] == "exchange")
        return line


def current_request() -> QuartRequest:
    """Return the request of this context."""
    return cast(QuartRequest, request._get_current_object())  # type: ignore[attr-defined]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """Yield an exchange with an application without routes, and a caller who reads everything."""
    app = Application("tests")
    app.config["BODY_TIMEOUT"] = 60
    app.config["RESPONSE_TIMEOUT"] = None
    worker = SimpleNamespace(exchanges=ExchangeTotals(), traces=None)
    services = SimpleNamespace(worker=worker, traffic=None)
    app.extensions[EXTENSION] = SimpleNamespace(snapshots=SimpleNamespace(current=services))
    with capture_logs(processors=[merge_contextvars]) as lines:
        exchange = Exchange(app, lines)
        exchange.taking.set()
        yield exchange


def opens(exchange: Exchange) -> None:
    """Open a resource of the request that must be closed."""
    exchange.steps.append("opened")
    current_request().exchange.closing.callback(exchange.steps.append, "closed")


def streamed(body: AsyncIterator[bytes]) -> Response:
    """A response that is generated while it is sent."""
    response = Response(IterableBody(body))
    response.timeout = None
    return response


async def test_resources_are_closed_after_the_response_and_before_the_log_line(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        current_request().exchange.closing.callback(
            lambda: exchange.steps.append(f"{len(exchange.lines)} lines")
        )
        return "hello"

    exchange.arrives()
    await exchange.run()
    start, body, last = "http.response.start", "http.response.body", "http.response.body"
    assert exchange.steps == ["opened", start, body, last, "0 lines", "closed"]
    assert exchange.answered == b"hello"
    assert exchange.sent[-1] == LAST
    assert exchange.line["outcome"] == "ok"


async def test_an_exchange_that_cannot_be_logged_fails_visibly(exchange: Exchange) -> None:
    class Broken:
        def count(self, record: object) -> None:
            raise LookupError("broken")

    @exchange.app.post("/")
    async def view() -> str:
        return "hello"

    exchange.app.extensions[EXTENSION].snapshots.current.worker.exchanges = Broken()
    exchange.arrives()
    with pytest.raises(LookupError, match="broken"):
        await exchange.run()


async def test_resources_are_closed_when_the_view_fails(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        raise LookupError("broken")

    exchange.arrives()
    await exchange.run()
    assert exchange.steps[0] == "opened"
    assert exchange.steps[-1] == "closed"
    assert exchange.sent[0]["status"] == 500


async def test_a_caller_who_leaves_before_the_response_cancels_the_view(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        exchange.leaves()
        try:
            await asyncio.Event().wait()
        finally:
            exchange.steps.append("view ended")
        return ""

    exchange.arrives()
    await exchange.run()
    assert exchange.steps == ["opened", "view ended", "closed"]
    assert exchange.line["outcome"] == "client_gone"
    assert exchange.line["log_level"] == "info"


@pytest.mark.parametrize("reason", ["slow_reader", "slow_body", "malformed_body", "shutdown"])
async def test_the_line_says_why_the_server_ended_the_connection(exchange: Exchange, reason: str) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        exchange.leaves(reason=reason)
        await asyncio.Event().wait()
        return ""

    exchange.arrives()
    await exchange.run()
    assert exchange.line["outcome"] == reason


async def test_a_complete_response_does_not_cancel_the_view(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        return "taken later"

    exchange.arrives()
    exchange.taking.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(exchange.run())
        await until(lambda: exchange.steps == ["opened"])
        exchange.leaves(reason="complete")
        await until(lambda: exchange.asked == 2)
        exchange.taking.set()
    assert exchange.answered == b"taken later"
    assert exchange.line["outcome"] == "ok"


async def test_a_withheld_body_is_requested_when_it_is_read(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> bytes:
        for _ in range(20):
            await asyncio.sleep(0)
        exchange.steps.append(f"asked {exchange.asked} times")
        return await current_request().body.read(1 << 20)

    exchange.arrives(b"body")
    await exchange.run(headers=[(b"host", b"x"), (b"expect", b"100-continue")])
    assert exchange.steps[0] == "asked 0 times"
    assert exchange.answered == b"body"


async def test_a_withheld_body_that_is_not_read_does_not_hide_a_disconnect(exchange: Exchange) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        exchange.leaves()
        await asyncio.Event().wait()

    @exchange.app.post("/")
    async def view() -> Response:
        return streamed(body())

    await exchange.run(headers=[(b"host", b"x"), (b"expect", b"100-continue")])
    assert exchange.answered == b"begun"
    assert exchange.line["outcome"] == "client_gone"


async def test_a_caller_who_leaves_before_the_body_closes_its_resources(
    exchange: Exchange,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"never"
        finally:
            exchange.steps.append("body ended")

    @exchange.app.post("/")
    async def view() -> Response:
        opens(exchange)
        exchange.taking.clear()  # the head of the response waits for a caller who does not read it
        exchange.leaves()
        return streamed(body())

    exchange.arrives()
    await exchange.run()
    assert exchange.steps == ["opened", "closed"]
    assert exchange.line["outcome"] == "client_gone"


async def test_a_caller_who_leaves_in_the_middle_of_the_response_ends_it(exchange: Exchange) -> None:
    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"begun"
            exchange.leaves()
            await asyncio.Event().wait()
        finally:
            exchange.steps.append("body ended")

    @exchange.app.post("/")
    async def view() -> Response:
        opens(exchange)
        return streamed(body())

    exchange.arrives()
    await exchange.run()
    assert exchange.answered == b"begun"
    assert exchange.steps[-2:] == ["body ended", "closed"]
    assert exchange.line["outcome"] == "client_gone"


async def test_a_caller_who_leaves_without_reading_the_response_frees_it(exchange: Exchange) -> None:
    async def body() -> AsyncIterator[bytes]:
        exchange.taking.clear()
        exchange.leaves()
        yield b"not taken"

    @exchange.app.post("/")
    async def view() -> Response:
        opens(exchange)
        return streamed(body())

    exchange.arrives()
    await exchange.run()
    assert exchange.steps == ["opened", "http.response.start", "closed"]


async def test_a_caller_who_leaves_in_the_middle_of_the_request_cancels_the_view(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        await current_request().body.read(1 << 20)
        return "not reached"

    exchange.arrives(b"half", more=True)
    exchange.leaves()
    await exchange.run()
    assert exchange.steps == ["opened", "closed"]
    assert exchange.line["outcome"] == "client_gone"


@pytest.mark.parametrize("error", [Aborted(reason="reset"), BadResponse(reason="reset")])
async def test_a_body_that_breaks_has_no_last_chunk(exchange: Exchange, error: Exception) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise error

    @exchange.app.post("/")
    async def view() -> Response:
        opens(exchange)
        return streamed(body())

    exchange.arrives()
    await exchange.run()  # and nothing is raised: the server would log a traceback
    assert exchange.answered == b"half"
    assert LAST not in exchange.sent
    assert exchange.steps[-1] == "closed"
    assert exchange.line["outcome"] == getattr(error, "code", None)
    assert exchange.line["reason"] == "reset"


async def test_a_defect_in_the_body_is_logged_and_has_no_last_chunk(exchange: Exchange) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError

    @exchange.app.post("/")
    async def view() -> Response:
        return streamed(body())

    exchange.arrives()
    await exchange.run()
    assert LAST not in exchange.sent
    assert [line["event"] for line in exchange.lines] == ["response_failed", "exchange"]
    assert (exchange.line["outcome"], exchange.line["reason"]) == ("internal_error", "LookupError")


async def test_every_line_of_a_request_carries_its_id(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        get_logger("view").info("in_view")
        current_request().exchange.closing.callback(lambda: get_logger("view").info("closing"))
        return ""

    exchange.arrives()
    await exchange.run(headers=[(b"host", b"x"), (b"x-request-id", b"trace-7")])
    assert [(line["event"], line["request_id"]) for line in exchange.lines] == [
        ("in_view", "trace-7"),
        ("closing", "trace-7"),
        ("exchange", "trace-7"),
    ]


async def test_a_quiet_exchange_is_written_at_debug_level(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        current_request().exchange.record.quiet = True
        return ""

    exchange.arrives()
    await exchange.run()
    assert exchange.line["log_level"] == "debug"


async def test_a_recorded_outcome_does_not_change(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        current_request().exchange.record.fail(BadResponse(reason="garbage"))
        return "in an envelope"

    exchange.arrives()
    await exchange.run()
    assert exchange.line["outcome"] == BadResponse.code


async def test_path_headers_and_peer_are_kept_unchanged(exchange: Exchange) -> None:
    headers = [(b"host", b"x"), (b"x-odd", b"\xff"), (b"x-odd", b"2"), (b"x-odd", b"")]
    seen = list[object]()

    @exchange.app.post("/a b")
    async def view() -> str:
        own = current_request()
        seen.extend([own.raw_path, own.raw_headers, own.peer])
        return ""

    exchange.arrives()
    await exchange.run("/a b", raw_path=b"/a%20%62", headers=headers)
    assert seen == [b"/a%20%62", headers, "127.0.0.1"]


@pytest.mark.parametrize("value", [b"plain", "你".encode(), b"\xff\xe9", b"a\x80b", b""])
async def test_response_headers_are_sent_unchanged(exchange: Exchange, value: bytes) -> None:
    @exchange.app.post("/")
    async def view() -> Response:
        return Response("", headers={"x-odd": value.decode("latin-1")})

    exchange.arrives()
    await exchange.run()
    assert (b"x-odd", value) in exchange.sent[0]["headers"]


@pytest.mark.parametrize("client", [None, ()])
async def test_a_peer_without_an_address_is_unknown(exchange: Exchange, client: tuple[()] | None) -> None:
    seen = list[object]()

    @exchange.app.post("/")
    async def view() -> str:
        seen.append(current_request().peer)
        return ""

    exchange.arrives()
    await exchange.run(client=client)
    assert seen == [None]


async def test_the_request_is_not_received_faster_than_it_is_read(exchange: Exchange) -> None:
    go_on = asyncio.Event()
    count, chunk = 50, b"x" * 65536

    @exchange.app.post("/")
    async def view() -> str:
        await go_on.wait()
        return str(sum([len(piece) async for piece in current_request().body]))

    for _ in range(count):
        exchange.arrives(chunk, more=True)
    exchange.arrives()
    async with asyncio.TaskGroup() as group:
        group.create_task(exchange.run())
        full = BUFFER_BYTES // len(chunk) + 1
        await until(lambda: exchange.asked == full)
        for _ in range(50):
            await asyncio.sleep(0)
        assert exchange.asked == full
        go_on.set()
    assert exchange.answered == b"%d" % (count * len(chunk))


def serve(exchange: Exchange, respond: Callable[[], RelayedResponse]) -> None:
    """Answer requests as the relay does."""

    async def view() -> RelayedResponse:
        return respond()

    async def admit(_request: object) -> None: ...

    async def reject(_request: object, error: Exception) -> RelayedResponse:
        raise AssertionError from error

    app = cast(Application, exchange.app)
    app.relay_steps = RelaySteps(admit, reject)
    app.add_url_rule("/", view_func=relayed(view), methods=["POST"])


@pytest.mark.parametrize("end", ["broken", "unread", "complete"])
async def test_a_disconnect_does_not_cancel_the_end_of_an_exchange(exchange: Exchange, end: str) -> None:
    """Whatever ended the response, the tokens that it cost are counted, which may take a wait for Redis."""
    left: list[Callable[[str], None]] = []

    async def count() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        exchange.steps.append("counted")

    async def body() -> AsyncGenerator[bytes]:
        left[0]("")  # reported now, and noticed in the next step of the event loop
        if end == "broken":
            raise Aborted(reason="cut off")
        if end == "unread":
            exchange.is_gone = True
        yield b"last"

    def respond() -> RelayedResponse:
        http_request().exchange.closing.push_async_callback(count)
        return RelayedResponse(200, [], body())

    serve(exchange, respond)
    await exchange.run(extensions={DISCONNECTS: {"subscribe": left.append, "has_body": bool}})
    assert exchange.steps[-1] == "counted"
    assert exchange.line["outcome"] == {"broken": "upstream_aborted", "unread": "client_gone"}.get(end, "ok")


@pytest.mark.parametrize(
    ("arrived", "sent"),
    [
        ([True], [b"1"]),
        ([False, True], [b"1", b"2"]),
        ([False, False], [b"1", b"2", b""]),
        ([False, True, True], [b"1", b"2", b"3"]),
    ],
)
async def test_the_last_bytes_that_have_arrived_leave_with_the_end(
    exchange: Exchange, arrived: list[bool], sent: list[bytes]
) -> None:
    seen: list[bool] = []

    async def body() -> AsyncGenerator[bytes]:
        for number, is_last in enumerate(arrived, 1):
            seen.append(is_last)
            yield b"%d" % number

    serve(exchange, lambda: RelayedResponse(200, [], body(), has_arrived=lambda: seen[-1]))
    await exchange.run()
    bodies = [message for message in exchange.sent if message["type"] == "http.response.body"]
    assert [message["body"] for message in bodies] == sent
    assert [message["more_body"] for message in bodies] == [True] * (len(sent) - 1) + [False]


async def test_no_task_runs_after_the_response(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        return "early"  # the body has not ended, and the caller is still connected

    before = asyncio.all_tasks()
    exchange.arrives(b"half", more=True)
    await exchange.run()
    assert exchange.answered == b"early"
    assert asyncio.all_tasks() == before


async def test_the_task_that_waits_for_the_caller_ends_with_the_request(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        await until(lambda: exchange.asked == 1)  # now the second task receives
        return "late"

    before = asyncio.all_tasks()
    exchange.arrives(b"half", more=True)
    await exchange.run()
    assert exchange.answered == b"late"
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_server_that_cannot_say_whether_the_caller_leaves_ends_the_request(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> Message:
        raise LookupError("broken")

    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(exchange, "_receive", broken)
    await exchange.run()
    assert exchange.steps == ["opened", "closed"]
    assert exchange.line["outcome"] == "client_gone"
    assert [line["event"] for line in exchange.lines] == ["defect", "exchange"]


async def test_a_short_request_needs_no_second_task(exchange: Exchange) -> None:
    tasks: list[int] = []

    @exchange.app.post("/")
    async def view() -> bytes:
        body = await current_request().body
        tasks.append(len(asyncio.all_tasks()))
        return body

    before = len(asyncio.all_tasks())
    exchange.arrives(b"whole")
    await exchange.run()
    assert exchange.answered == b"whole"
    assert tasks == [before]


async def test_the_server_can_cancel_an_exchange(exchange: Exchange) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        opens(exchange)
        await asyncio.Event().wait()
        return ""

    exchange.arrives()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(exchange.run())
        await until(lambda: "opened" in exchange.steps)
        task.cancel()
    assert task.cancelled()
    assert exchange.steps == ["opened", "closed"]
    assert exchange.line["outcome"] == "client_gone"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/agent/api/llm_proxy/v1/files", "/livez", "/nope"])
async def test_a_websocket_to_another_path_is_rejected_in_the_envelope(
    run_proxy: RunProxy, path: str
) -> None:
    async with run_proxy("http://127.0.0.1:1") as proxy, raw_caller(proxy.url) as caller:
        await caller.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "X-Request-Id: trace-7\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = await caller.answer()
        error = json.loads(await caller.body(answer))["error"]
        assert await caller.closed() == b""
        await until(lambda: bool(proxy.exchanges))
    assert answer.status == 404
    assert answer.header("content-type") == ["application/json"]
    assert answer.header("x-request-id") == ["trace-7"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "not_found"
    (line,) = proxy.exchanges
    assert (line["path"], line["status"], line["outcome"]) == (path, 404, "not_found")
    assert "defect" not in [line["event"] for line in proxy.lines]


@pytest.mark.parametrize("host", [b"", b".", b"a..b", b"x" * 64, b"[", b"\xff", b"a b", b"x:80:90", b"\x7f"])
async def test_a_route_does_not_depend_on_the_host_header(exchange: Exchange, host: bytes) -> None:
    @exchange.app.post("/")
    async def view() -> str:
        return "found"

    exchange.arrives()
    await exchange.run(headers=[(b"host", host)])
    assert (exchange.sent[0]["status"], exchange.answered) == (200, b"found")


async def test_a_failure_outside_the_error_handlers_is_answered_in_the_envelope(exchange: Exchange) -> None:
    class Broken(SecureCookieSessionInterface):
        async def open_session(self, *_: object) -> None:
            raise LookupError("no session")

    exchange.app.session_interface = Broken()
    exchange.arrives()
    await exchange.run()
    assert exchange.sent[0]["status"] == 500
    assert json.loads(exchange.answered)["error"]["code"] == "internal_error"
    assert exchange.line["outcome"] == "internal_error"

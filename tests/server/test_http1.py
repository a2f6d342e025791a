"""HTTP/1.1 on the wire: framing, keep-alive, bounds, clocks, refusals, and callers that leave."""

import asyncio
import json
import os
import re
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.server.http1 import Connection, ConnectionLimits
from proxy.server.serve import REJECTION_CODES
from tests.loopback import until
from tests.pace import paced
from tests.server.conftest import Echo, Message, served

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


HOST = b"Host: x"
END = b"0\r\n\r\n"


def head(*lines: bytes, first: bytes = b"POST /p HTTP/1.1") -> bytes:
    """A head with these lines behind the request line."""
    return b"\r\n".join([first, *lines, b"", b""])


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of a refusal; it must be whole, in the envelope, with a request id, and close."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:])
    assert fields["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", fields["x-request-id"])
    assert int(fields["content-length"]) == len(body)
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return int(lines[0].split()[1]), error["code"]


def bodies(answer: bytes) -> list[bytes]:
    """The bodies of responses that have a length."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        found.append(answer[:length])
        answer = answer[length:]
    return found


# --- requests that are served

SERVED = {
    "a request without a body": (GET, [b"GET /a|"]),
    "a target as it is": (
        b"GET /a%2Fb/%E4%BD%A0?q=%20 HTTP/1.1\r\nHost: x\r\n\r\n", [b"GET /a%2Fb/%E4%BD%A0|"]
    ),
    "a length": (b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", [b"POST /p|abc"]),
    "no bytes": (b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", [b"POST /p|"]),
    "chunks": (
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        [b"POST /p|abc"],
    ),
    "extensions and trailers": (
        head(HOST, b"Transfer-Encoding: CHUNKED") + b"3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        [b"POST /p|abc"],
    ),
    "pipelined": (
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi" + GET + GET,
        [b"POST /1|hi", b"GET /a|", b"GET /a|"],
    ),
    "h2c ignored": (
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\n\r\n" + GET,
        [b"GET /a|", b"GET /a|"],
    ),
    "h2c ignored with a body": (
        b"POST /p HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 3\r\n\r\nabc" + GET,
        [b"POST /p|abc", b"GET /a|"],
    ),
    "h2c ignored with chunks": (
        b"POST /p HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET,
        [b"POST /p|abc", b"GET /a|"],
    ),
    "HTTP/1.0 with keep-alive": (
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET, [b"GET /a|", b"GET /a|"]
    ),
    "an empty line in front": (b"\r\n" + GET, [b"GET /a|"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVED)
async def test_requests_are_served_in_order(name: str) -> None:
    data, expected = SERVED[name]
    async with served(Echo()) as server:
        assert bodies(await server.talk(data + LAST)) == [*expected, b"GET /z|"]


@settings(max_examples=int(os.environ.get("PROXY_TEST_SPLITS", "60")))
@given(st.sampled_from(sorted(SERVED)), st.data())
def test_any_split_of_the_bytes_is_served_alike(name: str, data: st.DataObject) -> None:
    stream, expected = SERVED[name]
    stream += LAST
    cuts = data.draw(st.lists(st.integers(1, len(stream) - 1), unique=True, max_size=12).map(sorted))

    async def talk() -> bytes:
        async with served(Echo()) as server:
            caller = await server.connect()
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                caller.writer.write(stream[start:end])
                await asyncio.sleep(0)
            answer = await caller.rest()
            caller.writer.close()
            return answer

    assert bodies(asyncio.run(talk())) == [*expected, b"GET /z|"]


async def test_a_stream_byte_by_byte_is_served() -> None:
    data, expected = SERVED["extensions and trailers"]
    async with served(Echo()) as server:
        caller = await server.connect()
        for byte in data + LAST:
            caller.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert bodies(await caller.rest()) == [*expected, b"GET /z|"]
        caller.writer.close()


# --- requests that are refused


REFUSED = {
    "no host": (head(), 400),
    "two hosts": (head(HOST, b"Host: y"), 400),
    "the same host twice": (head(HOST, HOST), 400),
    "a host with a space": (head(b"Host: a b"), 400),
    "a host with a slash": (head(b"Host: a/b"), 400),
    "a host with an at sign": (head(b"Host: a@b"), 400),
    "length and chunks": (head(HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked") + END, 400),
    "chunks and length": (head(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 3") + END, 400),
    "two lengths": (head(HOST, b"Content-Length: 3", b"Content-Length: 3") + b"abc", 400),
    "two different lengths": (head(HOST, b"Content-Length: 3", b"Content-Length: 4") + b"abc", 400),
    "a list of lengths": (head(HOST, b"Content-Length: 3, 3") + b"abc", 400),
    "a signed length": (head(HOST, b"Content-Length: +3") + b"abc", 400),
    "a negative length": (head(HOST, b"Content-Length: -3") + b"abc", 400),
    "a hexadecimal length": (head(HOST, b"Content-Length: 0x3") + b"abc", 400),
    "a length with an underscore": (head(HOST, b"Content-Length: 1_0") + b"abc", 400),
    "an enormous length": (head(HOST, b"Content-Length: 99999999999999999999") + b"abc", 400),
    "gzip, chunked": (head(HOST, b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
    "chunked, gzip": (head(HOST, b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "identity": (head(HOST, b"Transfer-Encoding: identity") + b"0\r\n\r\n", 501),
    "chunked twice": (head(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "xchunked": (head(HOST, b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", 501),
    "a vertical tab before chunked": (head(HOST, b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        head(HOST, b"Transfer-Encoding: chunked", first=b"POST /p HTTP/1.0") + b"0\r\n\r\n", 400
    ),
    "a folded line": (head(HOST, b"X: a", b" b"), 400),
    "a space before the colon": (head(HOST, b"X : a"), 400),
    "a name with a space": (head(HOST, b"X Y: a"), 400),
    "no name": (head(HOST, b": a"), 400),
    "no colon": (head(HOST, b"X"), 400),
    "a bare CR": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
    "bare LFs": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a NUL in a value": (head(HOST, b"X: a\0b"), 400),
    "a NUL in a name": (head(HOST, b"X\0: a"), 400),
    "a control character": (head(HOST, b"X: a\x01b"), 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http/1.1": (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target with a space": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a target beyond ASCII": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "an unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "a method in lower case": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "garbage": (b"\x00\x01\x02\x03\r\n\r\n", 400),
    "a chunk size with a sign": (head(HOST, b"Transfer-Encoding: chunked") + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size with 0x": (head(HOST, b"Transfer-Encoding: chunked") + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size with a space": (head(HOST, b"Transfer-Encoding: chunked") + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "an enormous chunk": (head(HOST, b"Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n", 400),
    "no chunk size": (head(HOST, b"Transfer-Encoding: chunked") + b"\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk that is too long": (head(HOST, b"Transfer-Encoding: chunked") + b"2\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk that ends with LF": (head(HOST, b"Transfer-Encoding: chunked") + b"3\nabc\n0\n\n", 400),
    "an unknown expectation": (head(HOST, b"Expect: 200-ok", b"Content-Length: 1") + b"a", 417),
    "too long a target": (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "an endless target": (b"GET /" + b"a" * 100_000, 431),
    "too long a head": (head(HOST, b"X: " + b"a" * 66_000), 431),
    "an endless header": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000, 431),
    "too many headers": (head(HOST, *[b"X: a"] * 201), 431),
    "endless extensions": (
        head(HOST, b"Transfer-Encoding: chunked") + b"1;" + b"a" * 40_000 + b"\r\nb\r\n", 400
    ),
    "endless trailers": (
        head(HOST, b"Transfer-Encoding: chunked") + b"1\r\nb\r\n0\r\n" + b"X: a\r\n" * 10_000, 400
    ),
    "an old WebSocket": (
        head(HOST, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: a",
             b"Sec-WebSocket-Version: 99", first=b"GET /v1/realtime HTTP/1.1"), 426,
    ),
    "a WebSocket without a key": (
        head(HOST, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
             first=b"GET /v1/realtime HTTP/1.1"), 400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_ambiguous_requests_are_rejected_in_the_envelope(name: str) -> None:
    data, status = REFUSED[name]
    app = Echo()
    async with served(app) as server:
        assert refusal(await server.talk(data)) == (status, REJECTION_CODES[HTTPStatus(status)])
    assert app.seen == []


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_after_a_rejected_request_is_served(name: str) -> None:
    app = Echo()
    async with served(app) as server:
        answer = await server.talk(GET + REFUSED[name][0] + GET)
    assert [body for _, body in app.seen] == [b""]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 2


async def test_pipelined_requests_are_bounded() -> None:
    app = Echo()
    async with served(app) as server:
        answer = await server.talk(GET * 5000)
    assert len(app.seen) < 50
    assert answer.count(b"HTTP/1.1 200") == len(app.seen)


async def test_a_connection_beyond_the_limit_is_503_with_retry_after() -> None:
    async with served(Echo(), max_connections=2) as server:
        held = [await server.connect() for _ in range(2)]
        for caller in held:
            caller.writer.write(GET)
            await caller.head()
        answer = await server.talk(b"")
        assert refusal(answer)[0] == 503
        assert b"retry-after: 1" in answer
        for caller in held:
            caller.writer.close()
        await asyncio.sleep(0)


# --- 100-continue


async def test_a_body_is_requested_when_the_application_reads_it() -> None:
    ask = head(HOST, b"Expect: 100-continue", b"Content-Length: 3")
    async with served(Echo()) as server:
        caller = await server.connect()
        caller.writer.write(ask)
        assert await caller.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.writer.write(b"abc" + LAST)
        assert bodies(await caller.rest()) == [b"POST /p|abc", b"GET /z|"]
        caller.writer.close()


async def test_a_body_that_is_not_read_is_not_requested() -> None:
    async def refuse(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(refuse) as server:
        answer = await server.talk(head(HOST, b"Expect: 100-continue", b"Content-Length: 3"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


# --- responses


def responding(*messages: Message) -> Any:
    """An application that answers every request with these messages."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_response_without_a_length_is_chunked() -> None:
    async with served(responding(start(), part(b"ab"), part(b""), part(b"c", more=False))) as server:
        answer = await server.talk(LAST)
    assert answer.endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert answer.count(b"transfer-encoding: chunked") == 1


async def test_an_old_caller_gets_a_response_that_ends_with_the_connection() -> None:
    async with served(responding(start(), part(b"ab"), part(b"c", more=False))) as server:
        answer = await server.talk(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"connection: close\r\n\r\nabc")
    assert b"transfer-encoding" not in answer


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_some_responses_have_no_body(method: bytes, status: int) -> None:
    app = responding(start(status, (b"content-length", b"3")), part(b"abc", more=False))
    async with served(app) as server:
        answer = await server.talk(method + LAST[3:])
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [start(), part(b"ab")],
        [start(200, (b"content-length", b"3")), part(b"ab", more=False)],
        [start(200, (b"content-length", b"1")), part(b"a"), part(b"b", more=False)],
    ],
    ids=["never ended", "too short", "too long"],
)
async def test_a_broken_response_does_not_look_complete(messages: list[Message]) -> None:
    async with served(responding(*messages)) as server:
        answer = await server.talk(GET + GET)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert not answer.endswith(b"0\r\n\r\n")
    if (length := re.search(rb"content-length: (\d+)", answer)) is not None:
        # A body that is too long is cut at its length: the caller has what it was promised, and no more.
        assert len(answer.partition(b"\r\n\r\n")[2]) <= int(length[1])
        assert answer[-2:] != b"ab"


async def test_a_broken_response_to_an_old_caller_ends_with_a_reset() -> None:
    async with served(responding(start(), part(b"ab"))) as server:
        caller = await server.connect()
        caller.writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await caller.head()
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


async def test_an_application_that_fails_before_its_response_is_a_500() -> None:
    async def fail(scope: Message, receive: Any, send: Any) -> None:
        raise ValueError

    async with served(fail) as server:
        assert refusal(await server.talk(GET)) == (500, "internal_error")


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\nb", b"a\0b"])
async def test_a_header_cannot_split_a_response(value: bytes) -> None:
    async with served(responding(start(200, (b"x", value)), part(b"", more=False))) as server:
        answer = await server.talk(GET)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"X: b" not in answer


# --- callers that leave


async def hold(scope: Message, receive: Any, send: Any) -> None:
    """Wait for the disconnect."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Holding:
    """An application that waits until its caller leaves; and, if asked to, streams meanwhile."""

    def __init__(self, *first: Message) -> None:
        self.reasons: list[str] = []
        self.running = 0
        self._first = first

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.running += 1
        while (await receive())["more_body"]:
            pass
        for message in self._first:
            await send(message)
        message = await receive()
        self.reasons.append(message["reason"])
        self.running -= 1


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_caller_who_leaves_is_noticed_at_once(how: str, *, streaming: bool) -> None:
    app = Holding(*([start(), part(b"data: 1\n\n")] if streaming else []))
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        if streaming:
            await caller.head()
        await until(lambda: app.running == 1)
        if how == "reset":
            caller.writer.transport.abort()
        else:
            caller.writer.close()
        async with asyncio.timeout(paced(1.0)):
            await until(lambda: app.reasons == ["client_gone"])


async def test_a_caller_who_leaves_behind_pipelined_bytes_is_noticed() -> None:
    app = Holding()
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET + GET)
        await until(lambda: app.running == 1)
        caller.writer.close()
        async with asyncio.timeout(paced(4.0)):
            await until(lambda: app.reasons[:1] == ["client_gone"])


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_half_closed_caller_still_gets_its_whole_response(
    monkeypatch: pytest.MonkeyPatch, *, chunked: bool
) -> None:
    half_closed, probed = asyncio.Event(), asyncio.Event()
    detect = Connection._detect_disconnect

    def watched(connection: Connection) -> None:
        detect(connection)
        probed.set()

    monkeypatch.setattr(Connection, "_detect_disconnect", watched)

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        headers = [] if chunked else [(b"content-length", b"6")]
        await send(start(200, *headers))
        await send(part(b"abc"))
        await half_closed.wait()
        probed.clear()
        await probed.wait()  # the server has checked whether the caller has left
        await send(part(b"def", more=False))

    async with served(slow) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        first = await caller.head()
        caller.writer.write_eof()
        half_closed.set()
        answer = first + await caller.rest()
        caller.writer.close()
    body = answer.partition(b"\r\n\r\n")[2]
    assert body in {b"abcdef", b"3\r\nabc\r\n03\r\ndef\r\n0\r\n\r\n", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"}


async def test_connections_that_callers_close_are_freed_at_once() -> None:
    def descriptors() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    async with served(Echo()) as server:
        await server.talk(LAST)
        before, tasks = descriptors(), len(asyncio.all_tasks())
        for _ in range(300):
            caller = await server.connect()
            caller.writer.write(GET)
            await caller.head()
            caller.writer.close()
        await until(lambda: descriptors() <= before + 3 and len(asyncio.all_tasks()) <= tasks + 3)


# --- clocks

FAST = ConnectionLimits(
    head_seconds=0.5, idle_seconds=0.5, window_seconds=0.5, body_bytes=100, response_bytes=1
)


async def test_a_slow_head_is_408() -> None:
    async with served(Echo(), FAST) as server:
        assert refusal(await server.talk(b"GET / HTTP/1.1\r\nHost:")) == (408, "request_timeout")


async def test_a_slow_head_is_408_even_while_bytes_arrive() -> None:
    async with served(Echo(), FAST) as server:
        caller = await server.connect()
        caller.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        ended = asyncio.get_running_loop().create_task(caller.rest())
        while not ended.done():
            caller.writer.write(b"a")
            await asyncio.sleep(0.05)
        assert refusal(ended.result())[0] == 408
        caller.writer.close()


async def test_a_silent_connection_is_closed_without_a_response() -> None:
    async with served(Echo(), FAST) as server:
        assert await server.talk(b"") == b""


async def test_an_idle_connection_is_closed_behind_its_response() -> None:
    async with served(Echo(), FAST) as server:
        assert bodies(await server.talk(GET)) == [b"GET /a|"]


async def test_a_slow_body_is_408_and_the_application_gets_the_reason() -> None:
    app = Echo()
    async with served(app, FAST) as server:
        caller = await server.connect()
        caller.writer.write(head(HOST, b"Content-Length: 1000"))
        ended = asyncio.get_running_loop().create_task(caller.rest())
        while not ended.done():
            caller.writer.write(b"a")
            await asyncio.sleep(0.05)
        assert refusal(ended.result())[0] == 408
        caller.writer.close()
    assert app.disconnects == ["slow_body"]


async def test_a_body_that_the_application_does_not_read_has_no_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks, checked = list[float](), asyncio.Event()
    tick = Connection.tick

    def watched(connection: Connection, now: float) -> None:
        tick(connection, now)
        checks.append(now)
        if now - checks[0] > 3 * FAST.window_seconds:
            checked.set()

    monkeypatch.setattr(Connection, "tick", watched)

    async def late(scope: Message, receive: Any, send: Any) -> None:
        await checked.wait()
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        await send(start(200, (b"content-length", b"2")))
        await send(part(b"ok", more=False))

    async with served(late, FAST) as server:
        caller = await server.connect()
        caller.writer.write(head(HOST, b"Connection: close", b"Content-Length: 1000000") + b"a" * 1_000_000)
        assert (await caller.rest()).endswith(b"ok")
        caller.writer.close()


def small_buffers(server_port: int) -> socket.socket:
    """A caller whose kernel takes little."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(("127.0.0.1", server_port))
    caller.setblocking(False)  # noqa: FBT003
    return caller


class Flood:
    """An application that writes without an end."""

    def __init__(self) -> None:
        self.reason: str | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        try:
            while True:
                await send(part(b"x" * 16_384))
        except ConnectionResetError as error:
            self.reason = str(error)


async def test_a_caller_who_reads_nothing_is_disconnected() -> None:
    app = Flood()
    async with served(app, FAST) as server:
        with small_buffers(server.port) as caller:
            await asyncio.get_running_loop().sock_sendall(caller, GET)
            await until(lambda: app.reason is not None)
    assert app.reason == "slow_reader"


async def test_a_caller_who_reads_slowly_but_steadily_stays_connected() -> None:
    app = Flood()
    async with served(app, ConnectionLimits(window_seconds=2.0)) as server:
        with small_buffers(server.port) as caller:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(caller, GET)
            end = loop.time() + 8
            while loop.time() < end:
                assert await loop.sock_recv(caller, 1024)
                await asyncio.sleep(0.1)
            assert app.reason is None


# --- the end


async def test_a_drain_closes_idle_connections_and_lets_requests_end() -> None:
    going = asyncio.Event()

    async def slow(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(part(b"abc"))
        await going.wait()
        await send(part(b"def", more=False))

    async with served(slow, graceful=30) as server:
        idle, busy = await server.connect(), await server.connect()
        busy.writer.write(GET)
        await busy.head()
        server.stop.set()
        assert await idle.rest() == b""
        going.set()
        assert (await busy.rest()).endswith(b"3\r\ndef\r\n0\r\n\r\n")
        for caller in (idle, busy):
            caller.writer.close()
        with pytest.raises(ConnectionRefusedError):
            await server.connect()


async def test_a_connection_that_was_opened_just_before_a_drain_is_served() -> None:
    async with served(Echo(), graceful=30) as server:
        callers = new, silent, idle = [await server.connect() for _ in range(3)]
        for caller in (idle, idle):
            caller.writer.write(GET)
            await caller.exactly(len(await caller.head()) and len(b"GET /a|"))
        server.stop.set()
        assert await idle.rest() == b""
        new.writer.write(GET)
        assert (await new.rest()).endswith(b"GET /a|")
        assert await silent.rest() == b""
        for caller in callers:
            caller.writer.close()


async def test_a_stopping_server_still_serves_and_closes_each_connection() -> None:
    leaving = False
    async with served(Echo(), is_leaving=lambda: leaving) as server:
        kept = await server.connect()
        kept.writer.write(GET)
        assert b"connection: close" not in await kept.head()
        leaving = True
        assert b"connection: close" in await server.talk(GET)
        kept.writer.write(GET)
        assert (await kept.rest()).count(b"connection: close") == 1
        kept.writer.close()


async def test_requests_that_outlive_the_drain_are_aborted_with_the_reason() -> None:
    app = Holding(start(), part(b"abc"))
    async with served(app, graceful=0.3) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        await caller.head()
        server.stop.set()
        answer = await caller.rest()
        caller.writer.close()
    assert not answer.endswith(b"0\r\n\r\n")
    assert app.reasons in (["shutdown"], [])


def every_method() -> Iterator[bytes]:
    yield from (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"QUERY", b"PROPFIND")


async def test_methods_of_the_standard_reach_the_application() -> None:
    async with served(Echo()) as server:
        for method in every_method():
            assert bodies(await server.talk(method + LAST[3:])) == [method + b" /z|"]

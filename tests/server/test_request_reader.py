"""Requests on the wire: any split of their bytes is read alike, and ambiguous ones are rejected."""

import asyncio
import os
import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.server.serve import REJECTION_CODES
from tests.server.conftest import Echo, served
from tests.server.raw import END, GET, HOST, LAST, bodies, head, refusal

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
    "HTTP/1.0 with RTSP in a header": (
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\nX: GET /a RTSP/1.0\r\n\r\n", [b"GET /a|"]
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


RTSP = b"GET /a RTSP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("cut", range(1, len(RTSP)))
async def test_another_protocol_is_rejected_wherever_its_head_is_cut(cut: int) -> None:
    app = Echo()
    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(GET + RTSP[:cut])
        await caller.head()  # the server has read this
        caller.writer.write(RTSP[cut:])
        answer = await caller.rest()
        caller.writer.close()
    assert answer.startswith(b"GET /a|HTTP/1.1 505 ")
    assert len(app.seen) == 1


async def test_a_stream_byte_by_byte_is_served() -> None:
    data, expected = SERVED["extensions and trailers"]
    async with served(Echo()) as server:
        caller = await server.connect()
        for byte in data + LAST:
            caller.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert bodies(await caller.rest()) == [*expected, b"GET /z|"]
        caller.writer.close()


def every_method() -> Iterator[bytes]:
    yield from (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"QUERY", b"PROPFIND")


async def test_a_pipelined_head_is_measured_without_the_body_before_it() -> None:
    body = b"b" * 80_000
    first = head(HOST, b"Content-Length: %d" % len(body)) + body
    async with served(Echo()) as server:
        caller = await server.connect()
        caller.writer.write(first + LAST[:10])
        await caller.head()
        caller.writer.write(LAST[10:])
        assert (await caller.rest()).endswith(b"GET /z|")
        caller.writer.close()


@pytest.mark.parametrize("space", [b" ", b"\t", b" \t "])
async def test_whitespace_around_a_value_is_not_part_of_it(space: bytes) -> None:
    app = Echo()
    async with served(app) as server:
        await server.talk(head(b"Host:" + space + b"x" + space, b"Connection: close", first=LAST[:15]))
    assert app.seen[0][0]["headers"][0] == (b"host", b"x")


async def test_methods_of_the_standard_reach_the_application() -> None:
    async with served(Echo()) as server:
        for method in every_method():
            assert bodies(await server.talk(method + LAST[3:])) == [method + b" /z|"]


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
    "RTSP/1.0": (b"GET / RTSP/1.0\r\nHost: x\r\n\r\n", 505),
    "RTSP/1.1": (b"POST /%70 RTSP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 505),
    "RTSP/1.1 behind spaces": (b"OPTIONS  *  RTSP/1.1\r\nHost: x\r\n\r\n", 505),
    "a method of RTSP": (b"DESCRIBE rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", 505),
    "a method of Icecast": (b"SOURCE / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    "ICE/1.0": (b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n", 501),
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
    "an endless trailer behind a large body": (
        head(HOST, b"Transfer-Encoding: chunked") + b"10000\r\n" + b"b" * 65_536 + b"\r\n0\r\nX: "
        + b"a" * 700_000, 400
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


async def test_a_tls_handshake_is_named() -> None:
    async with served(Echo()) as server:
        answer = await server.talk(REFUSED["TLS"][0])
    assert b"the caller speaks TLS to a port that serves plain HTTP" in answer


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_after_a_rejected_request_is_served(name: str) -> None:
    app = Echo()
    async with served(app) as server:
        answer = await server.talk(GET + REFUSED[name][0] + GET)
    assert [body for _, body in app.seen] == [b""]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 2

"""Responses, wherever the reads end: the same result, no byte too many, and every cut is detected."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.http1 import (
    FRAMING_RATIO,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    INTERIM_RESPONSES_MAX,
    LENGTH_DIGITS_MAX,
    ArrivingResponse,
    request_head,
)
from proxy.wire.response_end import End
from tests.pace import PATIENCE

HEAD: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT: Final = b"HTTP/1.1 200 OK\r\nX-Foreign: yes\r\nContent-Length: 7\r\n\r\nforeign"
"""Bytes of another caller."""


class Sound(NamedTuple):
    """A response, and its expected interpretation."""

    data: bytes
    body: bytes
    status: int = 200
    method: str = "POST"
    end: End = End.EXACT
    keep_alive: bool = True


SOUND: Final = {
    "length": Sound(HEAD + b"Content-Length: 5\r\nX-A: b\r\n\r\nhello", b"hello"),
    "length zero": Sound(HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "line ends in the body": Sound(
        HEAD + b"Content-Length: 9\r\n\r\n\r\n\r\n\0\r\n\r\n", b"\r\n\r\n\0\r\n\r\n"
    ),
    "a response in the body": Sound(HEAD + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT, NEXT),
    "chunks": Sound(CHUNKED + b"4\r\nsome\r\n6;x=y\r\n chunk\r\n0\r\n\r\n", b"some chunk"),
    "hexadecimal chunk": Sound(CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "no content": Sound(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", b"", 204),
    "not modified": Sound(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", b"", 304),
    "head": Sound(HEAD + b"Content-Length: 10\r\n\r\n", b"", method="HEAD"),
    "head of chunks": Sound(CHUNKED, b"", method="HEAD"),
    "no reason": Sound(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "not UTF-8": Sound(b"HTTP/1.1 200 \xe4\r\nX: \xe9\xff\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "close": Sound(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", keep_alive=False),
    "interim": Sound(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + HEAD
        + b"Content-Length: 2\r\n\r\nok",
        b"ok",
        end=End.UNCLEAR,
    ),
    "trailers": Sound(CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: t\r\n\r\n", b"ok", end=End.UNCLEAR),
    "bare line feeds": Sound(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok", end=End.UNCLEAR),
    "spaces after a chunk size": Sound(CHUNKED + b"2  \r\nok\r\n0\r\n\r\n", b"ok"),
    "line before": Sound(b"\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok", end=End.UNCLEAR),
    "HTTP/1.0": Sound(
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", end=End.UNCLEAR, keep_alive=False
    ),
}
UNTIL_CLOSE: Final = {
    "no length": Sound(HEAD + b"X: y\r\n\r\nall of this", b"all of this"),
    "identity": Sound(HEAD + b"Transfer-Encoding: identity\r\n\r\nall of this", b"all of this"),
    "HTTP/1.0": Sound(b"HTTP/1.0 200 OK\r\n\r\nall of this", b"all of this"),
}
HOSTILE: Final = {
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "the same length twice": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\nok",
    "signed length": HEAD + b"Content-Length: +2\r\n\r\nok",
    "negative length": HEAD + b"Content-Length: -2\r\n\r\nok",
    "hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\nok",
    "no digits": HEAD + b"Content-Length: \r\n\r\nok",
    "length with a space": HEAD + b"Content-Length: 1 2\r\n\r\nok",
    "length with many zeros": HEAD + b"Content-Length: " + b"0" * LENGTH_DIGITS_MAX + b"2\r\n\r\nok",
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "unknown coding": HEAD + b"Transfer-Encoding: xyzzy\r\n\r\nok",
    "coding below chunks": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in one line": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "interim with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + NEXT,
    "interim in chunks": b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT,
    "folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\nok",
    "bare CR in a value": HEAD + b"X: a\rY: b\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in the first line": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "null byte": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "control character": HEAD + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": HEAD + b"Content-Length : 2\r\n\r\nok",
    "space before the name": HEAD + b" Content-Length: 2\r\n\r\nok",
    "no colon": HEAD + b"Content-Length\r\n\r\n",
    "no name": HEAD + b": x\r\n\r\n",
    "name that is not a token": HEAD + b"X\xe4: x\r\n\r\n",
    "not HTTP": b"garbage\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "version 0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "version 2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "version 1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "short status": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "long status": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status that is no number": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
}
SURPLUS: Final = {
    "another response": NEXT,
    "line": b"\r\n",
    "line feed": b"\n",
    "byte": b"x",
    "last chunk": b"0\r\n\r\n",
    "beginning of a response": b"HTTP/1.1 2",
    "head of chunks": CHUNKED,
    "garbage": b"garbage\r\n\r\n",
    "JSON": b"null",
    "null byte": b"\0",
    "invalid response": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "interim response": b"HTTP/1.1 100 Continue\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx",
}
"""Bytes that may follow a complete response."""
BROKEN_BODIES: Final = {
    "chunk size with a prefix": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "signed chunk size": CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\nok\r\n0\r\n\r\n",
    "chunk that is too long": CHUNKED + b"2\r\nokX\r\n0\r\n\r\n",
    "chunk that is too short": CHUNKED + b"4\r\nok\r\n0\r\n\r\n" + NEXT,
    "huge chunk size": CHUNKED + b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "bare CR in a chunk extension": CHUNKED + b"2;x\ry\r\nok\r\n0\r\n\r\n",
    "broken trailer": CHUNKED + b"0\r\nno colon\r\n\r\n",
    "folded trailer": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
}
LARGE: Final = {
    "long head": HEAD + b"X: " + b"a" * (HEAD_BYTES_MAX + 1) + b"\r\nContent-Length: 2\r\n\r\nok",
    "many headers": HEAD + b"X: y\r\n" * (HEADERS_MAX + 1) + b"Content-Length: 2\r\n\r\nok",
    "endless first line": b"HTTP/1.1 200 " + b"a" * (HEAD_BYTES_MAX + 1),
    "flood of interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_RESPONSES_MAX + 1) + NEXT,
    "long chunk extension": CHUNKED + b"2;" + b"x" * 8 * HEAD_BYTES_MAX,
    "long trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX,
    "endless trailer": CHUNKED + b"0\r\nX: " + b"y" * 8 * HEAD_BYTES_MAX,
    "endless trailer behind a large body": (
        CHUNKED + b"100000\r\n" + b"b" * (1 << 20) + b"\r\n0\r\nX: " + b"y" * 8 * HEAD_BYTES_MAX
    ),
}


def fed(pieces: Iterable[bytes], method: str = "POST") -> ArrivingResponse:
    """Return a response after these reads. As on a connection, bytes after its end are a surplus."""
    response = ArrivingResponse(method)
    for piece in pieces:
        if response.error is None and piece:
            response.surplus = response.surplus or response.ended
            response.feed(piece)
    return response


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """Return the bytes in reads that end at these positions."""
    ends = [0, *sorted({min(place, len(data)) for place in at}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def body_of(response: ArrivingResponse) -> bytes:
    """Return the part of the body that has arrived, without waiting."""
    body = b""
    while response.unread:
        try:
            response.read().send(None)  # raises RuntimeError if it waits: there is no event loop
        except StopIteration as read:
            body += read.value
    return body


def all_cuts(data: bytes) -> list[list[bytes]]:
    """Return every split of the bytes into two reads, and one with a byte per read."""
    return [*([data[:at], data[at:]] for at in range(len(data) + 1)), [bytes([byte]) for byte in data]]


def check(sound: Sound, response: ArrivingResponse) -> None:
    """Check that a response is interpreted as expected."""
    assert response.error is None
    assert response.ended
    assert (response.status, response.keep_alive) == (sound.status, sound.keep_alive)
    assert body_of(response) == sound.body
    assert response.end() is sound.end


@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND.keys())
def test_a_sound_response_is_the_same_however_it_is_cut(sound: Sound) -> None:
    whole = fed([sound.data], sound.method)
    check(sound, whole)
    for pieces in all_cuts(sound.data):
        response = fed(pieces, sound.method)
        check(sound, response)
        assert response.headers == whole.headers


@given(st.sampled_from(list(SOUND.values())), st.lists(st.integers(0, 200), max_size=12))
def test_a_sound_response_is_the_same_in_any_reads(sound: Sound, at: list[int]) -> None:
    check(sound, fed(cut(sound.data, at), sound.method))


@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND.keys())
def test_each_cut_of_a_response_is_noticed(sound: Sound) -> None:
    for length in range(len(sound.data)):
        response = fed([sound.data[:length]], sound.method)
        assert not response.ended
        response.lost(None)
        assert not response.ended
        has_head = response.status != 0
        assert type(response.error) is (httpx2.ReadError if has_head else httpx2.RemoteProtocolError)


@pytest.mark.parametrize("sound", UNTIL_CLOSE.values(), ids=UNTIL_CLOSE.keys())
def test_a_response_without_a_length_ends_with_its_connection(sound: Sound) -> None:
    for pieces in all_cuts(sound.data):
        response = fed(pieces)
        before = response.ended
        response.lost(None)
        assert (before, response.ended) == (False, True)
        assert body_of(response) == sound.body
        assert response.end() is not End.EXACT
        assert not response.keep_alive
    reset = fed([sound.data])
    reset.lost(ConnectionResetError())
    assert type(reset.error) is httpx2.ReadError


def check_surplus(sound: Sound, response: ArrivingResponse) -> None:
    """Check that a response is as expected, and that bytes after it were noticed and are no part of it."""
    assert (response.error, response.ended) == (None, True)
    assert (response.status, body_of(response)) == (sound.status, sound.body)
    assert response.end() is not End.EXACT
    assert (b"X-Foreign", b"yes") not in response.headers


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS.keys())
@pytest.mark.parametrize("sound", SOUND.values(), ids=SOUND.keys())
def test_bytes_after_a_response_do_not_change_it_however_it_is_cut(sound: Sound, surplus: bytes) -> None:
    for pieces in all_cuts(sound.data + surplus):
        check_surplus(sound, fed(pieces, sound.method))


@given(
    st.sampled_from([*SOUND.values()]),
    st.sampled_from([*SURPLUS.values()]) | st.binary(min_size=1, max_size=20),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_bytes_after_a_response_do_not_change_it_in_any_reads(
    sound: Sound, surplus: bytes, at: list[int]
) -> None:
    check_surplus(sound, fed(cut(sound.data + surplus, at), sound.method))


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_ambiguous_response_is_rejected_before_its_body(data: bytes) -> None:
    for pieces in all_cuts(data):
        response = fed(pieces)
        assert type(response.error) is httpx2.RemoteProtocolError
        assert not response.ended
        assert not response.unread


@pytest.mark.parametrize("data", BROKEN_BODIES.values(), ids=BROKEN_BODIES.keys())
def test_a_broken_body_has_no_end(data: bytes) -> None:
    for pieces in all_cuts(data):
        response = fed(pieces)
        assert type(response.error) is httpx2.ReadError
        assert not response.ended


@pytest.mark.parametrize("size", [100, 4096, 65536])
@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE.keys())
def test_a_head_and_the_framing_of_a_body_are_bounded(data: bytes, size: int) -> None:
    response = fed(cut(data, range(0, len(data), size)))
    assert isinstance(response.error, httpx2.RemoteProtocolError | httpx2.ReadError)
    assert not response.ended


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_no_bytes_make_the_parser_raise(data: bytes, at: list[int]) -> None:
    fed(cut(HEAD[:13] + data, at)).lost(None)
    fed(cut(CHUNKED + data, at)).lost(None)


def test_small_chunks_may_have_their_framing() -> None:
    count = HEAD_BYTES_MAX // 4
    response = fed([CHUNKED, *[b"1\r\nx\r\n"] * count, b"0\r\n\r\n"])
    assert (response.ended, response.body_bytes) == (True, count)
    assert FRAMING_RATIO > 5


async def test_one_read_returns_everything_that_has_arrived() -> None:
    response = ArrivingResponse("GET")
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(response.read())
        await asyncio.sleep(0)
        response.feed(CHUNKED + b"3\r\none\r\n")
        response.feed(b"3\r\ntwo\r\n")
    assert reading.result() == b"onetwo"


def test_a_large_head_and_interim_responses_count_as_no_trailer() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n" * INTERIM_RESPONSES_MAX
    head = HEAD + b"X: " + b"a" * (HEAD_BYTES_MAX - 1000) + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = fed([interim + head, b"2\r\nok\r\n0\r\n\r\n"])
    assert (response.error, response.ended, body_of(response)) == (None, True, b"ok")


async def test_a_read_that_begins_before_a_cancelled_one_has_ended_is_woken() -> None:
    response = ArrivingResponse("GET")
    response.feed(CHUNKED)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        first = group.create_task(response.read())
        await asyncio.sleep(0)
        first.add_done_callback(lambda _: response.feed(b"2\r\nok\r\n"))
        first.cancel()
        assert await response.read() == b"ok"


async def test_a_cancelled_read_loses_nothing() -> None:
    response = ArrivingResponse("GET")
    response.feed(CHUNKED)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await response.read()
    response.feed(b"3\r\none\r\n")
    assert await response.read() == b"one"


def test_the_head_of_a_request_has_only_the_necessary_headers() -> None:
    sent = [(b"x-a", b"\xc3\xa9"), (b"X-A", b"")]
    assert request_head("POST", b"/v1/x", b"a:1", sent, 2) == (
        b"POST /v1/x HTTP/1.1\r\nHost: a:1\r\nx-a: \xc3\xa9\r\nX-A: \r\nContent-Length: 2\r\n\r\n"
    )
    assert request_head("GET", b"/", b"a", [], 0) == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert request_head("PUT", b"/", b"a", [], 0).endswith(b"Content-Length: 0\r\n\r\n")
    assert request_head("PUT", b"/", b"a", [], None).endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    assert b"ransfer" not in request_head("PUT", b"/", b"a", [(b"content-length", b"3")], None)
    assert request_head("GET", b"/", b"a", [(b"host", b"b")], 0) == b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"


@pytest.mark.parametrize("broken", [b"a\r\nb", b"a\nb", b"a\rb", b"a\0b"])
@pytest.mark.parametrize("place", ["target", "name", "value", "host"])
def test_a_line_break_reaches_no_upstream(broken: bytes, place: str) -> None:
    parts = {"target": b"/", "name": b"x", "value": b"y", "host": b"h"} | {place: broken}
    with pytest.raises(httpx2.LocalProtocolError):
        request_head("GET", parts["target"], parts["host"], [(parts["name"], parts["value"])], 0)


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([(b"Content-Length", b"3")], 2),
        ([(b"content-length", b"2"), (b"Content-Length", b"3")], None),
        ([(b"transfer-encoding", b"chunked")], None),
        ([(b"transfer-encoding", b"chunked")], 2),
    ],
)
def test_a_request_with_two_lengths_reaches_no_upstream(
    headers: list[tuple[bytes, bytes]], length: int | None
) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        request_head("POST", b"/", b"h", headers, length)


def test_a_target_with_a_space_reaches_no_upstream() -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        request_head("GET", b"/ HTTP/1.1", b"h", [], 0)

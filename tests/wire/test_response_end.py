"""Where a response ends, and whether more bytes follow."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.response_end import HEAD_BYTES_MAX, End, ResponseMeter, announced_idle_seconds

Pairs = list[tuple[bytes, bytes]]
FRAMINGS: list[tuple[Pairs, bytes]] = [
    ([(b"Content-Length", b"5")], b"hello"),
    ([(b"content-length", b" 5 ")], b"hello"),
    ([(b"Transfer-Encoding", b"Chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
    ([(b"Content-Length", b"0")], b""),
]
CUTS = st.lists(st.integers(0, 120), max_size=8)


def written(headers: Pairs, body: bytes, status: int = 200) -> bytes:
    """Return the bytes of a response."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"HTTP/1.1 %d X\r\n%s\r\n%s" % (status, lines, body)


def measured(data: bytes, cuts: list[int]) -> ResponseMeter:
    """Return a meter that was fed these pieces."""
    meter, ends = ResponseMeter(), [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(ends):
        if start < end:
            meter.feed(data[start:end])
    return meter


@given(st.sampled_from(FRAMINGS), CUTS)
def test_a_response_ends_exactly_however_it_is_split(framing: tuple[Pairs, bytes], cuts: list[int]) -> None:
    headers, body = framing
    assert measured(written(headers, body), cuts).end("GET", 200, headers) is End.EXACT


@given(st.sampled_from(FRAMINGS), CUTS, st.binary(min_size=1, max_size=40))
def test_surplus_bytes_are_detected_however_they_are_split(
    framing: tuple[Pairs, bytes], cuts: list[int], surplus: bytes
) -> None:
    headers, body = framing
    if headers[0][0] == b"Transfer-Encoding" and surplus.endswith(b"0\r\n\r\n"):
        return  # A parser reads that as another message, or fails.
    assert measured(written(headers, body) + surplus, cuts).end("GET", 200, headers) is not End.EXACT


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_some_responses_never_have_a_body(method: str, status: int) -> None:
    headers = [(b"Content-Length", b"5")]
    assert measured(written(headers, b"", status), []).end(method, status, headers) is End.EXACT
    assert measured(written(headers, b"hello", status), []).end(method, status, headers) is End.SURPLUS


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"Content-Length", b"5"), (b"Content-Length", b"5")],
        [(b"Content-Length", b"+5")],
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"identity")],
    ],
)
def test_any_other_framing_is_unclear(headers: Pairs) -> None:
    for body in (b"hello", b"5\r\nhello\r\n0\r\n\r\n"):
        assert measured(written(headers, body), []).end("GET", 200, headers) is End.UNCLEAR


@pytest.mark.parametrize(
    "data",
    [
        b"\r\nHTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\r\n" + b"X: " + b"x" * HEAD_BYTES_MAX + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_odd_head_is_unclear(data: bytes) -> None:
    meter = measured(data, list(range(0, len(data), 65536)))
    assert meter.end("GET", 200, [(b"Content-Length", b"0")]) is End.UNCLEAR


def test_an_incomplete_response_is_unclear() -> None:
    headers = [(b"Content-Length", b"5")]
    assert measured(written(headers, b"hell"), []).end("GET", 200, headers) is End.UNCLEAR


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=15, max=100", 15),
        (b"max=3,Timeout=2", 2),
        (b"timeout=", None),
        (b"idle-timeout=3", None),
    ],
)
def test_a_server_may_say_how_long_it_keeps_connections(value: bytes, seconds: float | None) -> None:
    assert announced_idle_seconds([(b"Keep-Alive", value)]) == seconds

"""The response parser returns the same bytes wherever the reads end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.load import MalformedResponseError, ResponseParser
from tests.benchmarks.wire import CHUNKED_END, chunk

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nX-Other: 1\r\nTransfer-Encoding: chunked\r\n\r\n"


def feed_cut(message: bytes, cuts: list[int]) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser()
    places = sorted({0, len(message), *(cut % len(message) for cut in cuts)})
    pieces = [message[start:end] for start, end in pairwise(places)]
    return parser, b"".join(parser.feed(piece) for piece in pieces)


@given(chunks=st.lists(st.binary(min_size=1, max_size=40)), cuts=st.lists(st.integers(0, 10_000)))
def test_any_split_of_a_chunked_body_gives_the_same_bytes(chunks: list[bytes], cuts: list[int]) -> None:
    message = CHUNKED_HEAD + b"".join(map(chunk, chunks)) + CHUNKED_END
    parser, body = feed_cut(message, cuts)
    assert body == b"".join(chunks)
    assert parser.done
    assert parser.status == 200


@given(content=st.binary(max_size=80), cuts=st.lists(st.integers(0, 10_000)))
def test_any_split_of_a_sized_body_gives_the_same_bytes(content: bytes, cuts: list[int]) -> None:
    message = b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\nConnection: close\r\n\r\n" % len(content) + content
    parser, body = feed_cut(message, cuts)
    assert body == content
    assert (parser.done, parser.status, parser.closes) == (True, 503, True)


def test_a_truncated_response_is_not_complete() -> None:
    parser = ResponseParser()
    assert parser.feed(CHUNKED_HEAD + chunk(b"word") + b"0\r\n") == b"word"
    assert not parser.done


@pytest.mark.parametrize(
    "message",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        CHUNKED_HEAD + b"size\r\n",
        CHUNKED_HEAD + b"1\r\nab\r\n",
        CHUNKED_HEAD + CHUNKED_END + b"more",
    ],
)
def test_invalid_responses_are_rejected(message: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        ResponseParser().feed(message)

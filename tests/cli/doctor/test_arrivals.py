"""Judge buffering by arrival times."""

import pytest

from proxy.cli.doctor.arrivals import Timing, buffering_cause


def steadily(count: int, gap: float, first: float = 0.5) -> Timing:
    return Timing([first + gap * number for number in range(count)])


@pytest.mark.parametrize(
    ("timing", "buffered"),
    [
        (steadily(20, 0.1), False),
        (steadily(20, 0.005), False),  # 200 tokens a second
        (steadily(20, 0.0), True),
        (steadily(20, 0.0005), True),  # one block, parsed piece by piece
        (Timing([block * 0.5 for block in range(1, 4) for _ in range(10)]), True),
        (Timing([pair * 0.1 for pair in range(1, 11) for _ in range(2)]), False),  # two tokens a packet
        (steadily(5, 0.0), False),  # too few
        (steadily(20, 0.0, first=0.1), False),  # too quick
        (Timing([]), False),
    ],
)
def test_blocks_are_distinguished_from_a_stream(timing: Timing, *, buffered: bool) -> None:
    assert timing.buffered is buffered


@pytest.mark.parametrize(
    ("headers", "version", "cause"),
    [
        ([(b"Server", b"nginx/1.22.1")], "1.1", "buffered_by_nginx"),
        ([(b"Server", b"nginx"), (b"Content-Encoding", b"gzip")], "1.1", "buffered_by_compression"),
        ([(b"Server", b"nginx"), (b"X-Served-By", b"cache-fra")], "1.1", "buffered_by_cdn"),
        ([(b"Server", b"Tengine")], "1.1", "buffered_by_cdn"),
        ([], "1.0", "buffered_by_http_1_0"),
        ([(b"Content-Length", b"900")], "1.1", "buffered_whole"),
        ([(b"Content-Encoding", b"identity")], "1.1", "buffered_somewhere"),
    ],
)
def test_the_headers_show_the_likeliest_cause(
    headers: list[tuple[bytes, bytes]], version: str, cause: str
) -> None:
    assert buffering_cause(headers, version) == cause

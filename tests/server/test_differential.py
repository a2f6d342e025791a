"""Our server, h11 and nginx may differ in which requests they accept, but never in where a request ends."""

from collections.abc import Mapping
from pathlib import Path

from tests.conftest import require
from tests.nginx import find_nginx
from tests.server.http_parsers import Read, nginx_lanes, our_lanes, read_all, read_with_h11
from tests.server.parser_differences import DIFFERENCES
from tests.server.request_corpus import AFTER, CORPUS

STREAMS = {name: data + AFTER for name, data in CORPUS.items()}
CASES_MIN = 400


def conflicts(one: Mapping[str, list[Read]], other: Mapping[str, list[Read]]) -> list[str]:
    """Return the places where both read a request, but with different ends."""
    return [
        name
        for name in STREAMS
        if any(ours != theirs for ours, theirs in zip(one[name], other[name], strict=False))
    ]


def accepted_by(read: Mapping[str, Mapping[str, list[Read]]], name: str) -> frozenset[str]:
    """Return the parsers that accept most of a stream; none if all accept the same."""
    counts = {parser: len(found[name]) for parser, found in read.items()}
    if len({*counts.values()}) == 1:
        return frozenset()
    return frozenset(parser for parser, count in counts.items() if count == max(counts.values()))


async def test_no_parser_finds_another_end_of_a_request_and_each_difference_is_explained(
    tmp_path: Path,
) -> None:
    require("nginx", found=find_nginx() is not None)
    assert len(STREAMS) >= CASES_MIN
    async with our_lanes() as ours, nginx_lanes(tmp_path, before_us=False) as nginx:
        read = {
            "ours": await read_all(STREAMS, ours),
            "h11": {name: read_with_h11(data) for name, data in STREAMS.items()},
            "nginx": await read_all(STREAMS, nginx),
        }
    assert conflicts(read["ours"], read["h11"]) == []
    assert conflicts(read["ours"], read["nginx"]) == []
    found = {name: by for name in STREAMS if (by := accepted_by(read, name))}
    explained = {name: difference.accepted_by for difference in DIFFERENCES for name in difference.names}
    assert found == explained


async def test_behind_nginx_our_server_reads_only_requests_that_nginx_sent(tmp_path: Path) -> None:
    require("nginx", found=find_nginx() is not None)
    for name in ("alone", "before-us"):
        (tmp_path / name).mkdir()
    async with (
        nginx_lanes(tmp_path / "alone", before_us=False) as alone,
        nginx_lanes(tmp_path / "before-us", before_us=True) as before_us,
    ):
        sent = await read_all(STREAMS, alone)
        seen = await read_all(STREAMS, before_us)
    for name, requests in seen.items():
        rest = iter(sent[name])
        assert all(request in rest for request in requests), name  # in order; some are rejected

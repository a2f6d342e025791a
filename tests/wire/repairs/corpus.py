"""Vendors' event streams with random faults, reproducible by seed."""

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.wire.endpoints import Shape
from tests.wire.repairs.vendor_streams import DONE, TEXT, VENDORS


@dataclass(frozen=True)
class Sample:
    """One stream as received from the network."""

    number: int
    vendor: str
    usage_requested: bool
    pieces: list[bytes]

    @property
    def shape(self) -> Shape:
        """The shape of its chunks."""
        return Shape.COMPLETION if self.vendor == TEXT else Shape.CHAT

    @property
    def whole(self) -> bytes:
        """The whole stream."""
        return b"".join(self.pieces)


def samples(numbers: Iterable[int], seed: int = 20261124) -> Iterator[Sample]:
    """Yield the streams with these numbers, each determined by its number and the seed."""
    names = list(VENDORS)
    for number in numbers:
        draw = random.Random(f"{seed}/{number}")
        vendor = names[number % len(names)]
        asked = draw.random() < 0.5
        blocks = VENDORS[vendor](draw, asked)
        stream = _mutated(draw, blocks)
        yield Sample(number, vendor, asked, _cut(draw, stream))


def _mutated(draw: random.Random, blocks: list[str]) -> bytes:
    """Return the stream with up to four faults; a fifth of the streams have none."""
    mishaps = 0 if draw.random() < 0.2 else draw.randint(1, 4)
    for _ in range(mishaps):
        draw.choice(_TO_BLOCKS)(draw, blocks)
    stream = "".join(blocks).encode("utf-8", "surrogatepass")
    if draw.random() < 0.3:
        stream = _other_line_ends(draw, stream)
    if draw.random() < 0.1:
        stream = b"\xef\xbb\xbf" + stream
    if mishaps and draw.random() < 0.35:
        stream = draw.choice(_TO_BYTES)(draw, stream)
    return stream


def _drop(draw: random.Random, blocks: list[str]) -> None:
    if blocks:
        del blocks[draw.randrange(len(blocks))]


def _double(draw: random.Random, blocks: list[str]) -> None:
    if blocks:
        place = draw.randrange(len(blocks))
        blocks.insert(place, blocks[place])


def _swap(draw: random.Random, blocks: list[str]) -> None:
    draw.shuffle(blocks)


def _merge(draw: random.Random, blocks: list[str]) -> None:
    """Remove a blank line, so that two `data:` lines become one event."""
    if blocks:
        place = draw.randrange(len(blocks))
        blocks[place] = blocks[place].removesuffix("\n")


def _spread(draw: random.Random, blocks: list[str]) -> None:
    """Split JSON over several `data:` lines."""
    if blocks:
        place = draw.randrange(len(blocks))
        blocks[place] = blocks[place].replace(", ", ",\ndata: ")


def _insert(draw: random.Random, blocks: list[str]) -> None:
    deep = draw.choice([5, 50, 100_000])
    odd = draw.choice(
        [
            ": comment\n\n",
            "\n\n\n",
            "data\n\n",
            "data:\n\n",
            "data: null\n\n",
            "data: []\n\n",
            "data: 1e999\n\n",
            "data: {}\n\n",
            "event: ping\ndata: {}\n\n",
            'data: {"choices": {}}\n\n',
            'data: {"choices": [null, 1, "x"], "usage": {}}\n\n',
            'data: {"choices": [{"delta": []}], "usage": []}\n\n',
            "<html>\n\n",
            DONE,
            f"data: {'[' * deep}{']' * deep}\n\n",
            f'data: {{"choices": [{{"delta": null, "deep": {"[" * deep}{"]" * deep}}}]}}\n\n',
        ]
    )
    blocks.insert(draw.randint(0, len(blocks)), odd)


def _other_value(draw: random.Random, blocks: list[str]) -> None:
    """Return other values, or the same key twice."""
    if not blocks:
        return
    place = draw.randrange(len(blocks))
    old, new = draw.choice(
        [
            ('"delta": {', '"delta": null, "delta": {'),
            ('"usage": null', '"usage": {"total_tokens": 123456789012345678901234567890}'),
            ('"index": 0', '"index": 1e400'),
            ('"index": 0', '"index": -1'),
            ('"index": 0', '"index": "0"'),
            ('"content": "', '"content": "\\ud83d\\ude42'),
            ('"content": "', '"content": "\\u0000'),
            ('"finish_reason": null', '"finish_reason": ""'),
            ('"choices": [', '"usage": {"total_tokens": 1}, "choices": ['),
            ('"choices": [{', '"choices": [], "choices": [{'),
            ('"choices": [{', '"choices": [null, {'),
            ("{", " { "),
            (": ", ":"),
            ('"id": "c-1"', '"id": 1.50e+07, "error": null, "code": null'),
            ('"choices": []', '"choices": [], "code": "000000", "message": "fine"'),
            ('"choices": []', '"choices": [], "code": 1000, "msg": "Success"'),
            ('"choices": []', '"choices": [], "error": false'),
            ('"choices": []', '"choices": [], "error": 0'),
            ('"function": {', '"function": null, "function": {'),
            ('"tool_calls": [', '"tool_calls": [null, '),
            ('"content": [', '"content": [{"type": "image_url", "image_url": {"url": "u"}}, '),
            ('"content": [', '"content": [{"type": "text", "text": "x"}, '),
        ]
    )
    head, colon, text = blocks[place].partition("data: ")
    blocks[place] = head + colon + text.replace(old, new)


def _other_line_ends(draw: random.Random, stream: bytes) -> bytes:
    ends = draw.choice([[b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"], [b"\n", b"\r\n"]])
    lines = stream.split(b"\n")
    return b"".join(line + draw.choice(ends) for line in lines[:-1]) + lines[-1]


def _truncate(draw: random.Random, stream: bytes) -> bytes:
    return stream[: draw.randint(0, len(stream))]


def _without_end(_: random.Random, stream: bytes) -> bytes:
    return stream.rstrip(b"\r\n")


def _flip(draw: random.Random, stream: bytes) -> bytes:
    flipped = bytearray(stream)
    for _ in range(draw.randint(1, 3) if flipped else 0):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _no_utf8(draw: random.Random, stream: bytes) -> bytes:
    place = draw.randint(0, len(stream))
    bad = draw.choice([b"\xff", b"\xe4\xbd", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
    return stream[:place] + bad + stream[place:]


_TO_BLOCKS: Final = (_drop, _double, _swap, _merge, _spread, _insert, _other_value, _other_value, _insert)
_TO_BYTES: Final = (_truncate, _without_end, _flip, _no_utf8)


def _cut(draw: random.Random, stream: bytes) -> list[bytes]:
    """Split the stream: not at all, into bytes, or at random positions."""
    how = draw.random()
    if how < 0.2 or not stream:
        return [stream]
    if how < 0.3 and len(stream) < 4000:
        return [stream[place : place + 1] for place in range(len(stream))]
    places = sorted({0, len(stream), *(draw.randint(0, len(stream)) for _ in range(draw.randint(1, 12)))})
    return [stream[a:b] for a, b in itertools.pairwise(places) if a < b]

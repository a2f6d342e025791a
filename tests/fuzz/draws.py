"""A request and its fate, both drawn from the seed and the number of the request."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.misbehaving_upstreams import MISBEHAVIOURS, Script, honest

PLANTED: Final = b"GET /v1/planted?nonce=%s HTTP/1.1\r\nHost: x\r\n\r\n"
"""A body that an upstream may mistake for a request."""
HONESTY: Final = (0.3, 0.9, 0.99, 0.999)
"""Shares of correct responses; each round of an upstream has another one."""
CANCEL_SECONDS_MAX: Final = 0.03


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one caller.

    Args:
        nonce: Names it in all that belongs to it.
        head: Request line and headers, without the blank line.
        body: In the pieces in which it is written; one piece has a length, several are chunks.
        cancel_after: Seconds after which its caller leaves; None for a caller who waits.
    """

    nonce: bytes
    head: bytes
    body: list[bytes]
    cancel_after: float | None

    def written(self) -> Iterator[bytes]:
        """Yield the request in the pieces in which it is written."""
        if len(self.body) == 1:
            yield self.head + b"Content-Length: %d\r\n\r\n" % len(self.body[0]) + self.body[0]
            return
        yield self.head + b"Transfer-Encoding: chunked\r\n\r\n"
        for piece in self.body:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"


def draw_call(seed: int, number: int, cancels: float, key: str) -> Call:
    """The request of this number.

    Args:
        seed: Of the run.
        number: Of the request.
        cancels: The share of callers who leave early.
        key: The caller's key.
    """
    draw = random.Random(f"{seed}:{number}")
    nonce = b"%s-%06d" % (draw.choice([b"A", b"B", b"C", b"D"]), number)
    kind = draw.choice(["chat", "chat", "stream", "stream", "embed", "get", "delete", "upload", "chunks"])
    planted = (PLANTED % nonce) * draw.choice([1, 1, 3])
    method, path, content_type, body = {
        "chat": ("POST", "chat/completions", "application/json", [b'{"model": "m", "messages": []}']),
        "stream": ("POST", "chat/completions", "application/json", [b'{"model": "m", "stream": true}']),
        "embed": ("POST", "embeddings", "application/json", [b'{"model": "m", "input": "x"}']),
        "get": ("GET", "files/f", "text/plain", [planted if draw.random() < 0.5 else b""]),
        "delete": ("DELETE", "files/f", "text/plain", [planted if draw.random() < 0.5 else b""]),
        "upload": ("POST", "files", "text/plain", [planted]),
        "chunks": ("POST", "files", "text/plain", [planted[:9], planted[9:]]),
    }[kind]
    lines = [
        f"{method} /v1/{path}?nonce={nonce.decode()} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        f"Content-Type: {content_type}",
        "",
    ]
    leaves = draw.random() < cancels
    return Call(
        nonce,
        "\r\n".join(lines).encode(),
        body,
        draw.uniform(0, CANCEL_SECONDS_MAX) if leaves else None,
    )


def draw_script(honesty: float, draw: random.Random) -> Script:
    """Return how an upstream treats one request."""
    return honest if draw.random() < honesty else draw.choice(MISBEHAVIOURS)

"""Ports for programs that cannot choose one, and for addresses on which nothing listens."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RANGE: Final = (10_000, 30_000)
"""Ports below those that the system assigns to outgoing connections and to servers without a fixed port."""


def free_port() -> int:
    """Return an unused loopback port that the system does not assign."""
    dice = random.SystemRandom()
    while True:
        port = dice.randint(*RANGE)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


@contextmanager
def refusing_port() -> Iterator[int]:
    """Hold a loopback port that refuses connections: nobody else gets it, and nobody listens on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]

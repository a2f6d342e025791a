"""Ports for what cannot choose one itself, or for an address where nobody listens."""

import random
import socket
from typing import Final

RANGE: Final = (10_000, 30_000)
"""Below the ports that the system gives to outgoing connections and to servers that ask for any."""


def free_port() -> int:
    """A loopback port that nobody uses, and that nobody gets by chance."""
    dice = random.SystemRandom()
    while True:
        port = dice.randint(*RANGE)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue

"""The answers that every client must receive."""

import struct
from typing import Final

from proxy.gateway.models import DIMENSIONS, pack_vector

ECHO: Final = "As a mock AI Assitant, I can only echo your last message:你是谁"
PIECES: Final = 15
"""The number of pieces in which the gateway streams it."""
USAGE: Final = [3, PIECES]
MODELS: Final = ["mock-gpt-model", "mock-embedding-model"]
HELD: Final = ["As ", "a "]
"""The pieces of a stream that stalls until the client disconnects."""
CUT: Final = "the response was cut off: the connection to the upstream was lost"
WRONG_KEY: Final = [401, "invalid_api_key"]


def vectors(*items: str | list[int]) -> list[list[float]]:
    """Return the gateway's vectors for texts or token numbers."""
    return [list(struct.unpack(f"<{DIMENSIONS}f", pack_vector(item, DIMENSIONS))) for item in items]


def arrived_in_pieces(pieces: list[str]) -> bool:
    """Return whether the whole echo arrived, piece by piece."""
    return "".join(pieces) == ECHO and len(pieces) >= PIECES

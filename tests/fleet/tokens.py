"""Tokens that say themselves when they end, signed so that a changed one is noticed (pure).

Issuer and upstream run in different processes. All times are seconds on the machine's monotonic clock, which
every process reads alike.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Self

PREFIX: Final = "flt-"
"""The beginning of each token, by which a token in a log is found."""
_KEY: Final = b"the issuer and the upstream of the fleet tests share this key"


@dataclass(frozen=True, slots=True)
class FleetToken:
    """One token.

    Args:
        epoch: Number of the client secret that the token was issued for.
        serial: Number of the token.
        born: When it was issued.
        told: When it ends, as the issuer announced.
        dies: When the upstream stops accepting it.
    """

    epoch: int
    serial: int
    born: float
    told: float
    dies: float

    def encode(self) -> str:
        """Return the token as it is sent."""
        text = f"{self.epoch}-{self.serial}-{self.born:.3f}-{self.told:.3f}-{self.dies:.3f}"
        return f"{PREFIX}{text}-{_signature(text)}"

    @classmethod
    def decode(cls, token: str) -> Self | None:
        """Read a token; None if it is not one of the issuer's."""
        text, _, signature = token.removeprefix(PREFIX).rpartition("-")
        if not token.startswith(PREFIX) or not hmac.compare_digest(_signature(text), signature):
            return None
        epoch, serial, born, told, dies = text.split("-")
        return cls(int(epoch), int(serial), float(born), float(told), float(dies))


def _signature(text: str) -> str:
    return hmac.digest(_KEY, text.encode(), hashlib.sha256).hex()[:16]

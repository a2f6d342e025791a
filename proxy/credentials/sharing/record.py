"""What a fleet shares of a token: the token, its whole life, the issuer's hint; sealed, as JSON (pure).

How much of the life is left is not written: the expiry of the record in the store says it.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import msgspec

from proxy.credentials.credential import Credential, FetchedToken, mint, skew_of
from proxy.credentials.sharing.seal import Seal, SealBroken
from proxy.secret import Secret


class _Stored(msgspec.Struct, frozen=True):
    token: str
    lifetime: float | None
    refresh_in: float | None = None


def write_record(fetched: FetchedToken, seal: Seal, place: str) -> bytes:
    """Seal a token for its key in the store."""
    lifetime = fetched.lifetime if math.isfinite(fetched.lifetime) else None
    stored = _Stored(fetched.secret.reveal(), lifetime, fetched.refresh_in)
    return seal.close(msgspec.json.encode(stored), place)


def read_record(raw: bytes, seal: Seal, place: str) -> FetchedToken | None:
    """Open a record as it lies in the store, `NUMBER SEALED`; None where it cannot be read."""
    try:
        stored = msgspec.json.decode(seal.open(raw.partition(b" ")[2], place), type=_Stored)
    except (SealBroken, msgspec.DecodeError):
        return None
    lifetime = math.inf if stored.lifetime is None else stored.lifetime
    return FetchedToken(Secret(stored.token), lifetime, stored.refresh_in)


def adopt(
    fetched: FetchedToken,
    *,
    asked: float,
    remaining: float,
    generation: int,
    uniform: Callable[[float, float], float],
) -> Credential:
    """Somebody else's token as this process holds it.

    Args:
        fetched: As it was stored.
        asked: When the store was asked for it, on this process's clock.
        remaining: Seconds until the store forgets it, which is its hard end.
        generation: Its number here.
        uniform: Draws this process's own moment for the next refresh.
    """
    life = fetched.lifetime
    # What is sealed bounds what is not: the store's clock may shorten a life, never lengthen it.
    gone = 0.0 if math.isinf(life) else max(life - skew_of(life) - remaining, 0.0)
    credential = mint(fetched, generation=generation, obtained=asked - gone, uniform=uniform)
    return replace(credential, adopted=True)

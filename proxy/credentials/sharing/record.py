"""What a fleet shares of a token: the token, its whole life, the issuer's hint; sealed, as JSON (pure).

How much of the life is left is not written: the expiry of the record in the store says it.
"""

import math
from collections.abc import Callable

import msgspec

from proxy.credentials.credential import FOLLOWER_FRACTION, Credential, FetchedToken, mint, skew_of
from proxy.credentials.sharing.seal import Seal, SealBroken
from proxy.secret import Secret


class _Stored(msgspec.Struct, frozen=True):
    token: str
    lifetime: float | None
    refresh_in: float | None = None
    certain: bool = True


def write_record(fetched: FetchedToken, seal: Seal, place: str) -> bytes:
    """Seal a token for its key in the store."""
    lifetime = fetched.lifetime if math.isfinite(fetched.lifetime) else None
    stored = _Stored(fetched.secret.reveal(), lifetime, fetched.refresh_in, fetched.certain)
    return seal.close(msgspec.json.encode(stored), place)


def read_record(raw: bytes, seal: Seal, place: str) -> FetchedToken | None:
    """Open a record as it is in the store, `TAG SEALED`; None if it cannot be read."""
    try:
        stored = msgspec.json.decode(seal.open(raw.partition(b" ")[2], place), type=_Stored)
    except (SealBroken, msgspec.DecodeError):
        return None
    lifetime = math.inf if stored.lifetime is None else stored.lifetime
    return FetchedToken(Secret(stored.token), lifetime, stored.refresh_in, certain=stored.certain)


def usable_life(fetched: FetchedToken) -> float:
    """Return the seconds from its request in which a token may be sent, by what its issuer says."""
    return fetched.lifetime - skew_of(fetched.lifetime, certain=fetched.certain)


def adopt(
    fetched: FetchedToken,
    *,
    asked: float,
    remaining: float,
    generation: int,
    uniform: Callable[[float, float], float],
    longest: float = math.inf,
) -> Credential:
    """Make another process's token a credential of this one.

    Args:
        fetched: As it was stored.
        asked: When the store was asked for it, on this process's clock.
        remaining: Seconds until the store forgets it, which is its hard end.
        generation: Its number here.
        uniform: Draws this process's own moment for the next refresh.
        longest: Seconds that a token is believed to live at most.
    """
    life = fetched.lifetime
    # What is sealed bounds what is not: the store's clock may shorten a life, never lengthen it.
    gone = 0.0 if math.isinf(life) else max(usable_life(fetched) - remaining, 0.0)
    return mint(
        fetched,
        generation=generation,
        obtained=asked - gone,
        uniform=uniform,
        spread=FOLLOWER_FRACTION,
        longest=longest,
        adopted=True,
    )

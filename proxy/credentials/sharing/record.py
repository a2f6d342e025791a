"""The records of a fleet in Redis: their names, their encryption and their content (pure).

A record contains the token, its whole lifetime and the issuer's hint as JSON, encrypted with AES-256-GCM. The
remaining lifetime is the expiry of the record in Redis.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from proxy.credentials.token import FOLLOWER_FRACTION, FetchedToken, Token, skew_of, with_deadlines
from proxy.secret import Secret
from proxy.settings import CredentialSettings
from proxy.settings.credentials.section import CredentialSection
from proxy.settings.interpolation import LateReference, LateText
from proxy.settings.section import Section

_NOT_IDENTIFYING: Final = frozenset(
    {
        "ca_file",
        "connect_timeout",
        "inject",
        "invalidate_on",
        "proxy",
        "reissue",
        "sharing",
        "timeout",
        "trust_env",
    }
)
_PATHS_ONLY: Final = frozenset({"cwd", "token_file"})
"""Paths whose content changes, so that only the path identifies them. Key files are identified by content."""


def identity_of(name: str, sections: Mapping[str, CredentialSettings]) -> bytes:
    """Serialize everything that determines which token a credential receives, including secrets.

    The result must be hashed with a key. A changed secret, URL, scope or audience changes it; the name of the
    credential, and the use of its token, do not.
    """
    return json.dumps(_plain(sections[name], sections), sort_keys=True).encode()


def _plain(value: object, sections: Mapping[str, CredentialSettings]) -> object:
    match value:
        case Secret():
            return {"secret": value.reveal()}
        case LateText():
            return {"late": [_part(part, sections) for part in value.parts]}
        case Section():
            fields = {
                field: _identifying(field, getattr(value, field), sections)
                for field in type(value).model_fields
                if field not in _NOT_IDENTIFYING
            }
            choices = value.inherited_choices if isinstance(value, CredentialSection) else {}
            inherited = {name: _identifying(name, choice, sections) for name, choice in choices.items()}
            return {**fields, "inherited": {"table": inherited}} if inherited else fields
        case Mapping():
            return {"table": {str(key): _plain(item, sections) for key, item in value.items()}}
        case list() | tuple():
            return [_plain(item, sections) for item in value]
        case _:
            return value


def _identifying(field: str, value: object, sections: Mapping[str, CredentialSettings]) -> object:
    if not isinstance(value, Path):
        return _plain(value, sections)
    path = value.absolute()
    if field not in _PATHS_ONLY and path.is_file():
        with contextlib.suppress(OSError):  # nobody has checked a path in the environment
            return {"content": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {"path": str(path)}


def _part(part: str | LateReference, sections: Mapping[str, CredentialSettings]) -> object:
    if isinstance(part, str):
        return part
    # Another token in the request is identified by its recipe, not by its name.
    return [part.kind, _plain(sections[part.name], sections) if part.name else ""]


RECORD_SECONDS_MAX: Final = 40 * 86400.0
"""The longest time for which a record is kept."""
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 4


class SealBroken(Exception):
    """The bytes were not encrypted for this place with a known key."""


class Seal:
    """Encrypts with one key, and decrypts with that key and further ones.

    Args:
        keys: 32 bytes each; the first one encrypts.
        name_key: Derives the names of records; by default the first key. If it stays the same while the other
            keys are replaced, all processes continue to share the same records.
    """

    def __init__(self, keys: Sequence[bytes], name_key: bytes | None = None) -> None:
        # Imported here because cryptography takes 7 MB, and only shared tokens are encrypted.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._broken = (KeyError, ValueError, InvalidTag)
        self._ciphers = {hashlib.sha256(b"id" + key).digest()[:_ID_BYTES]: AESGCM(key) for key in keys}
        self._key_id = next(iter(self._ciphers))
        self._naming_key = hashlib.sha256(b"names" + (name_key or keys[0])).digest()

    def name(self, text: bytes) -> str:
        """Return the HMAC-SHA-256 of a text in hexadecimal, which reveals nothing about it."""
        return hmac.digest(self._naming_key, text, hashlib.sha256).hex()

    def close(self, plain: bytes, place: str) -> bytes:
        """Encrypt bytes for one place. They cannot be decrypted for another place."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._key_id].encrypt(nonce, plain, place.encode())
        return base64.b64encode(self._key_id + nonce + cipher)

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt bytes.

        Raises:
            SealBroken: The key is unknown, the place is another one, or the bytes were altered.
        """
        try:
            raw = base64.b64decode(sealed, validate=True)
            cipher = self._ciphers[raw[:_ID_BYTES]]
            nonce, rest = raw[_ID_BYTES:][:_NONCE_BYTES], raw[_ID_BYTES + _NONCE_BYTES :]
            return cipher.decrypt(nonce, rest, place.encode())
        except self._broken as error:
            raise SealBroken from error


class _Stored(msgspec.Struct, frozen=True):
    token: str
    lifetime: float | None
    refresh_in: float | None = None
    certain: bool = True


def write_record(fetched: FetchedToken, seal: Seal, place: str) -> bytes:
    """Encrypt a token for its key in Redis."""
    lifetime = fetched.lifetime if math.isfinite(fetched.lifetime) else None
    stored = _Stored(fetched.secret.reveal(), lifetime, fetched.refresh_in, fetched.certain)
    return seal.close(msgspec.json.encode(stored), place)


def read_record(raw: bytes, seal: Seal, place: str) -> FetchedToken | None:
    """Decrypt a record in the form `TAG SEALED`; return None if that is not possible."""
    try:
        stored = msgspec.json.decode(seal.open(raw.partition(b" ")[2], place), type=_Stored)
    except (SealBroken, msgspec.DecodeError):
        return None
    lifetime = math.inf if stored.lifetime is None else stored.lifetime
    return FetchedToken(Secret(stored.token), lifetime, stored.refresh_in, certain=stored.certain)


def record_life(fetched: FetchedToken) -> float:
    """Return for how many seconds after its request the record of a token is kept.

    That is while the token may be sent according to its issuer, but never longer than the fleet's counters.
    """
    return min(fetched.lifetime - skew_of(fetched.lifetime, certain=fetched.certain), RECORD_SECONDS_MAX)


def adopt(
    fetched: FetchedToken,
    *,
    read_at: float,
    remaining: float,
    generation: int,
    uniform: Callable[[float, float], float],
    longest: float = math.inf,
) -> Token:
    """Turn a record's token into one of this process.

    Args:
        fetched: The token in the record.
        read_at: When it was requested from Redis, by this process's clock.
        remaining: Seconds until the record expires; see `record_life`.
        generation: Its number in this process.
        uniform: Returns a random number between two bounds, for this process's next refresh.
        longest: An upper bound for the lifetime in seconds.
    """
    # The expiry in Redis is not encrypted, so it may shorten the lifetime but never extend it.
    elapsed = max(record_life(fetched) - remaining, 0.0)
    return with_deadlines(
        fetched,
        generation=generation,
        obtained=read_at - elapsed,
        uniform=uniform,
        spread=FOLLOWER_FRACTION,
        longest=longest,
        adopted=True,
    )

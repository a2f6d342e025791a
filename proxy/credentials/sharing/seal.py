"""Seal what lies in the shared store: AES-256-GCM, with the place bound in and keys that can be rotated."""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 4


class SealBroken(Exception):
    """The bytes were not sealed here, for this place, with a key that is known."""


class Seal:
    """Encrypts with one key, opens with that one and the others.

    Args:
        keys: 32 bytes each; the first one seals.
        name_key: Makes the names of records; the sealing key does where there is none. One that stays while
            the others are exchanged keeps a fleet together meanwhile.
    """

    def __init__(self, keys: Sequence[bytes], name_key: bytes | None = None) -> None:
        self._ciphers = {hashlib.sha256(b"id" + key).digest()[:_ID_BYTES]: AESGCM(key) for key in keys}
        self._sealing = next(iter(self._ciphers))
        self._naming_key = hashlib.sha256(b"names" + (name_key or keys[0])).digest()

    def name(self, text: bytes) -> str:
        """A name that tells nothing about the text: its HMAC-SHA-256, in hexadecimal."""
        return hmac.digest(self._naming_key, text, hashlib.sha256).hex()

    def close(self, plain: bytes, place: str) -> bytes:
        """Seal bytes for one place; what is moved to another place does not open."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._sealing].encrypt(nonce, plain, place.encode())
        return base64.b64encode(self._sealing + nonce + cipher)

    def open(self, sealed: bytes, place: str) -> bytes:
        """The bytes that were sealed.

        Raises:
            SealBroken: with an unknown key, for another place, altered, or not sealed at all.
        """
        try:
            raw = base64.b64decode(sealed, validate=True)
            cipher = self._ciphers[raw[:_ID_BYTES]]
            nonce, rest = raw[_ID_BYTES:][:_NONCE_BYTES], raw[_ID_BYTES + _NONCE_BYTES :]
            return cipher.decrypt(nonce, rest, place.encode())
        except (KeyError, ValueError, InvalidTag) as error:
            raise SealBroken from error

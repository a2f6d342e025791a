"""Tokens that we sign ourselves (RFC 7519): nobody is asked for them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources.request_values import Moment
from proxy.credentials.sources.signature import Signer
from proxy.secret import Secret
from proxy.settings import JwtCredential

_UNITS_A_SECOND: Final[Mapping[str, int]] = {"seconds": 1, "milliseconds": 1000}


class JwtTokenSource:
    """Signs a token whenever it is asked for one.

    Args:
        section: What it says, and the key.
        clock: Seconds since the epoch.

    Raises:
        ValueError: The key does not fit the algorithm.
    """

    def __init__(self, section: JwtCredential, clock: Callable[[], float] = time.time) -> None:
        self._section = section
        self._clock = clock
        self._signer = Signer(section.key, section.algorithm)

    async def fetch(self) -> FetchedToken:
        """Sign one that begins now."""
        now = self._clock()
        section = self._section
        scale = _UNITS_A_SECOND[section.unit]
        issued = int(now * scale)
        expires = issued + section.ttl * scale
        claims = self._filled(section.claims, now)
        claims |= {
            name: at for name, at in ((section.issued_claim, issued), (section.expiry_claim, expires)) if name
        }
        if section.jti:
            claims["jti"] = str(uuid4())
        # The end that is written is cut to whole units: that one counts.
        return FetchedToken(Secret(self._signed(claims, now)), expires / scale - now)

    async def close(self) -> None:
        """Nothing is open."""

    def _signed(self, claims: Mapping[str, Any], now: float) -> str:
        headers = self._filled(self._section.headers, now)
        if self._section.key_id is not None:
            headers["kid"] = self._section.key_id
        return self._signer.sign(claims, headers)

    def _filled(self, table: Mapping[str, Any], now: float) -> dict[str, Any]:
        filled: dict[str, Any] = Moment(now=now).fill_json(table)
        return filled

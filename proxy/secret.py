"""A string that is masked in repr, logs, tracebacks and dumps of the settings."""

import hashlib
import hmac
from typing import NoReturn

MASK = "********"


class Secret:
    """A string that is revealed only to write it into a request or to compare it.

    Comparison takes constant time. Neither repr nor formatting reveals the value, and it cannot be pickled,
    except by `proxy.cli.worker_configuration` for the worker processes.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret. Call this only where the secret is written into a request."""
        return self._value

    def digest(self) -> bytes:
        """Return the SHA-256 of the secret, for comparison."""
        return hashlib.sha256(self._value.encode()).digest()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

"""What can be a token at all (pure)."""

from typing import Final, TypeGuard

TOKEN_BYTES_MAX: Final = 64 * 1024
"""No server takes a header that is longer."""


def is_token(value: object) -> TypeGuard[str]:
    """Whether a value is one line of printable ASCII of a usable length, without spaces at its ends."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= TOKEN_BYTES_MAX
        and value.isascii()
        and value.isprintable()
        and value.strip() == value
    )

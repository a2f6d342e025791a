"""What the sources on vendors' SDKs share: the SDKs log nothing, and their tokens are checked alike."""

import logging
from collections.abc import Iterator

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.token_text import is_token
from proxy.secret import Secret

PASSING_STATUSES = frozenset({408, 425, 429})
"""Answers below 500 after which the same request may succeed (RFC 9110 15.5.9, RFC 8470, RFC 6585)."""


def silence(*loggers: str) -> None:
    """Cut an SDK's loggers off, whatever their level.

    SDKs log what an issuer says when it refuses, and at their most talkative signatures and whole replies.
    What matters of a failure is in the TokenFetchError.
    """
    for name in loggers:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:  # else `logging` would print its warnings as a last resort
            logger.addHandler(logging.NullHandler())


def passes(status: int) -> bool:
    """Whether an issuer that answers this may give a token soon."""
    return status >= 500 or status in PASSING_STATUSES


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and one after the other those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def checked_token(token: object, lifetime: float, refresh_in: float | None = None) -> FetchedToken:
    """What an SDK gave, where it can be sent and lives.

    Raises:
        TokenFetchError: it cannot, or does not.
    """
    if not is_token(token):
        raise TokenFetchError("the SDK gave no token that fits in a header")
    if lifetime <= 0:
        raise TokenFetchError("the SDK gave a token that has run out")
    return FetchedToken(Secret(token), lifetime, refresh_in)

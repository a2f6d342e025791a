"""Token sources: each asks one kind of issuer for one token, and knows nothing of caching or sharing."""

from typing import Protocol

from proxy.credentials.credential import FetchedToken


class TokenSource(Protocol):
    """Anything that gives a token when asked."""

    async def fetch(self) -> FetchedToken:
        """Ask for a token.

        Raises:
            TokenFetchError: there is none to be had now.
        """

    async def close(self) -> None:
        """Let go of connections."""

"""Token sources: each asks one kind of issuer for one token, and knows nothing of caching or sharing."""

from typing import Protocol

from proxy.credentials.credential import Credential, FetchedToken


class TokenSource(Protocol):
    """Anything that gives a token when asked."""

    async def fetch(self) -> FetchedToken:
        """Ask for a token.

        Raises:
            TokenFetchError: there is none to be had now.
        """

    async def close(self) -> None:
        """Let go of connections."""


class OtherCredentials(Protocol):
    """The live tokens of other credentials, for a request that shows one to get another."""

    async def get(self, name: str) -> Credential:
        """A token that may be sent now.

        Raises:
            TokenUnavailable: there is none to be had now.
        """

    def invalidate(self, name: str, generation: int, reason: str) -> None:
        """Take one back that the endpoint refused."""

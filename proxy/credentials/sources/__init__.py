"""Token sources: each asks one kind of issuer for one token, and knows nothing of caching or sharing."""

from typing import Protocol

from proxy.credentials.credential import Credential, FetchedToken


class TokenFetchError(Exception):
    """A token source brought no token.

    Args:
        reason: Words for the log: what was asked, what happened, what to do. Never a secret, never text of a
            reply.
        permanent: The issuer refused us: asking again soon is useless, though it is asked again for ever.
        retry_after: Seconds the issuer asked to wait.
    """

    def __init__(self, reason: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after


def as_fetch_error(error: BaseException) -> TokenFetchError:
    """Whatever a token source raised, in words fit for the log."""
    if isinstance(error, TokenFetchError):
        return error
    if isinstance(error, TimeoutError):
        return TokenFetchError("the token source did not answer in time")
    return TokenFetchError(f"the token source failed: {type(error).__name__}")


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

"""Token sources: each asks one kind of issuer for one token, and knows nothing of caching or sharing."""

from typing import Protocol

from proxy.credentials.credential import Credential, FetchedToken


class TokenFetchError(Exception):
    """A token source returned no token.

    Args:
        reason: Words for the log: what was asked, what happened, what to do. Never a secret, never text of a
            reply.
        permanent: The issuer refuses the request. It is sent again all the same, but callers are told.
        retry_after: Seconds that the issuer asks to wait.
        answered: Whether there was an answer, from the issuer or from something on the way to it. Two
            processes that get one speak for the issuer; a broken connection speaks for one process alone.
        certain: Whether a refusal comes from the issuer itself, as far as can be known.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        answered: bool = False,
        certain: bool = True,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after
        self.answered = answered
        self.certain = certain


def as_fetch_error(error: BaseException) -> TokenFetchError:
    """Turn whatever a token source raised into words for the log."""
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


class TokenInUse(Protocol):
    """Another credential's token, for one request that holds it: see `token_use.TokenUse`."""

    async def token(self) -> Credential | None:
        """Return the token to send now; after a rejection another one, or None if no other helps.

        Raises:
            CredentialError: there is none to be had now.
        """

    def accepted(self) -> None:
        """Note that the endpoint accepted it."""

    def rejected(self, reason: str) -> bool:
        """Note that the endpoint rejected it, and return whether another one may help."""


class OtherCredentials(Protocol):
    """The live tokens of other credentials, for a request that holds one to get another."""

    def use(self, name: str, endpoint: str) -> TokenInUse:
        """Begin to use a credential's token at an endpoint."""

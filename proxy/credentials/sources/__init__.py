"""Token sources: each fetches a token from one kind of issuer, without caching or sharing it."""

from typing import Protocol

from proxy.credentials.token import FetchedToken, Token


class TokenFetchError(Exception):
    """A token source returned no token.

    Args:
        reason: An explanation for the log: what failed, why, and what to do. It contains no secret and no
            text of a reply.
        permanent: The issuer refuses the request. It is sent again, but callers receive a different error.
        retry_after: The delay in seconds that the issuer asks for.
        has_reply: Whether there was a response, from the issuer or an intermediary. If two processes receive
            one, it applies to the whole fleet; a broken connection concerns only one process.
        certain: Whether a refusal is known to come from the issuer itself.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        has_reply: bool = False,
        certain: bool = True,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after
        self.has_reply = has_reply
        self.certain = certain


def as_fetch_error(error: BaseException) -> TokenFetchError:
    """Convert any exception of a token source to a TokenFetchError."""
    if isinstance(error, TokenFetchError):
        return error
    if isinstance(error, TimeoutError):
        return TokenFetchError("the token source did not answer in time")
    return TokenFetchError(f"the token source failed: {type(error).__name__}")


class TokenSource(Protocol):
    """Fetches tokens from an issuer."""

    async def fetch(self) -> FetchedToken:
        """Fetch a token.

        Raises:
            TokenFetchError: No token is available.
        """

    async def close(self) -> None:
        """Close what outlives a fetch, such as connections; by default, there is nothing."""
        return  # Without a statement, mypy would take this for abstract.


class TokenInUse(Protocol):
    """The token of another credential, as part of one request: see `upstream_credential.TokenUse`."""

    async def token(self) -> Token | None:
        """Return the token to send now; after a rejection another one, or None if no other helps.

        Raises:
            CredentialError: No token is available.
        """

    def accepted(self) -> None:
        """Record that the endpoint accepted the token."""

    def rejected(self, reason: str) -> bool:
        """Record that the endpoint rejected the token, and return whether another one may help."""


class OtherCredentials(Protocol):
    """The tokens of other credentials, for requests that contain them."""

    def use(self, name: str, url: str) -> TokenInUse:
        """Begin to use a token for a request to the token endpoint at a URL."""

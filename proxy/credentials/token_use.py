"""One request's use of a shared token, from its first send to the answer."""

from proxy.credentials.cached_source import CachedTokenSource, Rejection
from proxy.credentials.credential import Credential
from proxy.credentials.suspicion import Purpose
from proxy.errors import TokenUnavailable

SENDS_MAX = 3
"""A request is sent again with another token. If that one may have been revoked as well, because it was there
before the first rejection or because the purpose worked until then, the request is sent a last time."""


class TokenUse:
    """Gives a request its token, and after a rejection another one, if that may help.

    Args:
        source: The shared token.
        caller: Whose request it is.
        purpose: What the request is for.
    """

    __slots__ = ("_before", "_caller", "_purpose", "_sent_at", "_source", "_token", "sends")

    def __init__(self, source: CachedTokenSource, caller: str | None, purpose: Purpose) -> None:
        self._source = source
        self._caller = caller or ""
        self._purpose = purpose
        self._token: Credential | None = None
        self._sent_at = 0.0
        self._before: list[Rejection] = []
        self.sends = 0

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has accepted any token of this credential: if not, the tokens are wrong."""
        return self._source.ever_accepted

    async def token(self) -> Credential | None:
        """Return the token to send now; None if no other token would be accepted either.

        Raises:
            CredentialError: no token can be had now.
        """
        source, last = self._source, self._last
        if last is None:
            token: Credential | None = await source.get()
        elif self.sends >= SENDS_MAX:
            raise TokenUnavailable(reason="tokens were rejected while they were replaced")
        else:
            token = await source.newer(last, self._caller, self._purpose)
        if token is None and last is not None:
            source.deny(last.token, self._caller, self._purpose)
        self._token = token
        self.sends += 1
        self._sent_at = source.clock()
        return token

    def accepted(self) -> None:
        """Note that the upstream accepted the token."""
        if self._token is not None:
            self._source.accepted(self._token, self._sent_at, self._purpose, self._last)

    def rejected(self, reason: str) -> bool:
        """Note that the upstream rejected the token, and return whether another one may help."""
        if self._token is None:
            return False
        rejection = Rejection(self._token, self._sent_at, self._source.clock())
        may_help = self._source.rejected(
            rejection, self._caller, self._purpose, before=self._before, reason=reason
        )
        self._before.append(rejection)
        return may_help

    @property
    def _last(self) -> Rejection | None:
        return self._before[-1] if self._before else None

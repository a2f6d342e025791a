"""What upstreams have shown about tokens: which are suspect or dead, and how long they really live (pure).

Times are those of the source's clock. Tokens are recognised by their digests.
"""

import math
from collections import OrderedDict, deque
from typing import Final

import msgspec

from proxy.credentials.refresh_policy import LearnedLife
from proxy.credentials.token import Token
from proxy.telemetry import TokenState

DEAD_MAX: Final = 8
"""The number of dead tokens that are remembered, so that no other process can bring them back."""
ACCEPTED_MAX: Final = 8
"""The number of tokens whose last accepted request is remembered."""
PROPAGATION_SECONDS: Final = 5.0
PROPAGATION_SECONDS_MAX: Final = 60.0
"""How long upstreams may take to learn of a new token; doubled for each further one until one is accepted.
Then another token is fetched. The last token that worked is used meanwhile, until it expires."""


class Rejection(msgspec.Struct, frozen=True):
    """A token that an upstream rejected, and when."""

    token: Token
    sent_at: float
    at: float

    @property
    def age(self) -> float:
        """The age of the token when the request was sent."""
        return self.sent_at - self.token.obtained

    def shows_early_death(self, successor: Token, *, exclusive: bool) -> bool:
        """Whether the token died before its expiry for another reason than that a new one revoked it.

        Args:
            successor: The token that was accepted instead.
            exclusive: Whether a new token revokes the previous one.
        """
        is_revoked = exclusive and (successor.adopted or successor.obtained < self.at)
        return not is_revoked and self.sent_at < self.token.expires_at


class ObservedTokens:
    """What upstreams have shown about the tokens of one credential.

    A rejected token is suspect while the reason is unknown, and dead when its successor is accepted for the
    same request.
    """

    def __init__(self) -> None:
        self.life = LearnedLife()
        self._suspect: bytes | None = None
        self._suspect_since = -math.inf
        self._dead: deque[bytes] = deque(maxlen=DEAD_MAX)
        self._last_accepted: OrderedDict[bytes, float] = OrderedDict()
        """For each token, when the last request that the upstream accepted was sent."""
        self._predecessor: Token | None = None
        """The last token that an upstream accepted before it was replaced."""
        self._propagation = PROPAGATION_SECONDS
        self._overdue_at = -math.inf

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has ever accepted a token."""
        return bool(self._last_accepted)

    @property
    def rejected(self) -> frozenset[bytes]:
        """The digests of the tokens that are suspect or dead."""
        return frozenset(self._dead if self._suspect is None else (*self._dead, self._suspect))

    def state(self, token: Token | None, now: float) -> TokenState:
        """Return the state of the newest token."""
        if token is None:
            return "empty"
        if now >= token.expires_at:
            return "expired"
        if token.digest == self._suspect:
            return "suspect"
        return "stale" if now >= token.refresh_at else "fresh"

    def accepted(self, token: Token, sent_at: float) -> None:
        """Record that an upstream accepted a token for a request sent at `sent_at`."""
        last = self._last_accepted
        last[token.digest] = max(sent_at, last.get(token.digest, -math.inf))
        last.move_to_end(token.digest)
        if len(last) > ACCEPTED_MAX:
            last.popitem(last=False)
        if token.digest == self._suspect and sent_at > self._suspect_since:
            self._suspect = None

    def is_known(self, token: Token) -> bool:
        """Whether an upstream has ever accepted this token."""
        return token.digest in self._last_accepted

    def last_accepted(self, token: Token) -> float:
        """Return when the last accepted request with this token was sent; minus infinity without one."""
        return self._last_accepted.get(token.digest, -math.inf)

    def lived(self, token: Token) -> float:
        """Return the age of the token at its last accepted request; minus infinity without one."""
        return self.last_accepted(token) - token.obtained

    def suspect(self, token: Token, now: float) -> bool:
        """Record that the current token was rejected, and return whether that is new."""
        if token.digest == self._suspect:
            return False
        self._suspect, self._suspect_since = token.digest, now
        return True

    def acquit(self, token: Token) -> None:
        """Record that a rejection had another reason than the token."""
        if token.digest == self._suspect:
            self._suspect = None

    def died(self, rejection: Rejection) -> bool:
        """Record that the successor of a rejected token was accepted; return whether that shows a new death.

        A token that was accepted since its rejection is alive.
        """
        digest = rejection.token.digest
        if digest in self._dead or self.last_accepted(rejection.token) > rejection.at:
            return False
        self._dead.append(digest)
        return True

    def predecessor(self, token: Token, now: float) -> Token | None:
        """Return the last token that worked, if this one has never been accepted."""
        before = self._predecessor
        if before is None or now >= before.expires_at or self.is_known(token):
            return None
        return None if before.digest in self._dead else before

    def is_overdue(self, now: float) -> bool:
        """Whether upstreams must have learned of the current token by now."""
        return now >= self._overdue_at

    def replaced(self, token: Token, now: float) -> bool:
        """Record that a token was replaced, and return whether the learned lifetime has changed.

        If the token worked until late in its lifetime, that lifetime was true.
        """
        is_rejected = token.digest == self._suspect or token.digest in self._dead
        self.acquit(token)
        lived = self.lived(token)
        if self.is_known(token):  # also if it is suspect: the rejected request may have been the reason
            self._predecessor, self._propagation = token, PROPAGATION_SECONDS
        else:
            self._propagation = min(2 * self._propagation, PROPAGATION_SECONDS_MAX)
        self._overdue_at = now + self._propagation
        if is_rejected or lived < token.lifetime / 2:
            return False
        return self.life.record_full_life(token.announced, lived)

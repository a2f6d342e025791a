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
ROUTES_MAX: Final = 256
"""The number of routes of all upstreams whose last accepted token is remembered."""
ROUTE_SECONDS: Final = 600.0
"""How long a route that checks tokens keeps other routes from being evidence after its last acceptance."""
PROPAGATION_SECONDS: Final = 5.0
PROPAGATION_SECONDS_MAX: Final = 60.0
"""How long upstreams may take to learn of a new token; doubled for each further one until one is accepted.
Then another token is fetched. The last token that worked is used meanwhile, until it expires."""

Route = tuple[str, str, str]
"""An upstream, a method and an endpoint. Some routes may check no token, such as `GET /v1/models`."""


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


class _RouteState(msgspec.Struct):
    """What one route has shown."""

    token: Token | None = None
    """The newest token that it accepted."""
    first_sent: float = math.inf
    last_sent: float = -math.inf
    """When its first and its last accepted request with that token were sent."""
    rejects: bool = False
    """Whether it has ever rejected a token, which shows that it checks them."""


class ObservedRoutes:
    """Which tokens each route has accepted, and which routes are evidence for the others.

    A route that checks no token accepts any. Therefore only the same route shows that an upstream knows a
    token, and routes that have rejected one are evidence for the others. Any route is while none of these
    is in use.
    """

    def __init__(self) -> None:
        self._routes: OrderedDict[Route, _RouteState] = OrderedDict()
        self._checked_at = -math.inf
        """When the last accepted request to a route that checks tokens was sent."""
        self._checking: Route | None = None
        """That route."""

    def accepted(self, route: Route, token: Token, sent_at: float) -> bool:
        """Record that a route accepted a token, and return whether that is evidence for other routes."""
        state = self._routes.get(route) or self._add(route)
        self._routes.move_to_end(route)
        last = state.token
        if last is not token and (last is None or last.generation <= token.generation):
            if last is None or last.digest != token.digest:
                state.first_sent = state.last_sent = sent_at
            state.token = last = token
        if last is token and sent_at > state.last_sent:
            state.last_sent = sent_at
        if not state.rejects:
            return sent_at - self._checked_at > ROUTE_SECONDS
        if sent_at > self._checked_at:
            self._checked_at, self._checking = sent_at, route
        return True

    def rejected(self, route: Route) -> None:
        """Record that a route rejected a token."""
        state = self._routes.get(route) or self._add(route)
        # One that never worked is forgotten first, so that invented paths displace none that did.
        self._routes.move_to_end(route, last=state.token is not None)
        state.rejects = True
        if state.last_sent > self._checked_at:
            self._checked_at, self._checking = state.last_sent, route

    def last_token(self, route: Route) -> Token | None:
        """Return the newest token that a route accepted."""
        state = self._routes.get(route)
        return None if state is None else state.token

    def first_accepted(self, route: Route, token: Token) -> float:
        """Return when the route's first accepted request with this token was sent; infinity without one.

        For a route that has accepted no token, another one that checks tokens counts.
        """
        state = self._with(route, token)
        return math.inf if state is None else state.first_sent

    def last_accepted(self, route: Route, token: Token) -> float:
        """Return the same for its last accepted request; minus infinity without one or with a newer token."""
        state = self._with(route, token)
        return -math.inf if state is None else state.last_sent

    def _with(self, route: Route, token: Token) -> _RouteState | None:
        """Return the state of a route if this is the newest token that it accepted."""
        state = self._routes.get(route)
        if (state is None or state.token is None) and self._checking is not None:
            state = self._routes.get(self._checking)
        last = None if state is None else state.token
        return None if last is None or last.digest != token.digest else state

    def _add(self, route: Route) -> _RouteState:
        state = self._routes[route] = _RouteState()
        if len(self._routes) > ROUTES_MAX:
            self._routes.popitem(last=False)
        return state


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

    def predecessor(self, token: Token, now: float, last: Token | None = None) -> Token | None:
        """Return the last token that worked, if the upstream may not know this one yet.

        Args:
            token: A rejected token.
            now: The time.
            last: The newest token that the route of the rejected request accepted. For another route, the
                upstream knows a token once any route that is evidence has accepted it.
        """
        if last is not None and last.digest == token.digest:
            return None
        if last is not None and last.generation < token.generation and self._may_be_sent(last, now):
            return last
        before = self._predecessor
        if before is None or self.is_known(token) or not self._may_be_sent(before, now):
            return None
        return before

    def _may_be_sent(self, token: Token, now: float) -> bool:
        return now < token.expires_at and token.digest not in self._dead

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

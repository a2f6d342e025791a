"""Upstreams that reject tokens, for tests, and clients that send requests to them."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.credentials import CachedTokenSource, Token
from proxy.credentials.rejections import Purpose
from proxy.credentials.upstream_credential import TokenUse
from proxy.errors import CredentialError
from tests.credentials.fakes import CHAT, FakeIssuer, pass_time

FORBIDDEN = Purpose("POST", "chat/completions", "forbidden")


@dataclass
class Upstream:
    """An upstream that rejects the tokens that the test chooses, and a client that sends requests to it."""

    machine: CachedTokenSource
    rejects: Callable[[Token, Purpose], bool]
    sent: list[str] = field(default_factory=list)
    """Every received token, with the model."""

    async def request(self, caller: str = "caller", purpose: Purpose = CHAT) -> str:
        """Send a request, and return its result."""
        use = TokenUse(self.machine, caller, purpose)
        try:
            while (token := await use.token()) is not None:
                self.sent.append(f"{token.secret.reveal()} for {purpose.model}")
                if not self.rejects(token, purpose):
                    use.accepted()
                    return "ok"
                if not use.rejected("401"):
                    break
        except CredentialError as error:
            return str(error.status)
        return "denied"


def of_forbidden_model(_token: Token, purpose: Purpose) -> bool:
    """Reject every token for all models but one."""
    return purpose.model != CHAT.model


def revoked(*tokens: str) -> Callable[[Token, Purpose], bool]:
    """Return a rule that rejects these tokens."""
    return lambda token, _: token.secret.reveal() in tokens


class LateUpstream:
    """An upstream that learns of each token a moment after it was issued, and its callers.

    Args:
        issuer: Issues the tokens.
        lag: Seconds until the upstream accepts a token.
        dead: The numbers of the tokens that it never accepts.
        revokes: Whether a new token revokes the previous one at once.
        knows: The number of tokens that it knows from the beginning.
        revoked: When all tokens until then are revoked.
    """

    def __init__(
        self,
        issuer: FakeIssuer,
        lag: float,
        *,
        dead: tuple[int, ...] = (),
        revokes: bool = False,
        knows: int = 1,
        revoked: float = math.inf,
    ) -> None:
        self.issuer, self.lag, self.dead, self.revokes = issuer, lag, dead, revokes
        self.knows, self.revoked = knows, revoked

    def rejects(self, token: Token, _purpose: Purpose) -> bool:
        """Whether it rejects this token now."""
        number = int(token.secret.reveal().removeprefix(self.issuer.prefix))
        is_revoked = self.revokes and number < self.issuer.fetches
        if is_revoked or number in self.dead:
            return True
        now, started = asyncio.get_running_loop().time(), self.issuer.started[number - 1]
        return started < self.revoked <= now or (now - started < self.lag and number > self.knows)

    async def serve(
        self,
        machine: CachedTokenSource,
        seconds: int,
        callers: int,
        models: int = 1,
        open_route: Purpose | None = None,
    ) -> Counter[str]:
        """Send ten requests a second; return their results.

        Args:
            machine: Has the tokens.
            seconds: How long to send requests.
            callers: The number of callers, who take turns.
            models: The number of models, which take turns.
            open_route: A purpose for which the upstream checks no token. It is used as often as the others.
        """
        upstream = Upstream(machine, self.rejects)
        async with asyncio.TaskGroup() as group:
            requests = []
            for number in range(10 * seconds):
                if open_route is not None:
                    assert await Upstream(machine, revoked()).request("poller", open_route) == "ok"
                purpose = CHAT._replace(model=f"{CHAT.model} {number % models}")
                requests.append(group.create_task(upstream.request(f"caller {number % callers}", purpose)))
                await pass_time(0.1)
        return Counter(request.result() for request in requests)

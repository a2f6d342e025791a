"""A scripted token issuer that counts its fetches, the cached source in front of it, and virtual time."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from proxy.credentials import CachedTokenSource, LocalSharing, MemoryTokenStore, RefreshPolicy, Token
from proxy.credentials.rejections import Purpose
from proxy.credentials.sources import TokenFetchError, TokenSource
from proxy.credentials.token import FetchedToken, with_deadlines
from proxy.credentials.upstream_credential import TokenUse
from proxy.errors import CredentialError
from proxy.secret import Secret
from proxy.telemetry import TokenStats
from tests.virtual_time import run_virtually

P = ParamSpec("P")
T = TypeVar("T")

DOWN = TokenFetchError("the issuer is down")
REFUSED = TokenFetchError("the issuer refuses us", permanent=True, has_reply=True)
BUSY = TokenFetchError("the issuer is busy", has_reply=True)
CHAT = Purpose("POST", "chat/completions", "model")


@dataclass
class FakeIssuer:
    """A scripted token source. A change to a field applies to fetches that start later."""

    lifetime: float = 300.0
    refresh_in: float | None = None
    delay: float = 0.0
    released: asyncio.Event | None = None
    """Holds a fetch until it is set, if there is one."""
    error: BaseException | None = None
    token: str | None = None
    """The token of every fetch; by default each fetch returns another one."""
    prefix: str = "token-"
    """The prefix of the number of each token."""
    certain: bool = True
    """Whether the lifetime is based on the issuer's clock."""
    started: list[float] = field(default_factory=list)
    """When each fetch started, on the loop's clock."""
    flying: int = 0
    most_at_once: int = 0
    closed: int = 0

    @property
    def fetches(self) -> int:
        """The number of started fetches."""
        return len(self.started)

    async def fetch(self) -> FetchedToken:
        """Fetch as the fields were when the fetch started."""
        self.started.append(asyncio.get_running_loop().time())
        token = self.token or f"{self.prefix}{self.fetches}"
        reply = FetchedToken(Secret(token), self.lifetime, self.refresh_in, certain=self.certain)
        delay, released, error = self.delay, self.released, self.error
        self.flying += 1
        self.most_at_once = max(self.most_at_once, self.flying)
        try:
            if delay:
                await asyncio.sleep(delay)
            if released is not None:
                await released.wait()
        finally:
            self.flying -= 1
        if error is not None:
            raise error
        return reply

    async def close(self) -> None:
        """Count the call."""
        self.closed += 1


def build_machine(
    issuer: TokenSource, store: MemoryTokenStore | None = None, **policy: Any
) -> CachedTokenSource:
    """Return a cached source on the clock of the running loop."""
    clock = asyncio.get_running_loop().time
    return local_machine(issuer, store, RefreshPolicy(**{"clock": clock, **policy}))


def local_machine(
    source: TokenSource, store: MemoryTokenStore | None = None, policy: RefreshPolicy | None = None
) -> CachedTokenSource:
    """Return a cached source that shares within this process."""
    policy, stats = policy or RefreshPolicy(), TokenStats()
    sharing = LocalSharing("corp", store or MemoryTokenStore(), policy, stats)
    return CachedTokenSource("corp", source, sharing, policy, stats)


def build_token(token: str = "s3cret", generation: int = 1, lifetime: float = 300.0) -> Token:
    """Return a token that was requested at the time 1000."""
    fetched = FetchedToken(Secret(token), lifetime)
    return with_deadlines(fetched, generation=generation, obtained=1000.0, uniform=lowest)


def virtually(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run the test in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtually(lambda: test(*args, **kwargs))

    return run


def at_once(get: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine; fail if it waits for anything."""
    try:
        get.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    get.close()
    raise AssertionError("it waits")


async def failure_of(get: Coroutine[Any, Any, object]) -> CredentialError:
    """Return the error of a `get` that must fail."""
    try:
        await get
    except CredentialError as error:
        return error
    raise AssertionError("it found a token")


async def reject(machine: CachedTokenSource, caller: str = "caller", purpose: Purpose = CHAT) -> TokenUse:
    """Send a request whose token the upstream rejects."""
    use = TokenUse(machine, caller, purpose)
    assert await use.token() is not None
    use.rejected("the upstream answered 401")
    return use


async def serve(machine: CachedTokenSource, caller: str = "caller", purpose: Purpose = CHAT) -> Token:
    """Send a request whose token the upstream accepts."""
    use = TokenUse(machine, caller, purpose)
    token = await use.token()
    assert token is not None
    use.accepted()
    return token


async def replaced(machine: CachedTokenSource, caller: str = "caller", purpose: Purpose = CHAT) -> Token:
    """Return the token that a request gets after a rejection, and accept it."""
    use = await reject(machine, caller, purpose)
    token = await use.token()
    assert token is not None
    use.accepted()
    return token


def lowest(low: float, high: float) -> float:
    """Draw the lower bound."""
    return low


def highest(low: float, high: float) -> float:
    """Draw the upper bound."""
    return high


def is_healthy(machine: CachedTokenSource) -> bool:
    """Return the current health; a type checker would assume that the attribute does not change."""
    return machine.healthy


async def pass_time(seconds: float) -> None:
    """Let virtual time pass, and run everything that is due by then."""
    await asyncio.sleep(seconds)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

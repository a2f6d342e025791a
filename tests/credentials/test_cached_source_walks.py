"""Random orders of events: sent tokens are valid, no caller harms another, and fetches are few."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.credentials import CachedTokenSource, Token
from proxy.credentials.rejections import Purpose
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.upstream_credential import TokenUse
from proxy.errors import CredentialError
from tests.credentials.fakes import BUSY, DOWN, REFUSED, FakeIssuer, at_once, build_machine
from tests.virtual_time import run_virtually

WAIT_SECONDS = 20.0
FETCH_SECONDS = 15.0
TURN_SECONDS = 1.1
"""How long a rejected request may wait for its turn, in addition to the wait for a token."""


@dataclass
class Walk:
    """A cached source, its issuer, and the running requests."""

    issuer: FakeIssuer
    machine: CachedTokenSource
    rejections: int = 0
    requests: set["asyncio.Task[None]"] = field(default_factory=set)

    def get(self) -> None:
        """Send a request, which does not wait if there is a token, even after rejections of others."""
        if self.machine.remaining is None:
            self._start(self._get())
        else:
            assert asyncio.get_running_loop().time() < at_once(self.machine.get()).expires_at

    async def _get(self) -> None:
        clock = asyncio.get_running_loop().time
        came = clock()
        try:
            token = await self.machine.get()
        except CredentialError:
            assert self.machine.remaining is None
        else:
            assert (
                clock() < token.expires_at or clock() > came
            )  # a short-lived token may serve a request that waited for it
        assert clock() - came <= WAIT_SECONDS + 1e-6

    def reject(self, number: int) -> None:
        """Send a request whose tokens the upstream always rejects."""
        purpose = Purpose("POST", "chat/completions", f"m{number % 3}")
        self._start(self._rejected(f"caller {number // 3}", purpose))

    async def _rejected(self, caller: str, purpose: Purpose) -> None:
        clock = asyncio.get_running_loop().time
        came, sent, failure = clock(), list[Token](), None
        use = TokenUse(self.machine, caller, purpose)
        try:
            while (token := await use.token()) is not None:
                assert token.digest not in {one.digest for one in sent}
                sent.append(token)
                self.rejections += 1
                if not use.rejected("401"):
                    break
        except CredentialError as error:
            failure = error
        assert failure is None or {"Retry-After", "X-Should-Retry"} & {*failure.headers}
        assert len(sent) <= 3
        assert clock() - came <= 3 * (WAIT_SECONDS + TURN_SECONDS)

    def leave(self) -> None:
        """Cancel a request, as if its caller left."""
        for request in list(self.requests)[:1]:
            request.cancel()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self.requests.add(asyncio.get_running_loop().create_task(work))


Step = tuple[str, float | int | TokenFetchError | str | None]

ERRORS = st.sampled_from([None, None, DOWN, BUSY, REFUSED, TokenFetchError("busy", retry_after=5.0)])
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("sleep"), st.floats(0.01, 3.0) | st.floats(0.01, 400.0)),
    st.tuples(st.just("get"), st.none()),
    st.tuples(st.just("reject"), st.integers(0, 8)),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("error"), ERRORS),
    st.tuples(st.just("delay"), st.just(0.0) | st.floats(0.0, 20.0)),
    st.tuples(st.just("lifetime"), st.floats(2.0, 400.0) | st.just(float("inf"))),
    st.tuples(st.just("refresh_in"), st.none() | st.floats(0.01, 400.0)),
    st.tuples(st.just("token"), st.sampled_from([None, None, "one", "other"])),
)


async def walk(steps: list[Step], seed: float) -> None:
    """Run the steps; the requests check their tokens."""
    issuer = FakeIssuer()
    machine = build_machine(
        issuer,
        wait_timeout=WAIT_SECONDS,
        fetch_timeout=FETCH_SECONDS,
        uniform=lambda low, high: low + seed * (high - low),
    )
    path = Walk(issuer, machine)
    for name, value in steps:
        match name, value:
            case "sleep", float(seconds):
                await asyncio.sleep(seconds)
            case "get", _:
                path.get()
            case "reject", int(number):
                path.reject(number)
            case "leave", _:
                path.leave()
            case _:
                setattr(issuer, name, value)
    await asyncio.sleep(4 * WAIT_SECONDS)
    assert all(request.done() for request in path.requests)
    for request in path.requests:
        assert request.cancelled() or request.exception() is None
    await machine.close()
    assert issuer.most_at_once <= 1
    # In any walk: a probe every half second without a token, and the limited cost of rejections.
    elapsed = asyncio.get_running_loop().time() - 1000.0
    assert issuer.fetches <= 4 * elapsed + 2 + len(steps)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=30), st.floats(0.0, 1.0))
def test_no_sequence_of_events_takes_a_valid_token_from_other_callers(steps: list[Step], seed: float) -> None:
    run_virtually(lambda: walk(steps, seed))

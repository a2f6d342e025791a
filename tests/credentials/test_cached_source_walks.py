"""Any order of events whatever: what is handed out is good, and never do two fetches fly at once."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.credentials import CachedTokenSource, Credential
from proxy.credentials.sources import TokenFetchError
from proxy.errors import TokenUnavailable
from tests.credentials.fakes import DOWN, REFUSED, FakeIssuer, build_machine
from tests.virtual_time import run_virtually

WAIT_SECONDS = 20.0
FETCH_SECONDS = 15.0


@dataclass
class Walk:
    """One machine, one issuer, the callers that were seen so far."""

    issuer: FakeIssuer
    machine: CachedTokenSource
    lines: list[EventDict]
    handed: list[Credential] = field(default_factory=list)
    failed: int = 0
    callers: set["asyncio.Task[None]"] = field(default_factory=set)

    def get(self, min_ttl: float) -> None:
        """A caller comes."""
        self.callers.add(asyncio.get_running_loop().create_task(self._get(min_ttl)))

    async def _get(self, min_ttl: float) -> None:
        clock = asyncio.get_running_loop().time
        came = clock()
        try:
            credential = await self.machine.get(min_ttl=min_ttl)
        except TokenUnavailable:
            self.failed += 1
            assert self.machine.remaining is None  # else it would have been better than nothing
        else:
            self.handed.append(credential)
            assert clock() < credential.hard
            assert credential.generation not in self.rejected
        assert clock() - came <= WAIT_SECONDS + 1e-6

    @property
    def rejected(self) -> set[int]:
        """The generations that were taken back, but for those kept within a cool-down."""
        return {line["generation"] for line in self.lines if line["event"] == "token_rejected"}

    def reject(self, back: int) -> None:
        """The upstream refuses a token that was handed out, maybe some time ago."""
        if self.handed:
            self.machine.invalidate(self.handed[-1 - back % len(self.handed)].generation, "401")

    def leave(self) -> None:
        """A caller goes away."""
        for caller in list(self.callers)[:1]:
            caller.cancel()


Step = tuple[str, float | int | TokenFetchError | str | None]

ERRORS = st.sampled_from([None, None, DOWN, REFUSED, TokenFetchError("busy", retry_after=5.0)])
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("sleep"), st.floats(0.0, 3.0) | st.floats(0.0, 400.0)),
    st.tuples(st.just("get"), st.just(0.0) | st.floats(0.0, 500.0)),
    st.tuples(st.just("reject"), st.integers(0, 2)),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("error"), ERRORS),
    st.tuples(st.just("delay"), st.just(0.0) | st.floats(0.0, 20.0)),
    st.tuples(st.just("lifetime"), st.floats(2.0, 400.0) | st.just(float("inf"))),
    st.tuples(st.just("refresh_in"), st.none() | st.floats(0.01, 400.0)),
    st.tuples(st.just("token"), st.sampled_from([None, None, "one", "other"])),
)


async def walk(steps: list[Step], seed: float) -> None:
    """Take the steps; callers check what they are given."""
    issuer = FakeIssuer()
    with capture_logs() as lines:
        machine = build_machine(
            issuer,
            wait_timeout=WAIT_SECONDS,
            fetch_timeout=FETCH_SECONDS,
            uniform=lambda low, high: low + seed * (high - low),
        )
        path = Walk(issuer, machine, lines)
        for name, value in steps:
            match name, value:
                case "sleep", float(seconds):
                    await asyncio.sleep(seconds)
                case "get", float(min_ttl):
                    path.get(min_ttl)
                case "reject", int(back):
                    path.reject(back)
                case "leave", _:
                    path.leave()
                case _:
                    setattr(issuer, name, value)
        await asyncio.sleep(WAIT_SECONDS + 1.0)
        assert all(caller.done() for caller in path.callers)
        for caller in path.callers:
            assert caller.cancelled() or caller.exception() is None
        await machine.close()
    assert issuer.most_at_once <= 1
    # However the walk went, no more than a probe in each quarter of a second.
    elapsed = asyncio.get_running_loop().time() - 1000.0
    assert issuer.fetches <= 4 * elapsed + 2 + len(steps)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=30), st.floats(0.0, 1.0))
def test_neither_an_expired_nor_a_rejected_credential_is_ever_handed_out(
    steps: list[Step], seed: float
) -> None:
    run_virtually(lambda: walk(steps, seed))

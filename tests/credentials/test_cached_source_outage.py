"""The issuer is down: the errors of callers, the number of fetches, and the recovery."""

import asyncio
import contextlib
import itertools
import random

import pytest
from structlog.typing import EventDict

from proxy.credentials.sources import TokenFetchError
from proxy.errors import CredentialError, TokenUnavailable
from tests.credentials.fakes import (
    DOWN,
    REFUSED,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    is_healthy,
    lowest,
    pass_time,
    virtually,
)


@pytest.mark.parametrize("seed", range(5))
@virtually
async def test_no_caller_sees_a_refresh_that_fails_before_the_hard_end(seed: int) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=random.Random(seed).uniform)
    first = await machine.get()
    issuer.error, issuer.delay = DOWN, 0.001
    clock = asyncio.get_running_loop().time
    while clock() < first.expires_at - 1e-6:
        assert at_once(machine.get()) is first
        await asyncio.sleep(min(1.0, first.expires_at - clock()))
    assert issuer.started[1] == pytest.approx(first.refresh_at)
    gaps = [after - before for before, after in itertools.pairwise(issuer.started[1:])]
    assert min(gaps) >= 0.25
    assert 8 <= len(gaps) <= 50
    assert str((await failure_of(machine.get())).reason).startswith("the issuer is down")


@virtually
async def test_instant_failures_do_not_pile_up_towards_the_hard_end() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.error = DOWN
    await pass_time(290.0)
    assert issuer.fetches < 60


@virtually
async def test_during_a_backoff_get_fails_at_once_and_one_fetch_per_window_starts(
    lines: list[EventDict],
) -> None:
    issuer = FakeIssuer(error=DOWN, delay=0.01)
    machine = build_machine(issuer)
    told: list[float] = []
    for _ in range(2400):  # 120 s of 20 requests a second
        try:
            at_once(machine.get())
        except TokenUnavailable as failure:
            told.append(failure.retry_after)
        except AssertionError:  # it waits, because a probe is running
            pass
        await asyncio.sleep(0.05)
    windows = [line["retry_in_s"] for line in lines]
    gaps = [after - before for before, after in itertools.pairwise(issuer.started)]
    assert all(gap >= window for gap, window in zip(gaps, windows, strict=False))
    assert len(told) > 2200
    assert all(0.0 < seconds <= max(windows) for seconds in told)


@virtually
async def test_the_window_is_as_long_as_the_issuer_asks() -> None:
    issuer = FakeIssuer(error=TokenFetchError("busy", retry_after=20.0))
    machine = build_machine(issuer, uniform=lowest)
    assert (await failure_of(machine.get())).headers["Retry-After"] == "20"
    await pass_time(18.5)
    assert (await failure_of(machine.get())).headers["Retry-After"] == "2"
    assert issuer.fetches == 1
    await pass_time(1.6)
    assert issuer.fetches == 2  # the probe of the timer


@pytest.mark.parametrize(("error", "within"), [(DOWN, 1.6), (REFUSED, 60.1)])
@virtually
async def test_it_heals_by_itself_after_any_failure(error: TokenFetchError, within: float) -> None:
    issuer = FakeIssuer(error=error)
    machine = build_machine(issuer)
    await failure_of(machine.get())
    await pass_time(50.0)
    await failure_of(machine.get())
    issuer.error = None
    await pass_time(within)
    assert at_once(machine.get()).secret.reveal() == f"token-{issuer.fetches}"
    assert is_healthy(machine)


@virtually
async def test_a_failed_refresh_heals_while_the_old_token_serves() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.error = DOWN
    await pass_time(200.0)
    assert at_once(machine.get()).generation == 1
    issuer.error = None
    await pass_time(20.0)
    assert at_once(machine.get()).generation == 2


@pytest.mark.parametrize("error", [DOWN, REFUSED])
@virtually
async def test_it_recovers_without_requests(error: TokenFetchError) -> None:
    """A service without a token is not ready, so it gets no requests that would trigger a fetch."""
    issuer = FakeIssuer(error=error)
    machine = build_machine(issuer)
    machine.prefetch()
    await pass_time(3600.0)
    assert not is_healthy(machine)
    assert issuer.fetches < 150  # once a second for a minute, then once a minute
    issuer.error = None
    await pass_time(61.0)
    assert is_healthy(machine)
    assert at_once(machine.get()).generation == 1


@virtually
async def test_a_loop_that_fires_early_does_not_lose_the_probe() -> None:
    """The timers of uvloop have a resolution of a millisecond."""
    loop = asyncio.get_running_loop()
    issuer = FakeIssuer(error=DOWN)
    machine = build_machine(issuer, clock=lambda: 0.999 * loop.time())
    machine.prefetch()
    await pass_time(1.0)
    issuer.error = None
    await pass_time(2.0)
    assert is_healthy(machine)


@virtually
async def test_a_refused_fetch_is_retried_soon_and_then_less_and_less_often() -> None:
    issuer = FakeIssuer(error=REFUSED)
    machine = build_machine(issuer)
    machine.prefetch()
    for _ in range(3000):  # 300 s
        with contextlib.suppress(CredentialError):
            await machine.get()
        await asyncio.sleep(0.1)
    gaps = [after - before for before, after in itertools.pairwise(issuer.started)]
    assert all(0.5 <= gap <= 0.91 for gap in gaps[:8])
    assert all(gap <= 3.1 * before + 0.2 for before, gap in itertools.pairwise(gaps[7:]))
    assert max(gaps) <= 60.2
    assert 14 <= issuer.fetches <= 20


@pytest.mark.parametrize("outage", [0.5, 2.0, 4.0])
@virtually
async def test_an_issuer_that_refuses_while_it_starts_is_back_within_a_second(outage: float) -> None:
    issuer = FakeIssuer(error=REFUSED)
    machine = build_machine(issuer)
    machine.prefetch()
    await pass_time(outage)
    issuer.error = None
    await pass_time(1.0)
    assert at_once(machine.get()).secret.reveal() == f"token-{issuer.fetches}"


@pytest.mark.parametrize(("error", "status"), [(DOWN, 503), (REFUSED, 502)])
@virtually
async def test_the_error_says_whether_a_retry_makes_sense(error: TokenFetchError, status: int) -> None:
    machine = build_machine(FakeIssuer(error=error))
    for failure in (await failure_of(machine.get()), await failure_of(machine.get())):
        assert failure.status == status
        assert ("X-Should-Retry" in failure.headers) is (status == 502)
        assert ("Retry-After" in failure.headers) is (status == 503)
        assert str(failure.reason).startswith(error.reason)  # for the log, even during the back-off

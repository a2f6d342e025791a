"""The upstream rejects a token: which requests wait for a newer one, and that other requests do not."""

import asyncio
import itertools
import math
import random
from collections import Counter

import pytest
from msgspec.structs import replace
from structlog.typing import EventDict

from proxy.credentials import CachedTokenSource, RefreshPolicy, Token
from proxy.credentials.observed_tokens import PROPAGATION_SECONDS
from proxy.credentials.refresh_policy import GROWTH
from proxy.credentials.rejections import DOUBTED_SECONDS, SPACING_SECONDS, SPACING_SECONDS_MAX, Purpose
from proxy.credentials.sharing import Fetch, FlightContext
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.token import with_deadlines
from proxy.credentials.upstream_credential import TokenUse
from proxy.telemetry import TokenStats
from tests.credentials.fakes import (
    CHAT,
    DOWN,
    REFUSED,
    FakeIssuer,
    at_once,
    build_machine,
    failure_of,
    lowest,
    pass_time,
    reject,
    replaced,
    serve,
    virtually,
)
from tests.credentials.upstreams import FORBIDDEN, LateUpstream, Upstream, of_forbidden_model, revoked

# --- other requests are not affected


@pytest.mark.parametrize(
    "error", [None, DOWN, REFUSED, TokenFetchError("busy", retry_after=30, has_reply=True)]
)
@pytest.mark.parametrize("delay", [0.0, 3.0, 60.0])
@virtually
async def test_a_forbidden_model_does_not_invalidate_the_token(
    error: TokenFetchError | None, delay: float
) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    await machine.get()
    issuer.error, issuer.delay = error, delay
    upstream = Upstream(machine, of_forbidden_model)
    async with asyncio.TaskGroup() as group:
        for _ in range(600):  # 60 s
            group.create_task(upstream.request("careless", FORBIDDEN))
            assert at_once(upstream.request("other")) == "ok"
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("callers", [1, 7])
@virtually
async def test_a_flood_of_forbidden_names_keeps_the_token_and_costs_few_fetches(
    callers: int,
) -> None:
    issuer = FakeIssuer(lifetime=1e6, delay=0.2)
    machine = build_machine(issuer)
    upstream = Upstream(machine, of_forbidden_model)
    await upstream.request("other")
    async with asyncio.TaskGroup() as group:
        for number in range(6000):  # 300 s
            caller, purpose = f"flood {number % callers}", Purpose("POST", "chat/completions", f"m{number}")
            group.create_task(upstream.request(caller, purpose))
            assert at_once(upstream.request("other")) == "ok"
            await asyncio.sleep(0.05)
    assert issuer.fetches <= 1 + 10 * callers  # per caller at 0, 5, 15, 35, 75, 135 s, and then every minute


@virtually
async def test_a_revoked_token_is_replaced_at_once_however_many_names_were_forbidden_before() -> None:
    """This holds even if all callers count as one, because no key is required."""
    issuer = FakeIssuer(lifetime=1e6)
    machine = build_machine(issuer)
    upstream = Upstream(machine, of_forbidden_model)
    await upstream.request()
    for number in range(600):
        await upstream.request(purpose=Purpose("POST", "chat/completions", f"m{number}"))
        await asyncio.sleep(0.1)
    upstream.rejects = revoked(*(f"token-{number}" for number in range(issuer.fetches + 1)))
    began = asyncio.get_running_loop().time()
    assert await upstream.request() == "ok"
    assert asyncio.get_running_loop().time() - began <= SPACING_SECONDS


@virtually
async def test_while_a_newer_token_is_fetched_others_use_the_one_that_was_rejected() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    first = await machine.get()
    issuer.delay = 5.0
    use = await reject(machine)
    waiting = asyncio.ensure_future(use.token())  # noqa: TID251
    await pass_time(1.0)
    assert at_once(machine.get()) is first
    assert machine.reading().state == "suspect"
    assert not waiting.done()
    await pass_time(5.0)
    newer = await waiting
    assert newer is not None
    assert newer.generation == 2
    assert at_once(machine.get()) is newer


@pytest.mark.parametrize(("error", "status"), [(DOWN, 503), (REFUSED, 502)])
@virtually
async def test_if_no_newer_token_is_available_only_the_rejected_request_fails(
    error: TokenFetchError, status: int
) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    first = await machine.get()
    issuer.error = error
    use = await reject(machine)
    failure = await failure_of(use.token())
    assert (failure.status, failure.reason) == (status, error.reason)
    assert at_once(machine.get()) is first
    assert machine.healthy


# --- a new token that the upstream does not know yet


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("callers", [1, 10])
@pytest.mark.parametrize("lag", [0.5, 4.5, 10.0])
def test_nobody_notices_that_the_upstream_learns_of_new_tokens_late(
    lag: float,
    callers: int,
    exclusive: bool,  # noqa: FBT001
) -> None:
    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1)
        machine = build_machine(issuer, uniform=lowest, exclusive=exclusive)
        results = await LateUpstream(issuer, lag).serve(machine, 1000, callers)
        assert results == {"ok": 10_000}
        refreshes = 1000 // 180
        more = refreshes if lag > PROPAGATION_SECONDS else 0  # the first one might be dead
        assert issuer.fetches == 1 + refreshes + more
        assert machine.stats.early_deaths == 0

    run()


@pytest.mark.parametrize("careless", [1, 5])
@pytest.mark.parametrize("lag", [0.5, 1.5, 3.0, 10.0])
def test_fetches_for_forbidden_models_harm_nobody_although_the_upstream_learns_of_new_tokens_late(
    lag: float, careless: int
) -> None:
    """The rejected token was no longer used after its replacement, which the upstream did not know yet."""

    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1)
        machine = build_machine(issuer)
        late = LateUpstream(issuer, lag)
        upstream = Upstream(machine, lambda token, purpose: purpose != CHAT or late.rejects(token, purpose))
        results = []
        async with asyncio.TaskGroup() as group:
            for number in range(600):  # 300 s
                results.append(group.create_task(upstream.request("other")))
                for caller in range(careless):
                    purpose = Purpose("POST", "chat/completions", f"m{number}")
                    group.create_task(upstream.request(f"careless {caller}", purpose))
                await asyncio.sleep(0.5)
        assert {each.result() for each in results} == {"ok"}

    run()


@virtually
async def test_a_token_that_worked_before_is_tried_once_for_each_caller() -> None:
    issuer = FakeIssuer()
    upstream = Upstream(build_machine(issuer), revoked())
    assert await upstream.request() == "ok"
    upstream.rejects = lambda *_: True
    await upstream.request()
    for tried in (1, 0, 0):
        upstream.sent.clear()
        await upstream.request()
        await upstream.request("other")
        assert upstream.sent.count(f"token-1 for {CHAT.model}") == tried


@virtually
async def test_invented_names_are_not_sent_twice_each_while_a_token_is_new() -> None:
    upstream = Upstream(build_machine(FakeIssuer(lifetime=3600.0)), of_forbidden_model)
    await upstream.request()
    for number in range(100):
        await upstream.request("careless", Purpose("POST", "chat/completions", f"m{number}"))
        await asyncio.sleep(0.5)
    assert len(upstream.sent) < 120


@pytest.mark.parametrize("callers", [1, 10])
@virtually
async def test_a_new_token_that_is_dead_is_replaced_unnoticed(callers: int) -> None:
    issuer = FakeIssuer(delay=0.1)
    machine = build_machine(issuer, uniform=lowest)
    results = await LateUpstream(issuer, 0.0, dead=(2,)).serve(machine, 300, callers)
    assert results == {"ok": 3000}
    assert issuer.fetches == 3
    assert issuer.started[2] - issuer.started[1] < 6.0


@pytest.mark.parametrize("callers", [1, 2, 10, 100])
@pytest.mark.parametrize("lag", [1.5, 3.0, 10.0])
@pytest.mark.parametrize("cold", [True, False])
def test_the_service_recovers_however_late_the_upstream_learns_of_the_only_token(
    lag: float,
    callers: int,
    cold: bool,  # noqa: FBT001
) -> None:
    """Each fetch replaced the token of the previous one, so that none grew old enough to be accepted."""

    @virtually
    async def run() -> None:
        issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
        machine = build_machine(issuer)
        revoked = math.inf if cold else asyncio.get_running_loop().time() + 10.0
        upstream = LateUpstream(issuer, lag, knows=0 if cold else 1, revoked=revoked)
        if not cold:
            assert await upstream.serve(machine, 10, callers) == {"ok": 100}
        await upstream.serve(machine, 5 + 2 * int(lag), callers)
        assert await upstream.serve(machine, 60, callers) == {"ok": 600}
        assert issuer.fetches <= 5

    run()


@virtually
async def test_an_upstream_that_rejects_every_token_of_many_callers_costs_few_fetches() -> None:
    issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
    machine = build_machine(issuer)
    results = await LateUpstream(issuer, math.inf, knows=0).serve(machine, 600, 100)
    assert issuer.fetches <= 5 + 600 / SPACING_SECONDS_MAX
    assert results["denied"] > 0.8 * results.total()  # with the response of the upstream, which says why


@virtually
async def test_a_request_that_waits_for_a_fetch_uses_the_token_if_the_upstream_learns_of_it_meanwhile() -> (
    None
):
    """Otherwise, each fetch would revoke a token and so cause the next fetch."""
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest, exclusive=True)
    results = await LateUpstream(issuer, 0.5, revokes=True).serve(machine, 1000, 10)
    assert results["ok"] > 9900
    assert issuer.fetches < 5 * 1000 / 180


@virtually
async def test_a_forbidden_model_is_denied_while_the_token_is_new() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    upstream = Upstream(machine, of_forbidden_model)
    assert await upstream.request() == "ok"
    await pass_time(181.0)
    assert await upstream.request("careless", FORBIDDEN) == "denied"
    assert upstream.sent[1:] == [f"token-{number} for forbidden" for number in (2, 1, 3)]
    assert await upstream.request() == "ok"
    assert upstream.sent[4:] == [f"token-3 for {CHAT.model}"]


# --- the cost of rejections


@virtually
async def test_a_thousand_rejections_of_one_token_cost_one_fetch() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = build_machine(issuer)
    await machine.get()
    async with asyncio.TaskGroup() as group:
        found = [group.create_task(replaced(machine)) for _ in range(1000)]
    assert {one.result().generation for one in found} == {2}
    assert issuer.fetches == 2


@virtually
async def test_a_late_rejection_of_an_older_token_costs_nothing(lines: list[EventDict]) -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    use = TokenUse(machine, "caller", CHAT)
    await use.token()
    await pass_time(181.0)
    second = at_once(machine.get())
    assert use.rejected("401")
    assert at_once(use.token()) is second
    assert issuer.fetches == 2
    assert "token_rejected" not in [line["event"] for line in lines]


@virtually
async def test_an_upstream_that_always_rejects_costs_two_sends_a_request_and_few_fetches() -> None:
    issuer = FakeIssuer(delay=0.01)
    upstream = Upstream(build_machine(issuer), lambda *_: True)
    for _ in range(6000):  # 600 s of 10 requests a second
        before = len(upstream.sent)
        await upstream.request()
        assert len(upstream.sent) - before <= 2
        await asyncio.sleep(0.1)
    assert issuer.fetches <= 8  # the regular refresh, and further attempts after 1, 2, 4 and 8 minutes


@virtually
async def test_a_denied_purpose_is_answered_as_denied_each_time_and_costs_no_further_fetch() -> None:
    issuer = FakeIssuer()
    upstream = Upstream(build_machine(issuer), of_forbidden_model)
    await upstream.request()
    outcomes = []
    for _ in range(50):
        outcomes.append(await upstream.request("careless", FORBIDDEN))
        await asyncio.sleep(0.5)
        await upstream.request()
        outcomes.append(await upstream.request("another", FORBIDDEN))
        await asyncio.sleep(0.5)
    assert set(outcomes) == {"denied"}
    assert issuer.fetches == 2


@virtually
async def test_a_purpose_that_is_allowed_again_is_forgotten() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    upstream = Upstream(machine, of_forbidden_model)
    assert await upstream.request(purpose=FORBIDDEN) == "denied"
    upstream.rejects = revoked()
    assert await upstream.request(purpose=FORBIDDEN) == "ok"
    await pass_time(6.0)
    upstream.rejects = revoked("token-1", "token-2")
    assert await upstream.request(purpose=FORBIDDEN) == "ok"  # its token is replaced like any other


@virtually
async def test_an_issuer_that_gives_the_rejected_token_again_is_asked_once() -> None:
    issuer = FakeIssuer(token="the same")
    upstream = Upstream(build_machine(issuer), of_forbidden_model)
    await upstream.request()
    for _ in range(50):
        assert await upstream.request(purpose=FORBIDDEN) == "denied"
        await asyncio.sleep(0.2)
    assert issuer.fetches == 2
    assert upstream.sent.count("the same for forbidden") == 50  # each is sent once, for its own response


@pytest.mark.parametrize("fault", [1.0, 5.0, 30.0, 70.0])
@pytest.mark.parametrize("reissues", [True, False])
@virtually
async def test_an_issuer_that_returns_dead_tokens_for_a_while_is_asked_again_soon(
    fault: float, *, reissues: bool
) -> None:
    clock = asyncio.get_running_loop().time
    issuer = FakeIssuer(lifetime=3600.0, token="dead" if reissues else None)
    upstream = Upstream(build_machine(issuer), revoked())
    assert await upstream.request() == "ok"
    dead, began = {"dead", "token-1"}, clock()
    upstream.rejects = lambda token, _: token.secret.reveal() in dead
    while await upstream.request() != "ok":
        if clock() < began + fault:
            dead.add(f"token-{issuer.fetches}")
        else:
            issuer.token = None
        await asyncio.sleep(0.25)
    assert clock() - began <= 3 * fault + DOUBTED_SECONDS
    assert issuer.fetches <= 10


@virtually
async def test_a_purpose_that_is_forbidden_from_now_on_costs_few_fetches() -> None:
    issuer = FakeIssuer(lifetime=3600.0)
    upstream = Upstream(build_machine(issuer), revoked())
    assert await upstream.request() == "ok"
    upstream.rejects = lambda *_: True
    for _ in range(6000):  # 600 s
        assert await upstream.request() == "denied"
        await asyncio.sleep(0.1)
    assert issuer.fetches <= 14  # two for each denial, and seven denials, each twice as long


@virtually
async def test_a_caller_whose_fetches_are_rationed_gets_a_retry_after() -> None:
    machine = build_machine(FakeIssuer())
    upstream = Upstream(machine, of_forbidden_model)
    await upstream.request()
    assert await upstream.request("careless", FORBIDDEN) == "denied"
    await pass_time(1.1)
    use = await reject(machine, "careless", Purpose("POST", "embeddings", "also forbidden"))
    error = await failure_of(use.token())
    assert error.status == 503
    assert error.headers["Retry-After"] == "4"
    assert "rationed" in str(error.reason)
    await pass_time(4.0)
    assert await upstream.request("careless", Purpose("POST", "embeddings", "also forbidden")) == "denied"


@virtually
async def test_a_token_that_is_revoked_again_and_again_is_replaced_each_time() -> None:
    issuer = FakeIssuer(delay=0.1)
    machine = build_machine(issuer)
    upstream = Upstream(machine, revoked())
    for number in range(1, 30):
        assert await upstream.request() == "ok"
        upstream.rejects = revoked(*(f"token-{each}" for each in range(number + 1)))
        outcomes = {await upstream.request(f"caller {each}") for each in range(5)}
        assert outcomes == {"ok"}
        await asyncio.sleep(0.3)  # within the minimum time between two fetches
    elapsed = asyncio.get_running_loop().time() - issuer.started[0]
    # Because of rejections, and of the lifetime that they teach.
    assert issuer.fetches <= 2 * elapsed / SPACING_SECONDS


# --- a flight that left before the rejection


@virtually
async def test_a_fetch_that_left_before_the_rejection_cannot_bring_the_token_back() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.delay = 5.0
    await pass_time(181.0)  # the refresh is running, and will return "old"
    issuer.token = "new"
    assert (await replaced(machine)).secret.reveal() == "new"
    assert issuer.fetches == 3
    assert issuer.most_at_once == 1


@virtually
async def test_a_fetch_that_left_before_the_rejection_may_bring_another_token() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.token, issuer.delay = "new", 5.0
    await pass_time(181.0)
    assert (await replaced(machine)).secret.reveal() == "new"
    assert issuer.fetches == 2


@virtually
async def test_a_token_that_was_fetched_before_the_rejection_proves_nothing() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.delay = 1.0
    await pass_time(180.5)  # a refresh is running when all tokens are revoked
    upstream = Upstream(machine, revoked("token-1", "token-2"))
    assert await upstream.request() == "ok"
    assert [sent.partition(" ")[0] for sent in upstream.sent] == ["token-1", "token-2", "token-3"]


@virtually
async def test_callers_share_the_failure_of_the_second_fetch() -> None:
    issuer = FakeIssuer(token="old")
    machine = build_machine(issuer, uniform=lowest)
    await machine.get()
    issuer.delay = 5.0
    await pass_time(181.0)
    uses = [await reject(machine) for _ in range(10)]
    issuer.error = DOWN
    async with asyncio.TaskGroup() as group:
        failing = [group.create_task(failure_of(use.token())) for use in uses]
    assert {one.result().reason for one in failing} == {"the issuer is down"}
    assert issuer.fetches == 3


@virtually
async def test_a_token_that_another_process_fetched_uses_up_no_ration() -> None:
    class Adopting:
        """Returns the token of another process each time."""

        async def obtain(self, fetch: Fetch, known: FlightContext) -> Token:
            now, generation = asyncio.get_running_loop().time(), known.generation + 1
            token = with_deadlines(await fetch(), generation=generation, obtained=now, uniform=lowest)
            return replace(token, adopted=True)

        async def look(self, known: FlightContext) -> None:
            return None

    issuer = FakeIssuer()
    policy = RefreshPolicy(clock=asyncio.get_running_loop().time)
    machine = CachedTokenSource("corp", issuer, Adopting(), policy, TokenStats())
    for generation in range(1, 5):
        assert (await machine.get()).generation == generation
        use = await reject(machine, purpose=Purpose("POST", "chat/completions", f"m{generation}"))
        assert await use.token() is not None
        await pass_time(1.0)


# --- early deaths


async def live(machine: CachedTokenSource, seconds: float, life: float, *, step: float = 0.25) -> list[str]:
    """Send requests to an upstream that rejects tokens after `life` seconds, whatever they announce."""
    clock, born = asyncio.get_running_loop().time, dict[str, float]()

    def is_dead(token: Token, _purpose: Purpose) -> bool:
        return clock() >= born.setdefault(token.secret.reveal(), clock()) + life

    upstream, outcomes, end = Upstream(machine, is_dead), list[str](), clock() + seconds
    while clock() < end:
        outcomes.append(await upstream.request())
        await asyncio.sleep(step)
    return outcomes


def longest_tried(life: float) -> float:
    """Return the longest lifetime that is tried after `life` was learned, give or take 0.5 s.

    A token may be refreshed just before its end once the bound has grown, and be counted as healthy. After
    another step it is refreshed at 60% of 2.25 lives at the earliest, and dies.
    """
    return GROWTH**2 * (life + 0.5)


@pytest.mark.parametrize("life", [1.5, 3.0, 8.0, 60.0])
@virtually
async def test_tokens_that_die_early_are_refreshed_by_their_observed_life(
    life: float, lines: list[EventDict]
) -> None:
    issuer = FakeIssuer(delay=0.2)
    machine = build_machine(issuer)
    outcomes = await live(machine, 40 * life, life)
    assert set(outcomes) == {"ok"}
    learned = [line for line in lines if line["event"] == "token_life_learned"]
    assert learned[0]["announced_s"] == 300.0
    assert learned[0]["observed_s"] == pytest.approx(life, abs=0.5)
    assert 0 < machine.reading().learned_life_seconds <= longest_tried(life)
    # Two early rejections teach the lifetime; later requests sometimes test whether it is longer again.
    assert machine.stats.early_deaths <= 8
    assert issuer.fetches >= 30


@virtually
async def test_a_life_that_is_healthy_again_is_believed_again(lines: list[EventDict]) -> None:
    machine = build_machine(FakeIssuer(lifetime=300.0))
    await live(machine, 30.0, 8.0)
    assert machine.reading().learned_life_seconds > 0
    assert set(await live(machine, 6000.0, 300.0, step=1.0)) == {"ok"}
    assert machine.reading().learned_life_seconds == 0
    assert "token_life_restored" in [line["event"] for line in lines]


@virtually
async def test_one_early_death_changes_nothing() -> None:
    machine = build_machine(FakeIssuer())
    upstream = Upstream(machine, revoked())
    for _ in range(5):
        upstream.rejects = revoked(f"token-{machine.reading().generation}")
        assert await upstream.request() == "ok"
        for _ in range(1200):  # two full lifetimes
            assert await upstream.request() == "ok"
            await asyncio.sleep(0.5)
    assert machine.reading().learned_life_seconds == 0


@virtually
async def test_random_rejections_do_not_change_the_lifetime() -> None:
    dice = itertools.cycle([True, *[False] * 40])
    machine = build_machine(FakeIssuer(delay=0.3))
    upstream = Upstream(machine, lambda *_: next(dice))
    async with asyncio.TaskGroup() as group:
        for _ in range(2000):
            group.create_task(upstream.request())
            await asyncio.sleep(0.05)
    assert machine.reading().learned_life_seconds == 0


@pytest.mark.parametrize(
    ("rate", "share", "delay"), [(1.0, 0.01, 0.3), (1.0, 0.05, 0.3), (10.0, 0.01, 0.05), (0.2, 0.05, 0.3)]
)
@virtually
async def test_random_rejections_under_light_load_cost_one_fetch_each(
    rate: float, share: float, delay: float
) -> None:
    dice, issuer = random.Random(1), FakeIssuer(delay=delay)
    machine = build_machine(issuer)
    upstream = Upstream(machine, lambda *_: dice.random() < share)
    async with asyncio.TaskGroup() as group:
        for _ in range(int(3000 * rate)):
            group.create_task(upstream.request())
            await asyncio.sleep(1 / rate)
    assert issuer.fetches <= 1.2 * 3000 * rate * share + 3000 / 180


@pytest.mark.parametrize("seed", [1, 2, 3, 82])  # with the last, the bound grows twice within the test
@virtually
async def test_a_life_that_becomes_short_after_long_ones_is_learned(
    seed: int, lines: list[EventDict]
) -> None:
    machine = build_machine(FakeIssuer(delay=0.2), uniform=random.Random(seed).uniform)
    await live(machine, 1000.0, 300.0)
    assert set(await live(machine, 100.0, 8.0)) == {"ok"}
    learned = [line for line in lines if line["event"] == "token_life_learned"]
    assert learned[0]["observed_s"] == pytest.approx(8.0, abs=0.5)
    assert 7.5 <= machine.reading().learned_life_seconds <= longest_tried(8.0)
    assert machine.stats.early_deaths <= 5


@virtually
async def test_a_fetch_may_take_longer_than_the_learned_life() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    await live(machine, 10.0, 1.0)
    assert machine.reading().learned_life_seconds < 1.5
    issuer.delay = 2.0
    assert set(await live(machine, 600.0, 300.0)) == {"ok"}


@virtually
async def test_a_token_that_its_successor_revokes_has_not_died_early() -> None:
    issuer = FakeIssuer(delay=0.1)
    machine = build_machine(issuer, exclusive=True)
    upstream = Upstream(machine, lambda token, _: token.secret.reveal() != f"token-{issuer.fetches}")
    async with asyncio.TaskGroup() as group:
        for _ in range(8000):  # 2000 s: about ten lives
            group.create_task(upstream.request())
            await asyncio.sleep(0.25)
    assert machine.reading().learned_life_seconds == 0


@virtually
async def test_a_token_that_is_revoked_before_the_upstream_checks_it_has_not_died_early() -> None:
    issuer = FakeIssuer(delay=0.1)
    machine = build_machine(issuer, exclusive=True)

    async def request() -> None:
        use = TokenUse(machine, "caller", CHAT)
        while (token := await use.token()) is not None:
            await asyncio.sleep(2.0)  # for example until the whole body has arrived
            if token.secret.reveal() == f"token-{issuer.fetches}":
                return use.accepted()
            use.rejected("401")
        raise AssertionError("it was denied")

    async with asyncio.TaskGroup() as group:
        for _ in range(4000):  # 1000 s
            group.create_task(request())
            await asyncio.sleep(0.25)
    assert issuer.fetches > 1
    assert machine.stats.early_deaths == 0


@virtually
async def test_one_early_death_is_enough_where_the_end_was_read_by_our_own_clock() -> None:
    issuer = FakeIssuer(certain=False)
    machine = build_machine(issuer)
    await live(machine, 30.0, 20.0)
    assert machine.reading().learned_life_seconds == pytest.approx(20.0, abs=0.5)


@virtually
async def test_it_is_known_whether_any_token_was_ever_accepted() -> None:
    machine = build_machine(FakeIssuer())
    await reject(machine)
    assert not machine.ever_accepted
    await serve(machine)
    await pass_time(3600.0)
    assert machine.ever_accepted


@virtually
async def test_a_token_that_is_revoked_at_once_denies_no_purpose() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    upstream = Upstream(machine, revoked())
    assert await upstream.request() == "ok"
    upstream.rejects = revoked("token-1", "token-2")
    assert await upstream.request() == "ok"
    assert upstream.sent[1:] == [f"token-{number} for {CHAT.model}" for number in (1, 2, 2, 3)]


@pytest.mark.parametrize("callers", [1, 3])
@pytest.mark.parametrize("lag", [0.1, 0.5, 0.9])
@virtually
async def test_callers_that_send_one_request_at_a_time_notice_no_late_token_after_a_revocation(
    lag: float, callers: int
) -> None:
    """All of them waited to fetch another token, which was not known either, and were then denied."""
    issuer = FakeIssuer(delay=0.1, lifetime=3600.0)
    machine = build_machine(issuer, uniform=lowest)
    revoked_at = asyncio.get_running_loop().time() + 100.0
    upstream = Upstream(machine, LateUpstream(issuer, lag, revoked=revoked_at).rejects)
    outcomes = Counter[str]()

    async def work(caller: str) -> None:
        for _ in range(200):
            outcomes[await upstream.request(caller)] += 1
            await pass_time(1.0)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(work(f"caller {number}"))
    assert outcomes == {"ok": 200 * callers}
    assert issuer.fetches == 2


@virtually
async def test_a_purpose_that_worked_before_is_denied_after_two_fresh_tokens() -> None:
    issuer = FakeIssuer()
    machine = build_machine(issuer)
    upstream = Upstream(machine, revoked())
    assert await upstream.request() == "ok"
    upstream.rejects = lambda _token, _purpose: True
    assert await upstream.request() == "denied"
    assert [line[:7] for line in upstream.sent] == [f"token-{number}" for number in (1, 1, 2, 2, 3)]
    assert await upstream.request() == "denied"
    assert len(upstream.sent) == 6  # known by now

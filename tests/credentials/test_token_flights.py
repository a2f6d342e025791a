"""Flights: one at a time, pauses after failures, and the timer."""

import asyncio

import pytest
from msgspec.structs import replace

from proxy.credentials import LocalSharing, MemoryTokenStore, RefreshPolicy, Token
from proxy.credentials.observed_tokens import ObservedTokens
from proxy.credentials.rejections import Purpose, RejectionHistory
from proxy.credentials.sharing import FlightContext
from proxy.credentials.token_flights import TokenFlights
from proxy.errors import IssuerRefuses, TokenUnavailable
from proxy.telemetry import TokenStats
from tests.credentials.fakes import DOWN, REFUSED, FakeIssuer, lowest, pass_time, virtually

CHAT = Purpose("POST", "chat/completions", "m")


class SlowLooks(LocalSharing):
    """A sharing whose looks take a second, and find the token that somebody else fetched before."""

    others: Token | None = None
    looks = 0

    async def look(self, known: FlightContext) -> Token | None:
        """Find the token of somebody else."""
        self.looks += 1
        found = self.others
        await asyncio.sleep(1.0)
        return found


class Machine:
    """Flights on the running loop's clock, and what they share with the rest of a source."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self.clock = asyncio.get_running_loop().time
        self.history = RejectionHistory()
        policy = RefreshPolicy(clock=self.clock, uniform=lowest)
        stats = TokenStats()
        self.sharing = SlowLooks("corp", MemoryTokenStore(), policy, stats)
        self.flights = TokenFlights(
            "corp", issuer, self.sharing, policy, stats, ObservedTokens(), self.history
        )

    def refresh(self) -> None:
        """Start a flight if one may start."""
        self.flights.refresh(self.clock())


@virtually
async def test_there_is_one_flight_at_a_time() -> None:
    issuer = FakeIssuer(delay=1.0)
    machine = Machine(issuer)
    for _ in range(3):
        machine.refresh()
    assert machine.flights.is_flying
    tokens = await asyncio.gather(*[machine.flights.wait() for _ in range(10)])
    assert {token.generation for token in tokens} == {1}
    assert (issuer.fetches, machine.flights.is_flying, machine.flights.waiters) == (1, False, 0)
    assert machine.flights.valid(machine.clock()) is machine.flights.current is tokens[0]
    await machine.flights.close()


@virtually
async def test_after_a_failure_no_flight_starts_until_the_pause_is_over() -> None:
    issuer = FakeIssuer(error=DOWN)
    machine = Machine(issuer)
    with pytest.raises(TokenUnavailable):
        await machine.flights.wait()
    assert machine.flights.is_blocked(machine.clock())
    machine.refresh()
    assert issuer.fetches == 1
    issuer.error = None
    await pass_time(machine.flights.pause(machine.clock()) + 0.01)
    assert not machine.flights.is_blocked(machine.clock())
    assert (issuer.fetches, machine.flights.generation) == (2, 1)  # by the timer
    await machine.flights.close()


@virtually
async def test_callers_get_another_error_if_the_issuer_refuses() -> None:
    machine = Machine(FakeIssuer(error=REFUSED))
    with pytest.raises(IssuerRefuses):
        await machine.flights.wait()
    assert isinstance(machine.flights.unavailable(machine.clock()), IssuerRefuses)
    await machine.flights.close()


@virtually
async def test_a_flight_that_fails_costs_no_ration() -> None:
    machine = Machine(FakeIssuer(error=DOWN))
    machine.history.charge("caller", CHAT, machine.clock())
    assert machine.history.delay("caller", CHAT, machine.clock() + 1.0) > 0.0
    machine.flights.start(machine.clock())
    with pytest.raises(TokenUnavailable):
        await machine.flights.join(1.0)
    assert machine.history.delay("caller", CHAT, machine.clock() + 1.0) == 0.0
    await machine.flights.close()


@virtually
async def test_a_look_adopts_the_token_of_somebody_else_unless_a_flight_was_faster() -> None:
    issuer = FakeIssuer()
    machine = Machine(issuer)
    flights, sharing = machine.flights, machine.sharing
    first = await flights.wait()
    sharing.others = replace(first, generation=2, digest=b"others", adopted=True)
    for _ in range(3):
        flights.look(machine.clock())
    await pass_time(1.1)
    assert (flights.current, flights.generation, sharing.looks) == (sharing.others, 2, 1)
    flights.look(machine.clock())
    await pass_time(0.5)
    flights.start(machine.clock())
    await pass_time(1.0)
    assert flights.current is not None
    assert (flights.current.secret.reveal(), flights.generation) == ("token-2", 3)
    await flights.close()
    flights.look(machine.clock())
    assert sharing.looks == 2


@virtually
async def test_a_shortened_token_is_refreshed_earlier() -> None:
    issuer = FakeIssuer()
    machine = Machine(issuer)
    token = await machine.flights.wait()
    machine.flights.shorten(1000.0)
    assert machine.flights.current is token
    machine.flights.shorten(10.0)
    machine.flights.use(machine.clock())
    await pass_time(6.1)
    assert issuer.fetches == 2
    await machine.flights.close()


@virtually
async def test_a_close_fails_the_waiters_and_starts_nothing_more() -> None:
    issuer = FakeIssuer(delay=5.0)
    machine = Machine(issuer)
    waiting = asyncio.get_running_loop().create_task(machine.flights.wait())
    await pass_time(1.0)
    await machine.flights.close()
    with pytest.raises(TokenUnavailable) as caught:
        await waiting
    assert caught.value.reason == "the service is closing"
    machine.refresh()
    assert machine.flights.is_blocked(machine.clock())
    assert (issuer.fetches, issuer.closed, machine.flights.is_flying) == (1, 1, False)

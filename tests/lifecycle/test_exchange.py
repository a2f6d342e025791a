"""The scope of an exchange: it closes everything, and then writes one line, even after errors."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.errors import BadResponse
from proxy.lifecycle import CallerGone, ExchangeScope
from proxy.services import Services
from proxy.telemetry import ExchangeRecord, ExchangeTotals


@pytest.fixture
def totals() -> ExchangeTotals:
    """The counters of all exchanges."""
    return ExchangeTotals()


@pytest.fixture
def exchange(totals: ExchangeTotals) -> ExchangeScope:
    """A scope that has not been entered. Without a caller, it uses only the totals of the services."""
    services = cast(
        Services, SimpleNamespace(worker=SimpleNamespace(exchanges=totals, traces=None), traffic=None)
    )
    return ExchangeScope(ExchangeRecord("id", "POST", "/v1/models"), lambda: services)


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The log lines of the test."""
    with capture_logs() as lines:
        yield lines


async def test_the_log_line_is_written_after_everything_is_closed_in_reverse(
    exchange: ExchangeScope, lines: list[EventDict]
) -> None:
    steps: list[str] = []
    async with exchange:
        exchange.closing.callback(lambda: steps.append(f"first, {len(lines)} lines"))
        exchange.closing.callback(steps.append, "second")
    assert steps == ["second", "first, 0 lines"]
    assert [(line["event"], line["outcome"]) for line in lines] == [("exchange", "ok")]


@pytest.mark.parametrize(
    ("error", "outcome", "events"),
    [
        (BadResponse(reason="garbage"), "upstream_bad_response", ["exchange"]),
        (CallerGone(), "client_gone", ["exchange"]),
        (LookupError(), "internal_error", ["response_failed", "exchange"]),
        (asyncio.CancelledError(), "client_gone", ["exchange"]),
    ],
)
async def test_an_error_passes_and_is_the_outcome(
    exchange: ExchangeScope,
    totals: ExchangeTotals,
    lines: list[EventDict],
    error: BaseException,
    outcome: str,
    events: list[str],
) -> None:
    with pytest.raises(type(error)) as caught:
        async with exchange:
            raise error
    assert caught.value is error
    assert [line["event"] for line in lines] == events
    assert lines[-1]["outcome"] == outcome
    assert [key.outcome for key in totals.requests] == [outcome]


async def test_an_error_during_the_closing_is_the_outcome(
    exchange: ExchangeScope, lines: list[EventDict]
) -> None:
    def fail() -> NoReturn:
        raise LookupError

    steps: list[str] = []
    exchange.closing.callback(steps.append, "closed")
    exchange.closing.callback(fail)
    with pytest.raises(LookupError):
        async with exchange:
            pass
    assert steps == ["closed"]
    assert lines[-1]["outcome"] == "internal_error"


async def test_the_first_outcome_counts(exchange: ExchangeScope, lines: list[EventDict]) -> None:
    exchange.record.end("error_inside", "1002")
    with pytest.raises(BadResponse):
        async with exchange:
            raise BadResponse
    assert (lines[-1]["outcome"], lines[-1]["reason"]) == ("error_inside", "1002")


async def test_services_are_held_from_the_first_use_to_the_end() -> None:
    class Users:
        count = 0

        def acquire(self) -> None:
            self.count += 1

        def release(self) -> None:
            self.count -= 1

    users, counts = Users(), list[int]()
    worker = SimpleNamespace(exchanges=ExchangeTotals(), traces=None)
    services = cast(Services, SimpleNamespace(users=users, worker=worker, traffic=None))
    async with ExchangeScope(ExchangeRecord("id", "GET", "/"), lambda: services) as exchange:
        assert users.count == 0
        assert exchange.services is services
        assert exchange.services is services
        assert users.count == 1
        exchange.closing.callback(lambda: counts.append(users.count))
    assert (counts, users.count) == ([1], 0)

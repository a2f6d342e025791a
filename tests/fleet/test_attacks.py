"""Short forms of the attacks: what `python -m tests.fleet` does at length.

They need the machine for themselves, so `make test` runs them after all other tests: in two workers, each
with a fleet that all its attacks share.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.fleet.attacks import ATTACKS, Attack, perform
from tests.fleet.fleet import Fleet, run_fleet

MEMBERS: Final = 3
ELSEWHERE: Final = frozenset(
    {"steady-0", "steady-0.6", "storm-issuer-slow", "one-fetch-hangs", "holder-stopped", "dies-early-alone"}
)
"""Attacks that resemble others in their short forms."""

pytestmark = [pytest.mark.fleet, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A fleet for all attacks of a worker; each attack starts with members without tokens."""
    async with run_fleet(MEMBERS, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def cases(*, needs_sentinel: bool) -> list[object]:
    """Attacks as parameters of a test."""
    return [
        pytest.param(attack, id=attack.name, marks=_marks(attack))
        for attack in ATTACKS
        if attack.name not in ELSEWHERE and attack.needs_sentinel is needs_sentinel
    ]


def _marks(attack: Attack) -> list[pytest.MarkDecorator]:
    is_of_store = attack.name.startswith(("redis", "holder", "steady", "revoked"))
    return [pytest.mark.xdist_group("store" if is_of_store else "issuer")]


@pytest.mark.parametrize("attack", cases(needs_sentinel=False))
async def test_callers_notice_no_more_of_an_attack_than_allowed(fleet: Fleet, attack: Attack) -> None:
    outcome = await perform(fleet, attack, short=True)
    assert not outcome.problems, "; ".join(outcome.problems)
    assert outcome.requests > 0


@pytest.mark.parametrize("attack", cases(needs_sentinel=True))
async def test_callers_notice_no_failover_by_a_sentinel(tmp_path: Path, attack: Attack) -> None:
    async with run_fleet(2, tmp_path, sentinel=True) as fleet:
        outcome = await perform(fleet, attack, short=True)
    assert not outcome.problems, "; ".join(outcome.problems)
    assert outcome.requests > 0

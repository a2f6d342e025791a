"""Members of a fleet in one test, each with its own connection to Redis, as in separate processes."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.credentials import CachedTokenSource, RefreshPolicy
from proxy.credentials.sharing.fleet import Fleet, FleetSharing
from proxy.redis_connection import RedisConnection, StoreUnavailable
from proxy.settings import Shared
from proxy.telemetry import TokenStats
from tests.credentials.fakes import FakeIssuer, replaced
from tests.pace import PATIENCE
from tests.waiting import look_again

KEY = base64.b64encode(secrets.token_bytes(32)).decode()
RECIPE = b"one recipe"


def shared(url: str, **more: Any) -> Shared:
    """Return a `[shared]` section."""
    return Shared.model_validate({"redis_url": url, "encryption_key": KEY, "redis_timeout": PATIENCE, **more})


@dataclass
class Member:
    """One process of the fleet."""

    machine: CachedTokenSource
    sharing: FleetSharing
    fleet: Fleet
    redis: RedisConnection


@asynccontextmanager
async def fleet_of(
    count: int,
    url: str,
    issuer: FakeIssuer,
    *,
    required: bool = False,
    recipe: bytes = RECIPE,
    clock: Callable[[], float] | None = None,
    settings: dict[str, Any] | None = None,
    host: bytes | None = None,
    **policy: Any,
) -> AsyncIterator[list[Member]]:
    """Open members of a fleet in front of one issuer, and close them at the end of the block.

    Each member is on a host of its own, unless `host` names one.
    """
    members = []
    bounds = RefreshPolicy(
        clock=clock or asyncio.get_running_loop().time, **{"lease_seconds": PATIENCE, **policy}
    )
    for _ in range(count):
        section = shared(url, **(settings or {}))
        redis = RedisConnection(section)
        fleet = Fleet(section, redis, host or secrets.token_bytes(8))
        stats = TokenStats()
        sharing = fleet.sharing(recipe, bounds, stats, required=required)
        machine = CachedTokenSource("corp", issuer, sharing, bounds, stats)
        members.append(Member(machine, sharing, fleet, redis))
    try:
        yield members
    finally:
        for member in members:
            await member.machine.close()
            await member.fleet.close()
            await member.redis.close()


def scripts_of(member: Member) -> list[str]:
    """Return a list to which each script that a member runs in Redis from now on is appended."""
    scripts, run_script = list[str](), member.redis.run_script

    async def counted(script: str, *arguments: Any, **options: Any) -> object:
        scripts.append(script)
        return await run_script(script, *arguments, **options)

    member.redis.run_script = counted  # type: ignore[method-assign]
    return scripts


async def cut_off(member: Member) -> None:
    """Let each later request of a member to Redis fail, as if the member had been killed."""

    async def gone(*_: object, **__: object) -> list[object]:
        raise StoreUnavailable("cut off")

    member.redis.run_script = gone  # type: ignore[method-assign]


async def tokens_of(members: list[Member]) -> list[str]:
    """Return the token that each member would send now, asked concurrently."""
    tokens = await asyncio.gather(*(member.machine.get() for member in members))
    return [token.secret.reveal() for token in tokens]


async def replacements(members: list[Member]) -> list[str]:
    """Return the token that each member sends after a rejection, asked concurrently."""
    tokens = await asyncio.gather(*(replaced(member.machine) for member in members))
    return [token.secret.reveal() for token in tokens]


async def healed(member: Member) -> None:
    """Wait until a member has a token again."""
    async with asyncio.timeout(PATIENCE):
        while member.machine.remaining is None:
            await look_again()

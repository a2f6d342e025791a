"""The attacks on the fleet, and the effects that callers may notice."""

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fleet.fleet import CONTROLS, Fleet, Load, Member, promote, replica_of
from tests.fleet.measure import (
    GOOD,
    Gap,
    Interval,
    Late,
    Starvation,
    error_span,
    errors_of,
    stalls_of,
    without_retry_after,
)
from tests.fleet.relays import Mode

NO_GAP_SECONDS: Final = 0.5
"""Shorter gaps do not count, because processes share the processors of the machine."""
LIFE_SECONDS: Final = 5.0
LONG_LIFE_SECONDS: Final = 300.0
DELAYS: Final = (0.2, 0.0, 0.6, 1.2)
"""Seconds that the issuer needs for a token. The runs of an attack use them in turn."""
SHORTER_DELAYS: Final = (0.2, 0.0, 0.6)
"""For bounds that are shorter than two fetches of 1.2 s, where a hanging fetch is noticed when it takes
longer than a good one and another one follows; or shorter than one, where a token dies unexpectedly."""
CATCHABLE: Final = (0.4,)
"""For attacks that must hit a member during its fetch."""
STORM_PACE_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Bound:
    """What callers of healthy members may notice.

    Args:
        gap: The longest time without a good answer.
        errors: The part of all requests that may fail.
        error_seconds: Or the time in which requests may fail, with 503 and Retry-After alone.
        fetches: How many fetches there may be; any number if None.
    """

    gap: float = NO_GAP_SECONDS
    errors: float = 0.0
    error_seconds: float = 0.0
    fetches: Callable[["Scene"], range] | None = None


@dataclass
class Scene:
    """An attack in progress.

    Args:
        fleet: The fleet under attack.
        seconds: How long the attack lasts, at least.
        delay: Seconds that the issuer takes.
        life: The announced lifetime of the tokens.
        true_life: Their true lifetime.
        closing: Undoes at the end what the attack did.
    """

    fleet: Fleet
    seconds: float
    delay: float
    life: float
    true_life: float | None
    closing: AsyncExitStack
    begin: float = field(default_factory=time.monotonic)
    hurt: set[str] = field(default_factory=set)
    """The names of the members that the attack harms."""

    async def behave(self, **behaviour: Any) -> None:
        """Change the behaviour of the issuer."""
        usual = {"delay": self.delay, "life": self.life, "true_life": self.true_life}
        await self.fleet.issuer.call("behave", **{**usual, **behaviour})

    def hurts(self, member: Member) -> Member:
        """Expect no good answers from a member."""
        self.hurt.add(member.name)
        return member

    async def watch(self) -> None:
        """Wait for the duration of the attack."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: Of the row.
        run: Does it.
        bound: What callers may notice.
        seconds: How long it lasts in full, and in the short form.
        life: Announced life of the tokens, in full and in the short form.
        true_life: Their true one, likewise.
        delays: Seconds that the issuer takes, by the number of the run.
        is_cold: Whether the attack begins before any member has a token.
        needs_sentinel: Whether the members must find Redis through a sentinel.
    """

    name: str
    run: Callable[[Scene], Awaitable[None]]
    bound: Bound
    seconds: tuple[float, float]
    life: tuple[float, float] = (LIFE_SECONDS, 2.5)
    true_life: tuple[float, float] | None = None
    delays: tuple[float, ...] = DELAYS
    is_cold: bool = False
    needs_sentinel: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run of an attack."""

    attack: Attack
    requests: int
    errors: Counter[str]
    error_seconds: float
    gap: Gap
    stalled: float
    """Seconds in which a control got no good answers either."""
    fetches: int
    expired: int
    others: Counter[str]
    """The responses to requests that need not succeed."""
    window: Interval
    problems: tuple[str, ...]


async def perform(
    fleet: Fleet, attack: Attack, *, short: bool = False, seconds: float | None = None, number: int = 0
) -> Outcome:
    """Run an attack once, with a fresh credential and a healthy fleet.

    Args:
        fleet: The fleet to attack. Its members need not run yet.
        attack: What to do.
        short: Whether to take the short form.
        seconds: How long the attack lasts, if not as long as it says.
        number: Of the run, from 0.
    """
    form = int(short)
    async with AsyncExitStack() as closing:
        scene = Scene(
            fleet,
            attack.seconds[form] if seconds is None else seconds,
            attack.delays[number % len(attack.delays)],
            attack.life[form],
            attack.true_life[form] if attack.true_life else None,
            closing,
        )
        await scene.behave()
        if not attack.is_cold:
            await fleet.start_members([member for member in fleet.members if not member.child.is_running])
            await fleet.use_new_secret()
        async with fleet.load() as load:
            if not attack.is_cold:
                await fleet.settled()
            scene.begin = time.monotonic()
            await attack.run(scene)
            window = scene.begin, time.monotonic()
            fetches = await fleet.fetches()
            await closing.aclose()
            await scene.behave()
            await fleet.mend_ways()
        late = [Late(*one) for one in await fleet.upstream.call("late", epoch=fleet.epoch)]
    await fleet.start_members([member for member in fleet.members if not member.child.is_running])
    begun = sum(window[0] <= fetch["started"] < window[1] for fetch in fetches)
    return _judge(scene, attack, load, window, begun, late)


def _judge(
    scene: Scene,
    attack: Attack,
    load: Load,
    window: Interval,
    fetches: int,
    late: list[Late],
) -> Outcome:
    records = load.records
    controls = ([one for one in records if one.target == name and one.kind == GOOD] for name in CONTROLS)
    starvation = Starvation([*load.stalls, *stalls_of(controls, window)], load.waits)
    healthy = {member.name for member in scene.fleet.members} - scene.hurt
    answered = [one for one in records if one.kind == GOOD and one.target in healthy]
    asked = [one for one in answered if window[0] <= one.started < window[1]]
    gap = starvation.longest_gap(answered, window)
    others = [one for one in records if one.kind != GOOD or one.target in scene.hurt]
    expired = starvation.really_late(late)
    errors, bound = errors_of(asked), attack.bound
    problems = []
    if bound.error_seconds:
        if error_span(asked) > bound.error_seconds:
            problems.append(f"errors for {error_span(asked):.1f} s")
        if wrong := [error for error in errors if not error.startswith("503 ")]:
            problems.append(f"errors other than 503: {wrong}")
    elif errors.total() > bound.errors * len(asked):
        problems.append(f"{errors.total()} of {len(asked)} requests failed")
    if missing := without_retry_after(answered):
        problems.append(f"{missing} answers 503 without Retry-After")
    if gap.net > bound.gap:
        problems.append(f"a gap of {gap.net:.2f} s at {gap.target}")
    if expired:
        latest = max(one.arrived - one.told for one in expired)
        problems.append(f"{len(expired)} expired tokens, up to {latest:.3f} s late")
    if bound.fetches is not None and fetches not in bound.fetches(scene):
        allowed = bound.fetches(scene)
        problems.append(f"{fetches} fetches instead of {allowed.start} to {allowed.stop - 1}")
    problems += scene.fleet.secrets_in_logs()
    return Outcome(
        attack, len(asked), errors, error_span(asked), gap, starvation.within(window, ""),
        fetches, len(expired), Counter(f"{one.status} {one.code}" for one in others),
        window, tuple(problems),
    )  # fmt: skip


# --- a model that the upstream forbids


async def forbid_while_issuer_is_down(scene: Scene) -> None:
    """Send each member an occasional request for a forbidden model, while no member reaches the issuer."""
    await scene.fleet.switch_ways(scene.fleet.issuer_ways, Mode.REFUSE)
    await scene.fleet.storm(pace=1.0)
    await scene.watch()


async def storm(scene: Scene) -> None:
    """Send all members many requests for a forbidden model."""
    await scene.fleet.storm(STORM_PACE_SECONDS)
    await scene.watch()


async def storm_while_issuer_is_slow(scene: Scene) -> None:
    """Send them while the issuer needs three seconds for a token."""
    await scene.behave(delay=3.0)
    await storm(scene)


async def storm_while_issuer_is_down(scene: Scene) -> None:
    """Send them while the issuer answers 503."""
    await scene.behave(status=503)
    await storm(scene)


# --- one member that cannot reach the issuer


def cut_off(mode: Mode) -> Callable[[Scene], Awaitable[None]]:
    """Cut one member off from the issuer, just before a refresh is due."""

    async def attack(scene: Scene) -> None:
        victim = scene.hurts(scene.fleet.members[0])
        await scene.fleet.switch_ways([victim.issuer_way], mode)
        await scene.watch()

    return attack


# --- the issuer


def fetches_hang(count: int) -> Callable[[Scene], Awaitable[None]]:
    """Return an attack: the issuer revokes all tokens, and does not answer the next fetches."""

    async def attack(scene: Scene) -> None:
        await scene.fleet.no_fetch_runs()
        await scene.behave(hangs=count)
        await scene.fleet.upstream.call("revoke")
        await scene.watch()

    return attack


async def revoke_once(scene: Scene) -> None:
    """Let the issuer revoke all tokens."""
    await scene.fleet.no_fetch_runs()
    await scene.fleet.upstream.call("revoke")
    await scene.watch()


async def revoke_twice(scene: Scene) -> None:
    """Let it revoke the new token as well, within two seconds."""
    await scene.fleet.no_fetch_runs()
    await scene.fleet.upstream.call("revoke")
    await scene.fleet.next_holder()
    await scene.fleet.no_fetch_runs()
    await asyncio.sleep(0.2)
    await scene.fleet.upstream.call("revoke")
    await scene.watch()


async def load_only(scene: Scene) -> None:
    """Do nothing; only the issuer misbehaves."""
    await scene.watch()


async def load_one_alone(scene: Scene) -> None:
    """Do nothing to a single member, which shares its token with no other."""
    for member in scene.fleet.members[1:]:
        await scene.hurts(member).child.stop()
    scene.begin = time.monotonic()
    await scene.watch()


async def refuse_at_start(scene: Scene) -> None:
    """Start the members while the issuer answers 401, until four seconds after the first fetch."""
    fleet = scene.fleet
    await scene.behave(status=401, delay=0.0)
    await fleet.stop_members()
    await fleet.use_new_secret()
    await fleet.start_members(fleet.members)

    async def has_refused() -> bool:
        fetches = await fleet.fetches()
        return bool(fetches) and fetches[0]["started"] + 4.0 < time.monotonic()

    while not await has_refused():  # noqa: ASYNC110  it asks another process
        await asyncio.sleep(0.05)
    await scene.behave()
    scene.begin = time.monotonic()
    await scene.watch()


# --- the member that fetches


async def kill_holder(scene: Scene) -> None:
    """Kill a member during its fetch."""
    holder = scene.hurts(await scene.fleet.next_holder())
    await holder.child.stop()
    await scene.watch()


async def stop_holder(scene: Scene) -> None:
    """Stop a member during its fetch, for good."""
    holder = scene.hurts(await scene.fleet.next_holder())
    holder.child.send_signal(signal.SIGSTOP)
    scene.closing.callback(holder.child.send_signal, signal.SIGCONT)
    await scene.watch()


async def continue_holder(scene: Scene) -> None:
    """Stop a member during its fetch, and continue it when its lease has expired."""
    holder = scene.hurts(await scene.fleet.next_holder())
    holder.child.send_signal(signal.SIGSTOP)
    scene.closing.callback(holder.child.send_signal, signal.SIGCONT)
    await asyncio.sleep(3.5)
    holder.child.send_signal(signal.SIGCONT)
    await scene.watch()


# --- Redis


async def kill_redis(scene: Scene) -> None:
    """Kill Redis."""
    scene.closing.push_async_callback(scene.fleet.redis.start)
    await scene.fleet.redis.stop()
    await scene.watch()


async def stop_redis(scene: Scene) -> None:
    """Stop Redis: its connections stay open, but it does not answer."""
    scene.closing.callback(scene.fleet.redis.resume)
    scene.fleet.redis.pause()
    await scene.watch()


async def empty_redis(scene: Scene) -> None:
    """Empty Redis during a fetch of a member, and again later."""
    await scene.fleet.next_holder()
    await scene.fleet.redis.empty()
    await asyncio.sleep(scene.life / 2)
    await scene.fleet.redis.empty()
    await scene.watch()


async def slow_redis(scene: Scene) -> None:
    """Delay the replies of Redis by 0.3 s."""
    await scene.fleet.switch_ways(scene.fleet.redis_ways, Mode.FORWARD, delay=0.3)
    await scene.watch()


async def fail_redis_over(scene: Scene) -> None:
    """Kill Redis, and let its replica take over its address."""
    fleet = scene.fleet
    replica = await scene.closing.enter_async_context(replica_of(fleet))
    scene.begin = time.monotonic()

    async def back() -> None:
        await fleet.redis.start()
        await fleet.relays.call("lead_to", names=fleet.redis_ways, port=fleet.redis.port)

    scene.closing.push_async_callback(back)
    await fleet.redis.stop()
    await asyncio.sleep(0.5)
    await promote(replica)
    await fleet.relays.call("lead_to", names=fleet.redis_ways, port=replica.port)
    await scene.watch()


async def fail_redis_over_by_sentinel(scene: Scene) -> None:
    """Kill the master; Sentinel promotes its replica."""
    await scene.fleet.kill_master()
    await scene.watch()


def once_a_life(scene: Scene) -> range:
    """Return how many fetches a fleet needs: one for each 60 to 75% of a lifetime."""
    seconds, life = scene.seconds, scene.life
    return range(math.floor(seconds / (0.75 * life + scene.delay)), math.ceil(seconds / (0.6 * life)) + 2)


def few(scene: Scene) -> range:
    """Allow two fetches at each member for the denied model."""
    due = math.ceil(scene.seconds / (0.6 * scene.life)) + 1
    return range(due + 2 * len(scene.fleet.members))


def once_more(scene: Scene) -> range:
    """Allow one fetch for all members, in addition to those that are due."""
    due = math.ceil(scene.seconds / (0.6 * scene.life)) + 1
    return range(1, due + 2)


REDIS: Final = Bound(gap=2.5)
FORMS: Final = (16.0, 3.5)
"""Three lifetimes in full, and somewhat less than two in the short form."""

ATTACKS: Final = (
    *(
        Attack(
            f"steady-{delay:g}", load_only, Bound(fetches=once_a_life), (60.0, 4.0),
            life=(LIFE_SECONDS, LIFE_SECONDS), delays=(delay,),
        )
        for delay in sorted(DELAYS)
    ),
    Attack(
        "forbidden-issuer-down", forbid_while_issuer_is_down, Bound(), (10.0, 1.5),
        life=(LONG_LIFE_SECONDS, LONG_LIFE_SECONDS),
    ),
    Attack("storm-issuer-well", storm, Bound(fetches=few), FORMS),
    Attack(
        "storm-issuer-slow", storm_while_issuer_is_slow, Bound(fetches=few), (10.0, 1.5),
        life=(LONG_LIFE_SECONDS, LONG_LIFE_SECONDS),
    ),
    Attack(
        "storm-issuer-down", storm_while_issuer_is_down, Bound(fetches=few), (10.0, 1.5),
        life=(LONG_LIFE_SECONDS, LONG_LIFE_SECONDS),
    ),
    Attack("member-403", cut_off(Mode.FORBID), Bound(gap=1.0), FORMS),
    Attack("member-cannot-connect", cut_off(Mode.REFUSE), Bound(gap=1.0), FORMS),
    Attack("member-connect-hangs", cut_off(Mode.VANISH), Bound(gap=1.0), FORMS, delays=SHORTER_DELAYS),
    Attack("member-hangs", cut_off(Mode.HANG), Bound(gap=1.0), FORMS, delays=SHORTER_DELAYS),
    Attack("one-fetch-hangs", fetches_hang(1), Bound(gap=4.0), (12.0, 4.5)),
    Attack("two-fetches-hang", fetches_hang(2), Bound(gap=4.0), (12.0, 4.5)),
    Attack("holder-killed", kill_holder, Bound(gap=2.5), (10.0, 2.6), delays=CATCHABLE),
    Attack("holder-stopped", stop_holder, Bound(gap=2.5), (10.0, 2.6), delays=CATCHABLE),
    Attack("holder-continued", continue_holder, Bound(gap=2.5), (8.0, 1.0), delays=CATCHABLE),
    Attack("redis-killed", kill_redis, REDIS, FORMS),
    Attack("redis-stopped", stop_redis, REDIS, FORMS),
    Attack("redis-emptied", empty_redis, REDIS, (10.0, 1.0), delays=CATCHABLE),
    Attack("redis-slow", slow_redis, REDIS, FORMS),
    Attack("redis-failed-over", fail_redis_over, REDIS, FORMS),
    Attack("redis-sentinel", fail_redis_over_by_sentinel, REDIS, FORMS, needs_sentinel=True),
    Attack(
        "dies-early", load_only, Bound(gap=1.0, errors=0.005), (300.0, 5.0),
        life=(LONG_LIFE_SECONDS, LONG_LIFE_SECONDS), true_life=(8.0, 1.5), delays=SHORTER_DELAYS,
    ),
    Attack(
        "dies-early-alone", load_one_alone, Bound(gap=1.0, errors=0.005), (300.0, 5.0),
        life=(LONG_LIFE_SECONDS, LONG_LIFE_SECONDS), true_life=(8.0, 1.5), delays=SHORTER_DELAYS,
    ),
    Attack("revoked-once", revoke_once, Bound(gap=2.5, fetches=once_more), (6.0, 1.5)),
    Attack("revoked-twice", revoke_twice, Bound(gap=math.inf, error_seconds=1.0), (10.0, 3.0)),
    Attack(
        "issuer-refuses-at-start", refuse_at_start, Bound(gap=2.0, errors=1.0), (6.0, 2.5),
        delays=SHORTER_DELAYS, is_cold=True,
    ),
)  # fmt: skip

"""Workers of one host: one of them fetches a token, and the others adopt it from an encrypted file."""

import asyncio
import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from proxy.credentials import RefreshPolicy, Token
from proxy.credentials.sharing import FlightContext
from proxy.credentials.sharing.host import HOLD_SECONDS, HostSharing, TokenFolder
from proxy.credentials.sources import TokenFetchError
from proxy.telemetry import TokenStats
from tests.credentials.fakes import DOWN, FakeIssuer
from tests.virtual_time import run_virtually

RECIPE = b"one recipe"
KEY = bytes(32)
NOTHING = FlightContext()


def member(folder: Path, recipe: bytes = RECIPE, key: bytes = KEY, *, exclusive: bool = False) -> HostSharing:
    """Return the sharing of one worker."""
    policy = RefreshPolicy(clock=asyncio.get_running_loop().time, exclusive=exclusive)
    return TokenFolder(folder, key).sharing(recipe, policy, TokenStats())


def has(token: Token) -> FlightContext:
    """Return the context of a flight of a worker with this token."""
    return FlightContext(generation=token.generation, current=token)


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in virtual time."""
    run_virtually(main)


def test_workers_that_start_together_fetch_once(tmp_path: Path) -> None:
    async def main() -> None:
        issuer = FakeIssuer(delay=1.0)
        found = await asyncio.gather(*(member(tmp_path).obtain(issuer.fetch, NOTHING) for _ in range(8)))
        assert (issuer.fetches, {token.secret.reveal() for token in found}) == (1, {"token-1"})
        assert [token.adopted for token in found].count(False) == 1
        assert len({token.obtained for token in found}) == 1  # by the clock that they share

    virtually(main)


@pytest.mark.parametrize("lifetime", [100.0, math.inf])
def test_the_worker_that_fetched_refreshes_first_and_the_others_adopt(
    tmp_path: Path, lifetime: float
) -> None:
    async def main() -> None:
        issuer = FakeIssuer(lifetime=lifetime, refresh_in=67.5)
        first, second = member(tmp_path), member(tmp_path)
        fetched = await first.obtain(issuer.fetch, NOTHING)
        adopted = await second.obtain(issuer.fetch, NOTHING)
        assert fetched.refresh_at < adopted.refresh_at
        await asyncio.sleep(fetched.refresh_at - fetched.obtained)
        renewed = await first.obtain(issuer.fetch, has(fetched))
        assert (await second.obtain(issuer.fetch, has(adopted))).secret.reveal() == renewed.secret.reveal()
        assert issuer.fetches == 2

    virtually(main)


def test_a_look_finds_what_another_worker_has_fetched_and_fetches_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        issuer = FakeIssuer()
        first, second = member(tmp_path, exclusive=True), member(tmp_path, exclusive=True)
        assert await second.look(NOTHING) is None
        fetched = await first.obtain(issuer.fetch, NOTHING)
        assert await first.look(has(fetched)) is None
        found = await second.look(NOTHING)
        assert found is not None
        assert (found.digest, found.adopted) == (fetched.digest, True)
        assert issuer.fetches == 1

    virtually(main)


def test_a_rejected_token_is_not_adopted_again(tmp_path: Path) -> None:
    async def main() -> None:
        issuer = FakeIssuer()
        first, second = member(tmp_path), member(tmp_path)
        old = await first.obtain(issuer.fetch, NOTHING)
        rejected = FlightContext(generation=1, current=old, rejected=frozenset({old.digest}))
        await asyncio.sleep(1.0)
        new = await second.obtain(issuer.fetch, rejected)
        assert (new.secret.reveal(), issuer.fetches) == ("token-2", 2)
        assert (await first.obtain(issuer.fetch, rejected)).secret.reveal() == "token-2"
        assert issuer.fetches == 2

    virtually(main)


@pytest.mark.parametrize("ends", ["fails", "cancelled"])
def test_a_fetch_that_ends_without_a_token_lets_another_worker_fetch(tmp_path: Path, ends: str) -> None:
    async def main() -> None:
        broken, sound = FakeIssuer(delay=5.0, error=DOWN), FakeIssuer()
        async with asyncio.TaskGroup() as group:
            flight = group.create_task(_outcome(member(tmp_path).obtain(broken.fetch, NOTHING)))
            await asyncio.sleep(1.0)
            waiting = group.create_task(member(tmp_path).obtain(sound.fetch, NOTHING))
            await asyncio.sleep(1.0)
            assert sound.fetches == 0
            if ends == "cancelled":
                flight.cancel()
            assert (await waiting).secret.reveal() == "token-1"

    virtually(main)


@contextmanager
def stopped_worker(folder: Path) -> Iterator[None]:
    """A process that was stopped while it held the lock."""
    (lock,) = folder.glob("*.lock")
    program = (
        "import fcntl, os, signal, sys\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with subprocess.Popen([sys.executable, "-c", program, lock]) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_stopped_worker_that_holds_the_lock_delays_the_others_once(
    tmp_path: Path,
    lines: list[EventDict],
    exclusive: bool,  # noqa: FBT001
) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        issuer = FakeIssuer(delay=0.1)
        members = [member(tmp_path, exclusive=exclusive) for _ in range(4)]
        old = await members[0].obtain(issuer.fetch, NOTHING)
        rejected = FlightContext(generation=1, current=old, rejected=frozenset({old.digest}))
        with stopped_worker(tmp_path):
            began = clock()
            async with asyncio.timeout(RefreshPolicy().flight_timeout + 5):
                found = await asyncio.gather(*(each.obtain(issuer.fetch, rejected) for each in members))
            assert clock() - began < (RefreshPolicy().fetch_timeout if exclusive else HOLD_SECONDS) + 2
            assert ({token.secret.reveal() for token in found}, issuer.most_at_once) == ({"token-2"}, 1)
            began = clock()
            newer = FlightContext(2, found[0], frozenset({old.digest, found[0].digest}))
            assert (await members[1].obtain(issuer.fetch, newer)).secret.reveal() == "token-3"
            assert clock() - began < 1.0

    virtually(main)
    assert len([*tmp_path.iterdir()]) == 2
    assert [line["event"] for line in lines] == ["token_lock_replaced"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_lock_that_changes_hands_is_not_taken_for_one_that_is_stuck(
    tmp_path: Path,
    lines: list[EventDict],
    exclusive: bool,  # noqa: FBT001
) -> None:
    """An issuer that fails late: one worker after the other takes the lock."""

    async def main() -> None:
        workers = [member(tmp_path, exclusive=exclusive) for _ in range(3)]
        hold = workers[0]._hold
        issuer = FakeIssuer(delay=hold - 1.2, error=DOWN)
        flights = (worker.obtain(issuer.fetch, NOTHING) for worker in workers)
        async with asyncio.TaskGroup() as group:
            finding = group.create_task(_all(*flights))
            await asyncio.sleep(hold / 2)
            issuer.error, issuer.delay = None, 3.0
        assert (issuer.fetches, issuer.most_at_once) == (2, 1)
        assert sum(isinstance(found, Token) for found in finding.result()) == 2

    virtually(main)
    assert lines == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_worker_that_goes_on_after_it_lost_the_lock_adopts_the_later_token(
    tmp_path: Path,
    exclusive: bool,  # noqa: FBT001
) -> None:
    async def main() -> None:
        stopped, sound = FakeIssuer(delay=100.0, prefix="stopped-"), FakeIssuer()
        slow = member(tmp_path, exclusive=exclusive)
        async with asyncio.TaskGroup() as group:
            flight = group.create_task(slow.obtain(stopped.fetch, NOTHING))
            await asyncio.sleep(0.5)
            tokens = [await member(tmp_path, exclusive=exclusive).obtain(sound.fetch, NOTHING)]
            tokens.append(await flight)
            tokens.append(await member(tmp_path, exclusive=exclusive).obtain(sound.fetch, NOTHING))
        assert [token.secret.reveal() for token in tokens] == ["token-1"] * 3
        assert (stopped.fetches, sound.fetches) == (1, 1)

    virtually(main)


def test_waiting_workers_adopt_a_token_at_once_although_the_lock_is_still_held(tmp_path: Path) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        began, slow, hanging = clock(), FakeIssuer(delay=HOLD_SECONDS + 1), FakeIssuer(delay=14.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(member(tmp_path).obtain(slow.fetch, NOTHING))
            await asyncio.sleep(0.5)
            group.create_task(member(tmp_path).obtain(hanging.fetch, NOTHING))
            await asyncio.sleep(0.5)
            third = await member(tmp_path).obtain(hanging.fetch, NOTHING)
            assert (third.secret.reveal(), hanging.fetches) == ("token-1", 1)
            assert clock() - began < HOLD_SECONDS + 1.2

    virtually(main)


async def _outcome(flight: Coroutine[Any, Any, Token]) -> None:
    with pytest.raises(TokenFetchError):
        await flight


async def _all(*flights: Coroutine[Any, Any, Token]) -> list[Token | BaseException]:
    return await asyncio.gather(*flights, return_exceptions=True)


def record_in(folder: Path) -> Path:
    """Return the only record in a folder."""
    (record,) = [path for path in folder.iterdir() if path.suffix == ""]
    return record


@pytest.mark.parametrize("other", ["recipe", "key", "garbage", "cut"])
def test_a_record_that_is_not_ours_is_left_alone(tmp_path: Path, other: str) -> None:
    async def main() -> None:
        issuer = FakeIssuer()
        await member(tmp_path).obtain(issuer.fetch, NOTHING)
        record = record_in(tmp_path)
        second = member(tmp_path)
        if other == "recipe":
            second = member(tmp_path, recipe=b"another")
        elif other == "key":
            second = member(tmp_path, key=bytes(31) + b"x")
        else:
            record.write_bytes(b"garbage" if other == "garbage" else record.read_bytes()[:40])
        assert (await second.obtain(issuer.fetch, NOTHING)).secret.reveal() == "token-2"

    virtually(main)


def test_no_file_holds_the_token_in_plain_text_or_is_readable_by_others(tmp_path: Path) -> None:
    async def main() -> None:
        await member(tmp_path).obtain(FakeIssuer(token="sk-canary").fetch, NOTHING)

    virtually(main)
    files = [*tmp_path.iterdir()]
    assert len(files) == 2
    assert all(b"sk-canary" not in path.read_bytes() for path in files)


def test_a_folder_that_is_gone_keeps_no_worker_from_fetching(tmp_path: Path, lines: list[EventDict]) -> None:
    async def main() -> None:
        issuer = FakeIssuer()
        found = await member(tmp_path / "gone").obtain(issuer.fetch, NOTHING)
        assert found.secret.reveal() == "token-1"

    virtually(main)
    assert [line["event"] for line in lines] == ["token_store_unavailable"]


def test_without_the_folder_workers_do_not_revoke_each_others_tokens(tmp_path: Path) -> None:
    async def main() -> None:
        issuer = FakeIssuer()
        with pytest.raises(TokenFetchError, match="restart the service"):
            await member(tmp_path / "gone", exclusive=True).obtain(issuer.fetch, NOTHING)
        assert issuer.fetches == 0

    virtually(main)


def test_a_token_that_cannot_be_written_is_used(
    tmp_path: Path, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def main() -> None:
        found = await member(tmp_path).obtain(FakeIssuer().fetch, NOTHING)
        assert found.secret.reveal() == "token-1"

    monkeypatch.setattr(Path, "write_bytes", full)
    virtually(main)
    assert [line["event"] for line in lines] == ["token_not_shared"]

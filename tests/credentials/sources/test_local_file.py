"""A token in a file that another program refreshes."""

import asyncio
import json
import math
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.typing import EventDict

from proxy.credentials import CachedTokenSource, RefreshPolicy
from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.local import FileTokenSource, static_source
from proxy.credentials.token import FetchedToken, with_deadlines
from proxy.errors import TokenUnavailable
from proxy.secret import Secret
from proxy.settings import FileCredential, StaticCredential
from tests.credentials import fakes
from tests.credentials.fakes import (
    FakeIssuer,
    build_machine,
    highest,
    local_machine,
    pass_time,
    virtually,
)
from tests.credentials.sources.sections import token_file
from tests.credentials.sources.test_reply_lifetime import jwt
from tests.loopback import until
from tests.pace import PATIENCE


@dataclass
class Clock:
    """A monotonic clock that the test sets."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def fetch(file: FileCredential) -> FetchedToken:
    source = FileTokenSource(file)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def failure_of(file: FileCredential) -> str:
    with pytest.raises(TokenFetchError) as failure:
        await fetch(file)
    assert not failure.value.permanent
    assert "s3cret" not in "".join(traceback.format_exception(failure.value))
    return failure.value.reason


def write(path: Path, content: str | bytes) -> FileCredential:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return token_file(path)


# --- valid files


@pytest.mark.parametrize("content", ["s3cret", "s3cret\n", "\n \t s3cret \r\n\r\n", "\ufeffs3cret\n"])
async def test_the_whole_file_is_the_token(tmp_path: Path, content: str) -> None:
    fetched = await fetch(write(tmp_path / "token", content))

    assert fetched.secret == Secret("s3cret")
    assert fetched.lifetime == math.inf


async def test_the_token_is_read_from_json_with_its_expiry(tmp_path: Path) -> None:
    end = time.time() + 300
    path = tmp_path / "token"
    path.write_text(json.dumps({"auth": {"tokens": ["no", "s3cret"], "until": end * 1000}}))

    fetched = await fetch(
        token_file(path, token="auth.tokens.1", expires=(("x", "seconds"), ("auth.until", "epoch_ms")))
    )
    assert fetched.secret == Secret("s3cret")
    assert fetched.lifetime == pytest.approx(300.0, abs=5.0)
    assert (await fetch(token_file(path, token="auth.tokens.1"))).lifetime == math.inf


async def test_a_duration_counts_from_the_files_last_change(tmp_path: Path) -> None:
    file = token_file(tmp_path / "token", token="t", expires=(("s", "seconds"),))
    write(file.path, '{"t": "s3cret", "s": 3600}')
    for ago, life in ((600.0, 3000.0), (-600.0, 3600.0)):  # the latter was written by a clock that is ahead
        os.utime(file.path, (0, time.time() - ago))
        assert (await fetch(file)).lifetime == pytest.approx(life, abs=5.0)
    os.utime(file.path, (0, time.time() - 3601))
    assert await failure_of(file) == "the token file has a token that has expired"


async def test_a_jwt_lives_until_its_own_end_by_this_hosts_clock(tmp_path: Path) -> None:
    issued = time.time() - 3000
    file = write(tmp_path / "token", jwt({"iat": issued, "exp": issued + 3600}))

    assert (await fetch(file)).lifetime == pytest.approx(600.0, abs=5.0)


async def test_a_jwt_in_a_static_file_is_used_as_long_as_the_file_contains_it(tmp_path: Path) -> None:
    file = write(tmp_path / "token", jwt({"exp": time.time() - 1}))
    section = StaticCredential(source="static", file=file.path)

    fetched = await static_source(section).fetch()
    assert fetched.lifetime == math.inf
    assert fetched.refresh_in is not None
    assert fetched.refresh_in <= 60.0
    static = static_source(StaticCredential(source="static", value=Secret("s3cret")))
    assert await static.fetch() == FetchedToken(Secret("s3cret"), math.inf)


async def test_an_unreadable_expiry_is_logged_and_replaced_by_the_default(
    tmp_path: Path, lines: list[EventDict]
) -> None:
    write(tmp_path / "token", '{"t": "s3cret", "until": "soon"}')
    file = token_file(tmp_path / "token", token="t", expires=(("until", "iso8601"),), default_ttl=77.0)

    assert (await fetch(file)).lifetime == 77.0
    assert [line["event"] for line in lines] == ["token_lifetime_unreadable"]


def test_each_section_has_its_source(tmp_path: Path) -> None:
    path = write(tmp_path / "token", "x").path
    assert isinstance(build_source(FileCredential(source="file", path=path)), FileTokenSource)
    assert isinstance(build_source(StaticCredential(source="static", file=path)), FileTokenSource)


# --- invalid files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the token file is empty"),
        (b" \r\n", "the token file is empty"),
        (b"s3cret\xff", "the token file is not valid UTF-8"),
        (b"s3cret\ns3cret", "the token file has a token that is not one line of printable ASCII"),
        ("s3cr\u00e9t".encode(), "the token file has a token that is not one line of printable ASCII"),
        (b"s3cret\0", "the token file has a token that is not one line of printable ASCII"),
        (b"x" * (1 << 20) + b"y", "the token file is too large"),
        (jwt({"exp": 1_700_000_000}).encode(), "the token file has a token that has expired"),
    ],
)
async def test_an_invalid_token_is_a_temporary_failure(tmp_path: Path, content: bytes, told: str) -> None:
    assert await failure_of(write(tmp_path / "token", content)) == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("s3cret", "the token file is not valid JSON"),
        ('["s3cret"]', "the token file, at 'data.token', has no token"),
        ('{"data": {"token": ""}}', "the token file, at 'data.token', has no token"),
        ('{"data": {"token": 17}}', "the token file, at 'data.token', has no token"),
        (
            '{"data": {"token": "s3cret\\n"}}',
            "the token file, at 'data.token', has a token that is not one line of printable ASCII",
        ),
    ],
)
async def test_json_without_a_token_is_a_temporary_failure(tmp_path: Path, content: str, told: str) -> None:
    path = write(tmp_path / "token", content).path
    assert await failure_of(token_file(path, token="data.token")) == told


async def test_an_unreadable_file_is_a_temporary_failure_and_never_blocks(tmp_path: Path) -> None:
    file = token_file(tmp_path / "token")
    assert await failure_of(file) == "the token file cannot be read: No such file or directory"
    file.path.mkdir()
    assert await failure_of(file) in {
        "the token file cannot be read: Is a directory",
        "the token file cannot be read: it is not a regular file",
    }
    file.path.rmdir()
    os.mkfifo(file.path)
    try:
        async with asyncio.timeout(PATIENCE):
            assert await failure_of(file) == "the token file cannot be read: it is not a regular file"
    finally:  # otherwise a thread that opens the pipe would wait beyond the test
        os.close(os.open(file.path, os.O_RDWR | os.O_NONBLOCK))


# --- changes of the file


def replaced(path: Path, content: str) -> None:
    """Replace a file atomically, as programs do that other programs read."""
    (path.parent / "new").write_text(content)
    (path.parent / "new").replace(path)


def swapped(path: Path, content: str) -> None:
    """Replace a file as Kubernetes does in a volume: `token` -> `..data/token`, and `..data` is swapped."""
    if not path.exists():
        path.symlink_to("..data/token")
    versions = [*path.parent.glob("..version*")]
    version = path.parent / f"..version{len(versions)}"
    version.mkdir()
    (version / "token").write_text(content)
    (path.parent / "..data_new").symlink_to(version.name)
    (path.parent / "..data_new").rename(path.parent / "..data")


def written(path: Path, content: str) -> None:
    path.write_text(content)


async def has(machine: CachedTokenSource, token: str) -> None:
    """Wait until the source returns this token."""
    async with asyncio.timeout(PATIENCE):
        while (await machine.get()).secret != Secret(token):  # noqa: ASYNC110  the file sets no event
            await asyncio.sleep(0)


@pytest.mark.parametrize("put", [replaced, swapped, written])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_replaced_file_is_seen_within_60_seconds(
    tmp_path: Path, put: Callable[[Path, str], None], *, ends: bool
) -> None:
    end = {"exp": time.time() + 3600} if ends else {}
    path, clock = tmp_path / "token", Clock()
    first, second = jwt({**end, "sub": "first"}), jwt({**end, "sub": "second"})
    put(path, first)
    machine = local_machine(
        FileTokenSource(token_file(path)), policy=RefreshPolicy(clock=clock, uniform=highest)
    )
    assert (await machine.get()).secret == Secret(first)
    put(path, second)
    clock.now += 40.0
    assert (await machine.get()).secret == Secret(first)  # trusted, and not read for each request
    clock.now += 20.0
    assert (await machine.get()).secret == Secret(first)  # no caller waits for the file
    await has(machine, second)
    await machine.close()


@pytest.mark.parametrize("life", [3600.0, 120.0, 61.0, 30.0, math.inf])
def test_a_file_is_read_again_within_its_max_age(tmp_path: Path, life: float) -> None:
    claims = {} if math.isinf(life) else {"exp": time.time() + life}
    fetched = asyncio.run(fetch(write(tmp_path / "token", jwt(claims))))

    token = with_deadlines(fetched, generation=1, obtained=1000.0, uniform=highest)
    assert 1000.0 + 20.0 < token.refresh_at <= 1000.0 + 60.0


@virtually
async def test_the_timer_reads_the_file_again_without_requests() -> None:
    file = FakeIssuer(lifetime=math.inf, refresh_in=51.0, token="s3cret")
    machine = build_machine(file)
    await machine.get()
    await pass_time(3600.0)
    assert max(after - before for before, after in zip(file.started, file.started[1:], strict=False)) <= 60.0
    assert len(file.started) >= 3600 / 60
    assert (await machine.get()).secret == Secret("s3cret")
    await machine.close()


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_text("")


def made_unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)  # root ignores file modes


@pytest.mark.parametrize("harm", [removed, emptied, made_unreadable])
async def test_without_a_file_the_last_good_token_serves_until_its_end(
    tmp_path: Path, lines: list[EventDict], harm: Callable[[Path], None]
) -> None:
    path, clock = tmp_path / "token", Clock()
    token = jwt({"exp": time.time() + 3600})
    write(path, token)
    machine = local_machine(FileTokenSource(token_file(path)), policy=RefreshPolicy(clock=clock))
    first = await machine.get()
    harm(path)
    for _ in range(50):
        clock.now += 60.0
        assert (await machine.get()).secret == Secret(token)
    await until(lambda: any(line["event"] == "token_fetch_failed" for line in lines))
    clock.now = first.expires_at
    with pytest.raises(TokenUnavailable):
        await machine.get()
    replaced(path, "s3cret")
    clock.now += 60.0
    assert (await machine.get()).secret == Secret("s3cret")
    await machine.close()


async def test_a_token_without_an_end_outlives_its_file(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    write(path, "s3cret")
    machine = local_machine(FileTokenSource(token_file(path)), policy=RefreshPolicy(clock=clock))
    await machine.get()
    path.unlink()
    for _ in range(10):
        clock.now += 86400.0
        assert (await machine.get()).secret == Secret("s3cret")
    await machine.close()


async def test_a_rejected_token_is_read_again_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    write(path, "first")
    machine = local_machine(FileTokenSource(token_file(path)), policy=RefreshPolicy(clock=clock))
    await machine.get()
    write(path, "second")
    assert (await fakes.replaced(machine)).secret == Secret("second")
    await machine.close()

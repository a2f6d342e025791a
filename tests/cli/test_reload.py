"""A settings file is loaded only when it has stopped changing."""

import asyncio
import functools
import os
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.cli.reload import QUIET_SECONDS, read_when_complete, reloading, wait_until_stable
from proxy.errors import SettingsError
from proxy.settings import Settings, load_settings
from tests.conftest import SETTINGS
from tests.credentials.fakes import virtually
from tests.loopback import until
from tests.pace import PATIENCE

PIECES = [b"[access]\n", b"keys = [\n", b'{ name = "a", key = "sk-a",\n', b'models = ["cheap"] },\n]\n']


@virtually
async def test_a_file_is_loaded_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"

    async def write() -> None:
        with path.open("wb", buffering=0) as file:
            for piece in PIECES:
                file.write(piece)
                await asyncio.sleep(QUIET_SECONDS / 2)

    path.write_bytes(b"")
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(write())
        await wait_until_stable(path)
        assert writer.done()
    assert path.read_bytes() == b"".join(PIECES)


@virtually
async def test_a_file_that_was_renamed_into_place_is_loaded_at_once(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_bytes(b"".join(PIECES))
    past = time.time() - 60
    os.utime(path, (past, past))
    async with asyncio.timeout(QUIET_SECONDS / 2):
        await wait_until_stable(path)


@virtually
async def test_a_file_that_keeps_changing_is_rejected_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_bytes(b"")

    async def write_on() -> None:
        while True:
            with path.open("ab") as file:
                file.write(b"# more\n")
            await asyncio.sleep(QUIET_SECONDS / 10)

    async with asyncio.TaskGroup() as group:
        writer = group.create_task(write_on())
        with pytest.raises(SettingsError, match="rename it into place"):
            await wait_until_stable(path)
        writer.cancel()


@virtually
async def test_all_files_are_awaited_together(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]

    async def write(path: Path, pause: float) -> None:
        for _ in range(6):
            with path.open("ab") as file:
                file.write(b"half")
            await asyncio.sleep(pause)

    for path in paths:
        path.write_bytes(b"")
    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(path, QUIET_SECONDS / (2 + n))) for n, path in enumerate(paths)]
        await wait_until_stable(*paths)
        assert all(writer.done() for writer in writers)


@virtually
async def test_each_file_that_keeps_changing_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("old", "changing", "absent")]
    paths[0].write_bytes(b"")

    async def write_on() -> None:
        while True:
            with paths[1].open("ab") as file:
                file.write(b"more")
            await asyncio.sleep(QUIET_SECONDS / 10)

    async with asyncio.TaskGroup() as group:
        writer = group.create_task(write_on())
        with pytest.raises(SettingsError) as failure:
            await wait_until_stable(*paths)
        writer.cancel()
    (problem,) = failure.value.problems
    assert problem.startswith(f"{paths[1]}: is still being written")


async def test_a_reload_waits_for_the_settings_and_then_for_every_file_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key, token, override = (tmp_path / name for name in ("p.toml", "key", "token", "override"))
    credential = 'source = "static"\nvalue = "Bearer ${file:token}"'
    whole = SETTINGS.format(
        key="${file:key}", upstream="http://127.0.0.1:9", credential=credential, options="", more=""
    )
    monkeypatch.setenv("PROXY__UPSTREAMS__CHAT__HEADERS__X_A", f"${{file:{override}}}")
    path.write_text("")
    waited: list[set[Path]] = []

    async def complete(*paths: Path) -> None:
        """Complete the files that another program is writing, instead of waiting for it."""
        waited.append({*paths})
        if paths == (path,):
            path.write_text(whole)
            for file in (key, token, override):
                file.write_text("half")
        else:
            for file in (key, token, override):
                file.write_text("sk-the-whole-secret")

    monkeypatch.setattr("proxy.cli.reload.wait_until_stable", complete)
    served = asyncio.get_running_loop().create_future()

    async def serve_by(settings: Settings) -> None:
        served.set_result(settings)

    hangup = asyncio.Event()
    hangup.set()
    load = functools.partial(load_settings, path, os.environ)
    async with asyncio.timeout(PATIENCE), reloading(hangup, serve_by, load, path):
        settings = await served
    assert waited == [{path}, {path, key, token, override}]
    (caller,) = settings.access.keys
    assert caller.key.reveal() == "sk-the-whole-secret"


async def test_a_reload_reads_the_files_of_references_again(tmp_path: Path) -> None:
    path, key = tmp_path / "p.toml", tmp_path / "key"
    path.write_text(
        '[access]\nkeys = [{ name = "a", key = "${file:key}" }]\n[upstreams.chat]\nbase_url = "http://a/v1"'
    )
    found = []
    for text in ("sk-the-first-key", "sk-the-second-key"):
        key.write_text(text)
        for file in (path, key):
            os.utime(file, (0, 0))  # old, so that nobody can still be writing it
        settings = await read_when_complete(functools.partial(load_settings, path, {}), path)
        found += [caller.key and caller.key.reveal() for caller in settings.access.keys]
    assert found == ["sk-the-first-key", "sk-the-second-key"]


async def test_a_read_that_hangs_is_rejected_and_the_next_reload_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.cli.reload.READ_SECONDS", 0.05)
    repaired, loads, served = threading.Event(), list[int](), asyncio.Event()
    path = tmp_path / "p.toml"
    path.write_text('[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "http://a/v1"')
    settings = load_settings(path, {})

    def load() -> Settings:
        loads.append(1)
        if len(loads) == 1:
            repaired.wait()
        return settings

    async def serve_by(_: Settings) -> None:
        served.set()

    hangup = asyncio.Event()
    hangup.set()
    with capture_logs() as lines:
        async with asyncio.timeout(PATIENCE), reloading(hangup, serve_by, load):
            await until(lambda: bool(lines))
            monkeypatch.setattr("proxy.cli.reload.READ_SECONDS", PATIENCE)
            hangup.set()
            await served.wait()
    repaired.set()
    assert lines[0]["event"] == "reload_rejected"
    assert "a network file system hangs, or a file is a pipe" in lines[0]["problems"][0]


async def test_a_secret_that_becomes_a_pipe_is_rejected_and_its_file_works_again(tmp_path: Path) -> None:
    path, key = tmp_path / "p.toml", tmp_path / "key"
    path.write_text(
        '[access]\nkeys = [{ name = "a", key = "${file:key}" }]\n[upstreams.chat]\nbase_url = "http://a/v1"'
    )
    load = functools.partial(load_settings, path, {})
    os.mkfifo(key)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(SettingsError, match="it is not a regular file"):
            await read_when_complete(load, path)
        key.unlink()
        key.write_text("sk-of-the-file")
        settings = await read_when_complete(load, path)
    assert [caller.name for caller in settings.access.keys] == ["a"]


async def test_a_missing_file_is_left_to_the_loader(tmp_path: Path) -> None:
    await wait_until_stable(tmp_path / "absent.toml")

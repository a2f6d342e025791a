"""A settings file is loaded only when it has stopped changing."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from proxy.cli.reload import QUIET_SECONDS, wait_until_stable
from proxy.errors import SettingsError
from tests.credentials.fakes import virtually

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


async def test_a_missing_file_is_left_to_the_loader(tmp_path: Path) -> None:
    await wait_until_stable(tmp_path / "absent.toml")

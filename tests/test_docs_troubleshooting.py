"""docs/troubleshooting*.md: every command works, the session is a real one, and every finding is named."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Final

import pytest

from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Level
from tests.cli.processes import PATIENCE, read_until, running
from tests.conftest import RunningGateway, RunProxy
from tests.documents import CODE, DOCUMENTS, fences, in_both_languages, rows

PAGES: Final = in_both_languages("docs/troubleshooting")
ORIGIN: Final = "http://127.0.0.1:5002"
ROOT: Final = Path(__file__).parents[1]
KEY: Final = "sk-local"

each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_every_finding_is_in_a_table(page: str) -> None:
    codes = {code for row in rows(DOCUMENTS[page]) for cell in row[:2] for code in CODE.findall(cell)}
    named = {code for code in codes if code in CATALOGUE}

    assert named == {name for name, entry in CATALOGUE.items() if entry.level is not Level.OK}


@pytest.mark.timeout(180)
async def test_every_command_works(tmp_path: Path) -> None:
    """Start the demonstration as `make run` does, and run what both pages show beside it."""
    english, chinese = ("".join(fences(DOCUMENTS[page], "sh")) for page in PAGES)
    assert english == chinese
    (tmp_path / "my.toml").write_text((ROOT / "config/proxy.toml").read_text())
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    serve = (sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0")
    async with running(*serve) as service:
        welcome = await read_until(service, "curl -N")
        found = re.search(r"http://127\.0\.0\.1:\d+", welcome)
        assert found is not None
        for line in english.splitlines():
            command = line.replace(".venv/bin/python", sys.executable).replace(ORIGIN, found[0])
            process = await asyncio.create_subprocess_shell(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(PATIENCE):
                printed, _ = await process.communicate()
            assert process.returncode == 0, f"{command}\n{printed.decode()}"


@each_page
async def test_the_session_is_a_real_one(page: str, run_proxy: RunProxy, gateway: RunningGateway) -> None:
    (session,) = fences(DOCUMENTS[page], "console")
    command, _, shown = session.partition("\n")
    arguments = command.removeprefix("$ .venv/bin/python ").split()
    language = "zh_CN.UTF-8" if "zh" in page else "C.UTF-8"
    async with run_proxy(gateway.url) as proxy:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(argument.replace(ORIGIN, proxy.url) for argument in arguments),
            cwd=ROOT,
            env={**os.environ, "LC_ALL": language, "PYTHONIOENCODING": "utf-8"},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()

    assert process.returncode == 1
    assert printed.decode() == shown.replace(ORIGIN, proxy.url)

"""The wheel installs a command that works from any folder, with every file that it needs."""

import asyncio
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import aiohttp
import pytest

from proxy import __version__
from tests.cli.processes import read_until, running
from tests.pace import PATIENCE

ROOT = Path(__file__).parents[1]


def build(kind: str, folder: Path) -> Path:
    """Build a distribution of this checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command that it installs, in an environment without this checkout."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin/python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    # The packages that it depends on are those of the environment of the tests.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "lib" / version / "site-packages/dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin/llm-token-proxy"


def test_it_contains_every_file_that_the_program_reads(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "proxy/py.typed",
        "proxy/shipped_files/hypercorn.toml",
        "proxy/shipped_files/config/proxy.toml",
        "proxy/shipped_files/config/example.toml",
        "proxy/chat/page/index.html",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", ".ci"))]
    assert f"-{__version__}-" in wheel.name


def test_the_source_distribution_builds_the_same(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "hypercorn.toml", "config/proxy.toml", "proxy/py.typed", "README.md"} <= names


def test_the_command_prints_its_version_and_its_name(command: Path, tmp_path: Path) -> None:
    said = subprocess.run([command, "--version"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == __version__
    said = subprocess.run([command, "--help"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert said.stdout.startswith("usage: llm-token-proxy ")


async def test_without_a_configuration_it_serves_the_runnable_default(command: Path, tmp_path: Path) -> None:
    line = f"cd {shlex.quote(str(tmp_path))} && exec {shlex.quote(str(command))} serve --bind 127.0.0.1:0"
    async with running("sh", "-c", line) as service:
        said = await read_until(service, r"base URL +http://127\.0\.0\.1:\d+/v1")
        (url,) = set(re.findall(r"base URL +(http://127\.0\.0\.1:\d+/v1)", said))
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            question = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "你是谁"}]}
            headers = {"Authorization": "Bearer sk-local"}
            async with session.post(f"{url}/chat/completions", json=question, headers=headers) as answer:
                assert answer.status == 200
            async with session.get(url.replace("/v1", "/chat/")) as page:
                assert page.status == 200


def test_a_configuration_in_the_current_folder_wins(command: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/proxy.toml").write_text("[access]\nkeys = 1\n")
    said = subprocess.run([command, "check"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert said.returncode == 2
    assert "config/proxy.toml" in said.stderr

"""A standard output that cannot be written: commands fail and say why, and services are served."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from quart import Quart

from proxy.cli.arguments import COMMANDS
from tests.cli.processes import ROOT
from tests.cli.test_serve import accepting
from tests.conftest import require
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE
from tests.ports import free_port

FULL = Path("/dev/full")
HAS_FULL = FULL.exists()
SERVICES = {"serve", "gateway"}
CAUSES = {
    "full": "No space left on device",
    "without reader": "the program that reads the output has closed it",
    "closed": "Bad file descriptor",
}


def command_lines(folder: Path, url: str) -> dict[str, list[str]]:
    """Return a command line of each command that would succeed, and print something."""
    curl, reply = f"curl -d client_secret=s {url}/token", folder / "reply.json"
    reply.write_text('{"access_token": "canary-3f1b-77aa-09cd", "expires_in": 3600}')
    return {
        "help": ["--help"],
        "version": ["--version"],
        "check": ["check", "--config", "config/proxy.toml"],
        "token": ["token", "corp", "--config", "config/proxy.toml"],
        "recipe": ["recipe", "--yes", "--curl", curl, "--offline", str(reply)],
        "completion": ["completion", "bash"],
        "doctor": ["doctor", "--config", "config/proxy.toml"],
        "init": ["init", "--yes", "--model", "mock-gpt-model", "--output", str(folder / "my.toml")],
        "health": ["health", "--url", f"{url}/readyz"],
    }


@asynccontextmanager
async def process_of(arguments: list[str], output: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command with such an output."""
    reading, writing = os.pipe()
    if output == "full":
        require(str(FULL), HAS_FULL)
        full = os.open(FULL, os.O_WRONLY)
        os.dup2(full, writing)
        os.close(full)
    os.close(reading)
    closing = ["sh", "-c", 'exec "$@" >&-', "sh"] if output == "closed" else []
    process = await asyncio.create_subprocess_exec(
        *closing, sys.executable, "-m", "proxy", *arguments, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=writing, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    os.close(writing)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("output", CAUSES)
@pytest.mark.parametrize("command", ["help", "version", *sorted(COMMANDS.keys() - SERVICES)])
async def test_a_command_whose_output_cannot_be_written_fails_and_says_why(
    tmp_path: Path, command: str, output: str
) -> None:
    app = Quart("ready")
    app.add_url_rule("/readyz", view_func=lambda: "ready")
    async with (
        serve_on_loopback(app) as url,
        process_of(command_lines(tmp_path, url)[command], output) as process,
        asyncio.timeout(PATIENCE),
    ):
        told = (await process.communicate())[1].decode()
    assert process.returncode == 1
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert re.search(
        rf"^llm-token-proxy: cannot write to standard output: {CAUSES[output]}$", told, re.MULTILINE
    )


@pytest.mark.parametrize("output", CAUSES)
@pytest.mark.parametrize(
    "command", [["gateway"], ["serve", "--config", "config/proxy.toml"]], ids=["gateway", "serve"]
)
async def test_a_service_whose_output_cannot_be_written_serves_and_ends_well(
    command: list[str], output: str
) -> None:
    port = free_port()
    async with (
        process_of([*command, "--bind", f"127.0.0.1:{port}"], output) as process,
        asyncio.timeout(PATIENCE),
    ):
        await accepting(port)
        process.send_signal(signal.SIGINT)
        told = (await process.communicate())[1].decode()
    assert process.returncode == 0
    assert "Traceback" not in told
    assert "Exception ignored" not in told

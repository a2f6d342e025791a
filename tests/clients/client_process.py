"""Clients as separate processes, each in the environment that `make clients` created for it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.conftest import require
from tests.pace import PATIENCE

ROOT: Final = Path(__file__).parents[2]
MADE: Final = ROOT / ".clients"
SCRIPTS: Final = Path(__file__).parent / "scripts"
NEWEST: Final = "newest"
"""The environment of the tests, which has the SDK that the service uses."""
NODE: Final = "node"


def find_environment(name: str) -> Path:
    """Return the folder of an environment; skip the test if it does not exist."""
    folder = MADE / name
    require(f"the client environment {name} (make clients)", found=(folder / ".made").exists())
    return folder


async def run_client(environment: str, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of `scripts/` in an environment, and return the JSON object that it prints."""
    if environment == NODE:  # by its standard input, so that it finds the packages of the folder
        folder, text = find_environment(NODE), (SCRIPTS / script).read_bytes()
        out = await run("node", "--input-type=module", "-", *arguments, folder=folder, text=text)
    else:
        own = environment == NEWEST
        python = sys.executable if own else str(find_environment(environment) / "bin/python")
        out = await run(python, "-I", str(SCRIPTS / script), *arguments)
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer


async def run(*command: str, folder: Path = ROOT, text: bytes = b"") -> bytes:
    """Run a command that must succeed, with only PATH in its environment; return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, complaint = await process.communicate(text)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # else it warns after the loop is gone
    assert process.returncode == 0, complaint.decode()
    return out

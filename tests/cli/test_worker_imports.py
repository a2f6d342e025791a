"""What `serve` imports: a configuration pays memory and start time only for what it uses."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.pace import PATIENCE

PLAIN: Final = """
[access]
mode = "open"
[routes]
default = "chat"
[upstreams.chat]
base_url = "http://127.0.0.1:9/v1"
credential = "corp"
[credentials.corp]
source = "static"
value = "live-token-of-the-test"
"""
CHAT: Final = '[chat]\nmodel = "x1"\n'
SHARED: Final = f'[shared]\nredis_url = "redis://127.0.0.1:9/0"\nencryption_key = "{"ab" * 32}"\n'

APPLICATION: Final = frozenset({"aiocache", "openai", "proxy.app", "proxy.upstream", "quart"})
"""What serves requests."""
CHAT_LIBRARIES: Final = frozenset({"limits", "markdown_it", "math_core", "nh3", "pygments"})
OPTIONAL: Final = CHAT_LIBRARIES | {
    "azure",
    "botocore",
    "cryptography.hazmat",
    "google.auth",
    "granian",
    "jwt",
    "openai.types.responses.response",
    "proxy.chat.dialogues",
    "proxy.cli.doctor",
    "proxy.gateway.app",
    "proxy.recipe",
    "proxy.redis_client",
    "proxy.telemetry.traces",
    "redis",
    "requests",
    "tiktoken",
    "uvicorn",
}
"""What only some configurations use."""

WORKER: Final = """
import asyncio, sys
sys.modules["rich"] = None  # structlog imports it if it is installed, as it is for import-linter
from pathlib import Path
from proxy.cli.worker import Drain, create_app
from proxy.settings import load_settings

async def main():
    async with create_app(load_settings(Path(sys.argv[1]), {}), Drain()).test_app():
        print("imported:", *sys.modules)

asyncio.run(main())
"""
"""Shows what a worker has imported when it is ready for requests."""


def imported_by(program: str, *arguments: str) -> set[str]:
    """Return the modules that a program prints in a new process, among lines of the log."""
    command = [sys.executable, "-c", program, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    (line,) = re.findall("^imported: (.*)$", printed, re.MULTILINE)
    return {*line.split()}


def imported_with(modules: str) -> set[str]:
    """Return what a new process has imported after an `import` of these modules."""
    return imported_by(f"import {modules}, sys; print('imported:', *sys.modules)")


def imported_by_worker(folder: Path, settings: str) -> set[str]:
    """Return the modules of a worker that is ready for requests."""
    path = folder / "proxy.toml"
    path.write_text(settings)
    return imported_by(WORKER, str(path))


def test_the_supervisor_of_several_workers_imports_nothing_that_serves_requests() -> None:
    imported = imported_with("proxy.cli.serve")

    assert imported & {*APPLICATION, "redis"} == set()


def test_a_plain_worker_imports_the_application_and_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    imported = imported_by_worker(tmp_path, PLAIN)

    assert imported >= APPLICATION
    assert imported & OPTIONAL == set()


@pytest.mark.parametrize(("settings", "used"), [(CHAT, CHAT_LIBRARIES), (SHARED, {"proxy.redis_client"})])
def test_what_a_configuration_uses_is_imported_before_the_first_request(
    tmp_path: Path, settings: str, used: set[str]
) -> None:
    assert imported_by_worker(tmp_path, PLAIN + settings) >= used

"""The systemd units: what the service may do, and how long it may take to stop."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Final

from proxy.cli.arguments import EXIT_USAGE
from proxy.cli.server import HARD_STOP_SECONDS
from tests.conftest import require

ROOT: Final = Path(__file__).parents[2]
SERVICE: Final = ROOT / "config/systemd/llm-token-proxy.service"
SOCKET: Final = SERVICE.with_suffix(".socket")
EXPOSURE_MAX: Final = 2.0
"""The highest exposure, on the scale from 0 to 10 of `systemd-analyze security`."""


def values(unit: Path, key: str) -> list[str]:
    """Return every value of a key."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def test_the_service_has_few_privileges() -> None:
    require("systemd-analyze", found=shutil.which("systemd-analyze") is not None)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(SERVICE)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert float(exposure) < EXPOSURE_MAX


def test_systemd_waits_for_the_whole_drain() -> None:
    server = tomllib.loads((ROOT / "hypercorn.toml").read_text())
    drain = server["readiness_delay"] + server["graceful_timeout"] + HARD_STOP_SECONDS
    (timeout,) = values(SERVICE, "TimeoutStopSec")
    assert float(timeout) > drain


def test_the_socket_is_the_address_of_the_server() -> None:
    server = tomllib.loads((ROOT / "hypercorn.toml").read_text())
    assert values(SOCKET, "ListenStream") == server["bind"]
    assert values(SOCKET, "Backlog") == [str(server["backlog"])]


def test_invalid_settings_are_not_retried() -> None:
    assert values(SERVICE, "RestartPreventExitStatus") == [str(EXIT_USAGE)]

"""`make` finishes or repairs an environment, and says so. A stand-in for Python records what it is asked."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__
from tests.__main__ import QUICK
from tests.conftest import require

ROOT = Path(__file__).parents[1]
STAND_IN = f"""#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  *"-m venv"*) for last; do :; done
    rm -rf "$last"; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; touch "$last/pip";;
  *base_prefix*) test -z "$AT_HOME";;
  *find_spec*) test -e "$(dirname "$0")/../pip" -a -e "$(dirname "$0")/../quart";;
  *"pip --version"*) test -e "$(dirname "$0")/../pip";;
  *"pip install"*) test -z "$OFFLINE" && touch "$(dirname "$0")/../quart";;
  *version_info*) exec {sys.executable} "$@";;
esac
"""


class Made:
    """Runs `make install` or another target in a separate folder."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / "venv"
        self._calls = folder / "calls"
        self._python = folder / "python"
        self._python.write_text(STAND_IN)
        self._python.chmod(0o755)

    def install(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Return the exit status, the output, and the calls of Python."""
        self._calls.write_text("")
        make = ["make", "-C", str(ROOT), f"VENV={self.venv}", f"PYTHON={self._python}"]
        done = subprocess.run(
            [*make, *(arguments or ("install",))],
            env={**os.environ, "CALLS": str(self._calls), "OFFLINE": "", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, self._calls.read_text()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    require("make", found=shutil.which("make") is not None)
    return Made(tmp_path)


def test_an_environment_is_made_once(made: Made) -> None:
    status, words, calls = made.install()
    assert status == 0, words
    assert "half made" not in words
    assert calls.count("-m venv") == 1
    status, words, calls = made.install()
    assert (status, calls.count("install"), calls.count("venv")) == (0, 0, 0)


def test_an_interrupted_installation_is_finished_with_a_message(made: Made) -> None:
    status, words, _ = made.install(OFFLINE="yes")
    assert status == 2
    assert "the packages could not be installed, see above: check the network; PIP_INDEX_URL" in words
    status, words, calls = made.install()
    assert status == 0
    assert "is half made, since an earlier make was interrupted: finishing it ..." in words
    assert "-m venv" not in calls


@pytest.mark.parametrize("lost", ["bin/python", "bin", "pip", "quart"])
def test_missing_parts_of_an_environment_are_restored_with_a_message(made: Made, lost: str) -> None:
    assert made.install()[0] == 0
    path = made.venv / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    status, words, calls = made.install()
    assert status == 0, words
    assert "has lost its Python or its packages: making it again ..." in words
    assert calls.count("-m venv") == 1
    assert calls.count("-m pip install") == 1
    assert made.install()[2].count("install") == 0


def test_an_environment_without_pip_is_made_again(made: Made) -> None:
    made.install(OFFLINE="yes")
    (made.venv / "pip").unlink()
    status, words, calls = made.install()
    assert status == 0
    assert "is half made, without pip: making it again ..." in words
    assert calls.count("-m venv") == 1


# --- the service of systemd


def installed(made: Made, root: Path) -> str:
    """Stage the service below this folder; return the calls of Python."""
    status, words, calls = made.install("install-systemd", f"DESTDIR={root}")
    assert status == 0, words
    return calls


def test_the_service_is_staged_below_destdir(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "root"
    calls = installed(made, root)
    home = f"/opt/llm-token-proxy/{__version__}"
    assert f"-m venv --clear {root}{home}" in calls
    assert "--require-hashes -r requirements.lock" in calls
    assert (root / "usr/local/bin/llm-token-proxy").readlink() == Path(home) / "bin/llm-token-proxy"
    assert stat.S_IMODE((root / "etc/llm-token-proxy/secrets").stat().st_mode) == 0o700
    units = root / "usr/local/lib/systemd/system"
    assert f"ExecStart={home}/bin/python -m proxy serve" in (units / "llm-token-proxy.service").read_text()
    assert (units / "llm-token-proxy.socket").is_file()
    outside = [path for path in tmp_path.iterdir() if path.name not in {"root", "venv", "calls", "python"}]
    assert outside == []


def test_a_python_that_the_service_cannot_read_is_rejected(made: Made, tmp_path: Path) -> None:
    status, words, _ = made.install("install-systemd", f"DESTDIR={tmp_path / 'root'}", AT_HOME="yes")
    assert status == 2
    assert "the service cannot read" in words
    assert "which is in a home folder: choose another with PYTHON=..." in words
    assert not (tmp_path / "root").exists()


def test_an_upgrade_of_the_service_keeps_its_settings(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "root"
    installed(made, root)
    settings = root / "etc/llm-token-proxy/proxy.toml"
    assert settings.read_text() == (ROOT / "config/proxy.toml").read_text()
    settings.write_text("mine")
    (root / "etc/llm-token-proxy/hypercorn.toml").unlink()
    installed(made, root)
    assert settings.read_text() == "mine"
    assert (root / "etc/llm-token-proxy/hypercorn.toml").is_file()


def test_systemd_finds_no_fault_in_the_installed_units(made: Made, tmp_path: Path) -> None:
    require("systemd-analyze", found=shutil.which("systemd-analyze") is not None)
    root = tmp_path / "root"
    installed(made, root)
    service, listener = sorted((root / "usr/local/lib/systemd/system").iterdir())
    service.write_text(service.read_text().replace("ExecStart=/opt", f"ExecStart={root}/opt"))
    verify = ["systemd-analyze", "verify", "--man=no", str(service), str(listener)]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    of_ours = [line for line in said.stderr.splitlines() if "llm-token-proxy" in line]
    assert (said.returncode, of_ours) == (0, [])


def test_the_quick_tests_exist_and_the_hooks_use_the_projects_own_tools() -> None:
    assert [path for path in QUICK if not (ROOT / path).exists()] == []
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    assert {*re.findall(r"entry: (\S+)", hooks)} == {".venv/bin/ruff", ".venv/bin/mypy"}

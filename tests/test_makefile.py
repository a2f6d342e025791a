"""`make` finishes or repairs an environment, and says so. A stand-in for Python records what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require

ROOT = Path(__file__).parents[1]
STAND_IN = f"""#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
  *"-m venv"*) for last; do :; done
    rm -rf "$last"; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; touch "$last/pip";;
  *find_spec*) test -e "$(dirname "$0")/../pip" -a -e "$(dirname "$0")/../quart";;
  *"pip --version"*) test -e "$(dirname "$0")/../pip";;
  *"pip install"*) test -z "$OFFLINE" && touch "$(dirname "$0")/../quart";;
  *version_info*) exec {sys.executable} "$@";;
esac
"""


class Made:
    """What `make install` does in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / "venv"
        self._calls = folder / "calls"
        self._python = folder / "python"
        self._python.write_text(STAND_IN)
        self._python.chmod(0o755)

    def install(self, **environment: str) -> tuple[int, str, str]:
        """Exit status, words, and what was asked of Python."""
        self._calls.write_text("")
        done = subprocess.run(
            ["make", "-C", str(ROOT), "install", f"VENV={self.venv}", f"PYTHON={self._python}"],
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


def test_an_interrupted_installation_is_finished_and_said_so(made: Made) -> None:
    status, words, _ = made.install(OFFLINE="yes")
    assert status == 2
    assert "the packages could not be installed, see above: check the network; PIP_INDEX_URL" in words
    status, words, calls = made.install()
    assert status == 0
    assert "is half made, since an earlier make was interrupted: finishing it ..." in words
    assert "-m venv" not in calls


@pytest.mark.parametrize("lost", ["bin/python", "bin", "pip", "quart"])
def test_what_an_environment_lost_is_made_again_and_said_so(made: Made, lost: str) -> None:
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

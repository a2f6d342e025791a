"""The lock files: every package is pinned by its hash."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"])
def test_every_package_is_locked_with_a_hash(name: str) -> None:
    packages = re.findall(r"^[a-z0-9][^\n]*==[^\n]*(?:\n +[^\n]*)*", (ROOT / name).read_text(), re.MULTILINE)
    assert len(packages) > 5
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


def test_the_service_locks_nothing_that_structlog_imports_wherever_it_is_installed() -> None:
    """Rich brings Pygments: together they add 3 MB and up to 0.1 s to each worker."""
    packages = {
        *re.findall(r"^[a-z0-9][\w.-]*(?===)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    }
    assert "structlog" in packages
    assert packages & {"better-exceptions", "colorama", "rich"} == set()

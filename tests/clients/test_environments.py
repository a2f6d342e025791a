"""The lock files of the clients: every package is pinned by its hash, and no file names a package index."""

import json
import re
from pathlib import Path

import pytest

from tests.clients.client_process import ROOT

LOCKS = Path(__file__).parent / "environments"


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_python_clients_are_pinned_by_hashes(lock: Path) -> None:
    assert lock.with_suffix(".in").exists()
    text = lock.read_text()
    pins = re.split(r"\n(?=[a-z])", text)[1:]
    assert pins
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in text
    assert str(ROOT) not in text


def test_node_clients_are_pinned_by_hashes() -> None:
    packages = json.loads((LOCKS / "node/package-lock.json").read_text())["packages"]
    wanted = json.loads((LOCKS / "node/package.json").read_text())["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package

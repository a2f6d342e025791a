"""The folder that the workers of a service share: abandoned ones are removed, and no others."""

import tempfile
from pathlib import Path

import pytest

from proxy.cli.service_folder import PREFIX, remove_abandoned, service_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_exists_for_as_long_as_it_is_used(temporary: Path) -> None:
    with service_folder() as (first, _), service_folder() as (second, _):
        assert {first, second} == {str(path) for path in temporary.iterdir()}
        assert {Path(folder).stat().st_mode & 0o777 for folder in (first, second)} == {0o700}
        Path(first, "token").touch()
    assert [*temporary.iterdir()] == []


def test_only_abandoned_folders_of_services_are_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned, other = temporary / f"{PREFIX}a", temporary / "llm-token-proxy-b"
    for folder in (abandoned, other):
        folder.mkdir()
        (folder / "token").touch()
    link = temporary / f"{PREFIX}link"
    link.symlink_to(other)
    file = temporary / f"{PREFIX}file"
    file.touch()
    with monkeypatch.context() as patched:
        patched.setattr("os.geteuid", lambda: abandoned.stat().st_uid + 1)
        remove_abandoned()
    assert abandoned.exists()
    with service_folder() as (used, _):
        assert {*temporary.iterdir()} == {other, link, file, Path(used)}
    assert (other / "token").exists()

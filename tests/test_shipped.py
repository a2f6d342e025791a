"""The files that come with the program; a file in the current folder has precedence."""

from pathlib import Path

import pytest

from proxy.shipped import nearest, shipped


def test_the_default_configuration_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped("config/proxy.toml").is_file()
    assert nearest("hypercorn.toml") == shipped("hypercorn.toml")
    (tmp_path / "hypercorn.toml").write_text("")
    assert nearest("hypercorn.toml") == Path("hypercorn.toml")

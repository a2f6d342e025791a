"""The files that come with the program; a file in the current folder has precedence."""

from pathlib import Path

import pytest

from proxy.shipped import FOLDER, install_command, nearest, shipped


def test_the_default_configuration_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped("config/proxy.toml").is_file()
    assert nearest("hypercorn.toml") == shipped("hypercorn.toml")
    (tmp_path / "hypercorn.toml").write_text("")
    assert nearest("hypercorn.toml") == Path("hypercorn.toml")


def test_an_extra_is_installed_from_where_the_program_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command("uvicorn") == "pip install '.[uvicorn]'"
    monkeypatch.setattr("proxy.shipped.FOLDER", FOLDER / "proxy" / "shipped_files")
    assert install_command("uvicorn") == "pip install 'llm-token-proxy[uvicorn]'"

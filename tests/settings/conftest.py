"""Fixtures that load settings from a text, as a file named x.toml in a new folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from proxy.errors import SettingsError
from proxy.settings import Settings, load_settings

MINIMAL = """\
[access]
mode = "open"
[upstreams.chat]
base_url = "https://llm.example/v1"
"""


class Load(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] = ...) -> Settings: ...


class Problems(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] = ...) -> list[str]: ...


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a text to x.toml and loads it."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        path = Path("x.toml")
        path.write_bytes(text.encode())
        return load_settings(path, environ or {})

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return a function that loads an invalid text and returns its problems."""

    def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(SettingsError) as refusal:
            load(text, environ or {})
        return list(refusal.value.problems)

    return problems

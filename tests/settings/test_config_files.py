"""The files of config/: they load, and the example names every key with a comment."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from proxy.secret import Secret
from proxy.settings import DEFAULT_CALLER_KEYS, HttpCredential, Routes, Settings, describe, load_settings
from proxy.settings.section import Section

CONFIG = Path(__file__).parents[2] / "config"
HEADER = re.compile(r"\[+([\w.]+)\]")
KEY = re.compile(r"(\w+) =")


def sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def keys_of(section: type[Section]) -> Iterator[str]:
    """Every key of a section and of those below it."""
    for name, field in section.model_fields.items():
        yield field.alias or name
        for below in sections_in(field.annotation):
            yield from keys_of(below)


def documented() -> set[tuple[str, str]]:
    """The keys of the example that have a comment on their line, each with the section that it stands in."""
    found, section = set(), ""
    for line in (CONFIG / "example.toml").read_text().splitlines():
        code, _, comment = line.removeprefix("# ").partition(" # ")  # keys that are commented out count too
        header = HEADER.match(code)
        if header:
            section = header[1].split(".")[0]
        if comment:
            names = header[1].split(".") if header else KEY.findall(code)
            found |= {(section, name) for name in names}
    return found


@pytest.mark.parametrize("section", [name for name in Settings.model_fields if name != "routes"])
def test_every_key_stands_in_the_example_with_a_comment(section: str) -> None:
    known = documented()
    models = [*sections_in(Settings.model_fields[section].annotation)]

    assert models
    for model in models:
        assert {key for key in keys_of(model) if (section, key) not in known} == set()


def test_the_example_needs_no_environment() -> None:
    settings = load_settings(CONFIG / "example.toml", {})

    assert set(settings.credentials) == {"corp", "entra", "speech"}
    assert isinstance(settings.routes, Routes)
    assert "example-app-secret" not in describe(settings)


def test_the_runnable_default() -> None:
    settings = load_settings(CONFIG / "proxy.toml", {})
    corp = settings.credentials["corp"]

    assert {key.name: key.key for key in settings.access.keys} == {
        "local": Secret("sk-local"),
        "original": Secret("fake key"),
    }
    assert {key.key.reveal() for key in settings.access.keys if key.key} == DEFAULT_CALLER_KEYS
    assert (settings.routes.default, settings.routes.endpoints) == ("chat", {"embeddings": "embed"})
    assert {upstream.base_url for upstream in settings.upstreams.values()} == {"embedded:/v1"}
    assert isinstance(corp, HttpCredential)
    assert corp.json_body == {"appId": "demo", "appSecret": "demo-secret"}
    assert settings.gateway is not None
    assert settings.gateway.token_ttl == 300


@pytest.mark.parametrize("name", ["proxy.toml", "example.toml"])
def test_the_defaults_in_the_example_are_the_defaults(name: str) -> None:
    settings = load_settings(CONFIG / name, {})

    assert settings.limits == type(settings.limits)()
    assert settings.logs == type(settings.logs)()
    assert settings.gateway == type(settings.gateway)() if settings.gateway else True

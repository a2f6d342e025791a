"""The configuration reference: its tables are the settings, and the blocks that documents show load."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from proxy.cli.arguments import SERVERS
from proxy.secret import Secret
from proxy.settings import CredentialSection, CredentialSettings, Settings
from proxy.settings.credentials.section import RequestSection
from proxy.settings.section import Section
from proxy.wire.endpoints import ENDPOINT_NAMES, TABLE
from tests.documents import (
    CODE,
    DOCUMENTS,
    READMES,
    ROOT,
    below,
    commands,
    each_reference,
    fences,
    first_table,
)
from tests.settings.test_config_files import sections_in, surroundings_of

REQUIRED: Final = {"required", "必填"}
UNSET: Final = "–"

Keys = dict[str, object]


def keys_of(section: type[Section], prefix: str = "", holder: object = None) -> Iterator[tuple[str, object]]:
    """Yield every key of a section as the tables write it, with its default; Ellipsis if it is required."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        default = getattr(holder, name) if holder is not None else default_of(field)
        within = [*sections_in(field.annotation)]
        for inner in within:
            dot = "[]." if get_origin(field.annotation) is tuple else "."
            yield from keys_of(inner, key + dot, default if isinstance(default, Section) else None)
        if not within:
            yield key, default


def default_of(field: FieldInfo) -> object:
    if field.is_required():
        return ...
    return {} if field.default_factory else field.default


def own_keys(section: type[Section], base: type[Section]) -> Keys:
    """Return the keys of a section that its base lacks, or has with another default."""
    inherited = dict(keys_of(base))
    return {key: value for key, value in keys_of(section) if inherited.get(key, base) != value}


def tables() -> Iterator[tuple[str, Keys]]:
    """The beginning of the heading of each table, and its keys."""
    for name, field in Settings.model_fields.items():
        if name not in {"routes", "credentials"}:
            (section,) = sections_in(field.annotation)
            yield f"`[{name}", dict(keys_of(section))
    for source in sections_in(CredentialSettings):
        assert issubclass(source, CredentialSection)
        base = RequestSection if issubclass(source, RequestSection) else CredentialSection
        (word,) = get_args(source.model_fields["source"].annotation)
        yield f'`source = "{word}"`', own_keys(source, base)


COMMON: Final = {
    "docs/configuration.md": ("Every source", "`http` and `oauth2`"),
    "docs/configuration.zh-CN.md": ("各种来源通用", "`http` 和 `oauth2` 通用"),
}


def tables_of(name: str) -> list[tuple[str, Keys]]:
    every, over_http = COMMON[name]
    common = [(every, dict(keys_of(CredentialSection)))]
    return [*tables(), *common, (over_http, own_keys(RequestSection, CredentialSection))]


@each_reference
def test_every_key_of_the_settings_has_a_row_and_every_row_a_key(name: str) -> None:
    for heading, keys in tables_of(name):
        documented = [row[0].strip("`") for row in first_table(below(DOCUMENTS[name], heading))]

        assert sorted(documented) == sorted(keys), heading


@each_reference
def test_the_defaults_in_the_tables_are_the_defaults(name: str) -> None:
    for heading, known in tables_of(name):
        for key, cell, _ in first_table(below(DOCUMENTS[name], heading)):
            default = known[key.strip("`")]
            if default is ...:
                assert cell in REQUIRED, f"{heading}: {key}"
            elif default in (None, (), {}):
                assert cell == UNSET, f"{heading}: {key}"
            else:
                written = tomllib.loads(f"x = {cell.strip('`')}")
                assert written == {"x": as_toml(default)}, f"{heading}: {key}"


def as_toml(value: Any) -> object:
    """Return a default as a TOML parser would return it."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    return [*value] if isinstance(value, tuple) else value


def test_by_default_only_a_401_rejects_a_token() -> None:
    (rule,) = CredentialSection.model_fields["invalidate_on"].default

    assert rule.model_dump(exclude_defaults=True) == {"status": 401}
    assert "The default is a 401;" in " ".join(DOCUMENTS["docs/configuration.md"].split())
    assert "默认只有 401；" in DOCUMENTS["docs/configuration.zh-CN.md"]


@each_reference
def test_every_endpoint_that_can_be_routed_is_named(name: str) -> None:
    routes = below(DOCUMENTS[name], "`[routes]`")

    assert set(CODE.findall(routes)) >= ENDPOINT_NAMES
    assert first_table(routes)[0][0] == "`default`"


@each_reference
def test_the_endpoints_of_limited_keys_are_named(name: str) -> None:
    section = below(DOCUMENTS[name], "受限的 key" if "zh-CN" in name else "Limited keys")

    (listed,) = [part for part in section.split("\n\n") if "`endpoint_forbidden`" in part]
    allowed, _, rest = listed.partition("`endpoint_forbidden`")
    named = {*CODE.findall(allowed)} & ENDPOINT_NAMES
    assert named == {endpoint.name for endpoint in TABLE if endpoint.for_limited_keys}
    closed = {*CODE.findall(rest)} & ENDPOINT_NAMES - {"models"}
    assert closed
    assert not any(endpoint.for_limited_keys for endpoint in TABLE if endpoint.name in closed)


@each_reference
def test_the_endpoints_that_a_budget_closes_are_listed(name: str) -> None:
    section = below(DOCUMENTS[name], "token 额度" if "zh-CN" in name else "Token budgets")
    (listed,) = [part for part in section.split("\n\n") if "`endpoint_forbidden`" in part]
    named = {*CODE.findall(listed)} & ENDPOINT_NAMES
    background = {endpoint.name for endpoint in TABLE if endpoint.background}
    assert named == background | {endpoint.name for endpoint in TABLE if endpoint.uncounted}


@each_reference
def test_the_packages_of_the_clouds_are_named_as_they_are_required(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    for extra, packages in extras.items():
        for package in packages if extra not in SERVERS else ():
            assert f"pip install '{package}'" in commands(DOCUMENTS[name])


@pytest.mark.parametrize("name", [name for name, text in DOCUMENTS.items() if fences(text, "toml")])
def test_every_toml_block_loads(name: str, tmp_path: Path) -> None:
    for block in fences(DOCUMENTS[name], "toml"):
        text = completed(block)
        settings = surroundings_of(text, tmp_path).load(text)
        assert {*settings.credentials} == {*tomllib.loads(text)["credentials"]}
        if name in READMES:
            assert "corp" in tomllib.loads(block)["credentials"]


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_show_blocks(name: str) -> None:
    assert fences(DOCUMENTS[name], "toml")


def completed(block: str) -> str:
    """Return the block with the sections that it omits."""
    tables, text = tomllib.loads(block), block
    if "access" not in tables:
        text += '[access]\nmode = "open"\n'
    if "upstreams" not in tables:
        text += '[upstreams.chat]\nbase_url = "https://llm.example/v1"\ncredential = "corp"\n'
    if "corp" not in tables.get("credentials", {}):
        text += '[credentials.corp]\nsource = "static"\nvalue = "sk-1"\n'
    return text

"""The documents: what they name is there, and what is there they name."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_origin

import pytest
from pydantic.fields import FieldInfo

from proxy import errors
from proxy.cli import _COMMANDS
from proxy.errors import ProxyError
from proxy.secret import Secret
from proxy.settings import ENDPOINTS, Settings, load_settings
from proxy.settings.section import Section
from tests.settings.test_config_files import sections_in

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = {path.name: path.read_text() for path in sorted(ROOT.glob("*.md"))}
READMES: Final = ("README.md", "README.zh-CN.md")
REQUIRED: Final = {"required", "必填"}
IN_A_STREAM: Final = {"stream", "流中"}
UNSET: Final = "–"

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
TABLE: Final = re.compile(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
VARIABLE: Final = re.compile(r"\$\{env:(\w+)")

each_document = pytest.mark.parametrize("name", DOCUMENTS)
each_readme = pytest.mark.parametrize("name", READMES)


# --- reading Markdown


def fences(text: str, language: str) -> list[str]:
    """The code blocks in one language."""
    return [body for of, body in FENCE.findall(text) if of == language]


def commands(text: str) -> str:
    """All that is shown as code: blocks, and spans in a line each."""
    blocks = [body for _, body in FENCE.findall(text)]
    return "\n".join([*blocks, *CODE.findall(FENCE.sub("", text))])


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below its heading."""
    lines = "".join(TABLE.findall(text)).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def anchors(text: str) -> set[str]:
    """What a link to a heading may say after its `#`, by GitHub's rule."""
    plain = (heading.lower() for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def section_table(text: str, section: str) -> list[list[str]]:
    """The rows below the heading of a section of the settings, such as `[upstreams.NAME]`."""
    _, _, below = text.partition(f"\n### `[{section}")
    return rows(re.split(r"^##", below, maxsplit=1, flags=re.MULTILINE)[0])


# --- the settings as they are


def keys_of(section: type[Section], prefix: str = "", holder: object = None) -> Iterator[tuple[str, object]]:
    """Every key of a section as the tables write it, with its default; Ellipsis where it is required."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        default = getattr(holder, name) if holder is not None else default_of(field)
        below = [*sections_in(field.annotation)]
        for inner in below:
            dot = "[]." if get_origin(field.annotation) is tuple else "."
            yield from keys_of(inner, key + dot, default if isinstance(default, Section) else None)
        if not below:
            yield key, default


def default_of(field: FieldInfo) -> object:
    if field.is_required():
        return ...
    return {} if field.default_factory else field.default


def all_keys(section: str) -> dict[str, object]:
    """The keys of a top-level section, whichever of its models has them."""
    models = sections_in(Settings.model_fields[section].annotation)
    return {key: default for model in models for key, default in keys_of(model)}


SECTIONS: Final = [name for name in Settings.model_fields if name != "routes"]


@each_readme
@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_the_settings_has_a_row_and_every_row_a_key(name: str, section: str) -> None:
    documented = [row[0].strip("`") for row in section_table(DOCUMENTS[name], section)]

    assert sorted(documented) == sorted(all_keys(section))


@each_readme
@pytest.mark.parametrize("section", SECTIONS)
def test_the_defaults_in_the_tables_are_the_defaults(name: str, section: str) -> None:
    known = all_keys(section)
    for key, cell, _ in section_table(DOCUMENTS[name], section):
        default = known[key.strip("`")]
        if default is ...:
            assert cell in REQUIRED, key
        elif default in (None, (), {}):
            assert cell == UNSET, key
        else:
            shown = default.reveal() if isinstance(default, Secret) else default
            assert tomllib.loads(f"x = {cell.strip('`')}") == {"x": shown}, key


@each_readme
def test_every_endpoint_that_can_be_routed_is_named(name: str) -> None:
    _, _, below = DOCUMENTS[name].partition("\n### `[routes]`\n")
    routes = below.partition("\n### ")[0]

    assert set(CODE.findall(routes)) >= ENDPOINTS
    assert section_table(DOCUMENTS[name], "routes")[0][0] == "`default`"


@each_readme
def test_every_toml_block_loads(name: str, tmp_path: Path) -> None:
    blocks = fences(DOCUMENTS[name], "toml")

    assert blocks
    for block in blocks:
        text = block
        if "access" not in tomllib.loads(block):
            text += '[access]\nmode = "open"\n'
        if "upstreams" not in tomllib.loads(block):
            text += '[upstreams.chat]\nbase_url = "https://llm.example/v1"\ncredential = "corp"\n'
        path = tmp_path / "proxy.toml"
        path.write_text(text)
        settings = load_settings(path, {variable: f"of-{variable}" for variable in VARIABLE.findall(block)})
        assert "corp" in settings.credentials


# --- errors


def leaves(error: type[ProxyError]) -> Iterator[type[ProxyError]]:
    """The errors that are raised, not their families."""
    below = [inner for inner in error.__subclasses__() if inner.__module__ == errors.__name__]
    if not below:
        yield error
    for inner in below:
        yield from leaves(inner)


@each_readme
def test_every_error_is_in_the_table_with_its_status(name: str) -> None:
    known = {(str(error.status), error.code) for error in leaves(ProxyError)}
    known = {("stream" if code == errors.Aborted.code else status, code) for status, code in known}
    table = {
        ("stream" if row[0] in IN_A_STREAM else row[0], row[1].strip("`"))
        for row in rows(DOCUMENTS[name])
        if row[0].isdigit() or row[0] in IN_A_STREAM
    }

    assert table == known


# --- commands, links, files


@each_readme
@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readmes_name_the_two_commands_to_know(name: str, command: str) -> None:
    assert re.search(rf"^{command}\b", "\n".join(fences(DOCUMENTS[name], "sh")), re.MULTILINE)


@each_document
def test_every_make_target_exists(name: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {*re.findall(r"^make ([a-z]+)", commands(DOCUMENTS[name]), re.MULTILINE)} <= {*targets}


@each_document
def test_every_command_exists(name: str) -> None:
    assert {*re.findall(r"-m proxy ([a-z]+)", commands(DOCUMENTS[name]))} <= {*_COMMANDS}


@each_document
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for target in LINK.findall(FENCE.sub("", DOCUMENTS[name])):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        assert (ROOT / file).exists(), target
        assert not anchor or anchor in anchors(DOCUMENTS[file or name]), target


@each_readme
def test_the_readmes_link_each_other_and_every_other_document(name: str) -> None:
    text = DOCUMENTS[name]
    other = next(readme for readme in READMES if readme != name)

    assert f"]({other})" in text.split("\n## ")[0]
    assert set(LINK.findall(text)) >= set(DOCUMENTS) - {name}


@each_readme
def test_the_nginx_location_is_that_of_the_file(name: str) -> None:
    directive = re.compile(r"^ +(\w[^;#]*;)", re.MULTILINE)
    (shown,) = fences(DOCUMENTS[name], "nginx")

    assert directive.findall(shown) == directive.findall((ROOT / "config/nginx/proxy.conf").read_text())


def test_the_changelog_says_what_is_new() -> None:
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)


# --- the rooms


def room_of(module: str) -> str:
    """`proxy.wire.paths` is in the room `wire`."""
    return module.split(".")[1]


def imports_of_rooms() -> dict[str, set[str]]:
    """Which other rooms each room imports from."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "proxy").rglob("*.py"):
        room = path.relative_to(ROOT / "proxy").with_suffix("").parts[0]
        modules = [
            node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        ]
        names = {room_of(module) for module in modules if module and module.startswith("proxy.")}
        found.setdefault(room, set()).update(names - {room})
    del found["__init__"]
    return found


def test_the_architectures_table_has_every_room_and_what_it_imports() -> None:
    table: dict[str, set[str]] = {}
    for cells in rows(DOCUMENTS["ARCHITECTURE.md"]):
        for room in CODE.findall(cells[1]):
            allowed = {name for name in cells[3].split(", ") if name != "-"}
            table.setdefault(room.split("/")[0].removesuffix(".py"), set()).update(allowed)
    actual = imports_of_rooms()

    assert set(table) == set(actual)
    assert {room: names - table[room] for room, names in actual.items() if names - table[room]} == {}

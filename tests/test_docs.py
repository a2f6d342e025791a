"""The documents: everything that they name exists, and everything that must be documented is."""

import re
import tomllib
from collections.abc import Iterator
from posixpath import normpath
from typing import Final

import pytest

from proxy import errors
from proxy.cli.arguments import COMMANDS
from proxy.errors import ProxyError
from proxy.server.serve import REJECTION_CODES
from proxy.settings import Settings
from tests.documents import (
    CHINESE,
    DOCUMENTS,
    FENCE,
    INDEXES,
    LINK,
    NAMED_TESTS,
    READMES,
    REFERENCE,
    ROOT,
    anchors,
    commands,
    each_index,
    each_readme,
    each_reference,
    fences,
    first_table,
    images,
    in_both_languages,
    rows,
    translation_of,
)

IN_A_STREAM: Final = {"stream", "流中"}
README_LINES_MAX: Final = 150
IMAGE_BYTES_MAX: Final = 150_000
NAMED_FILE: Final = re.compile(r"^(?:proxy|tests|config)/[\w./:-]+$", re.MULTILINE)
BLOCK: Final = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
COLOUR: Final = re.compile(r"#[0-9a-f]{6}\b")


# --- errors


def leaves(error: type[ProxyError]) -> Iterator[type[ProxyError]]:
    """Yield the errors that are raised, without their base classes."""
    below = [inner for inner in error.__subclasses__() if inner.__module__ == errors.__name__]
    if not below:
        yield error
    for inner in below:
        yield from leaves(inner)


@pytest.mark.parametrize("name", in_both_languages("docs/errors"))
def test_every_error_is_in_the_table_with_its_status(name: str) -> None:
    known = {(str(error.status), error.code) for error in leaves(ProxyError)}
    known = {("stream" if code == errors.Aborted.code else status, code) for status, code in known}
    table = {
        ("stream" if row[0] in IN_A_STREAM else row[0], row[1].strip("`"))
        for row in first_table(DOCUMENTS[name])
        if row[0].isdigit() or row[0] in IN_A_STREAM
    }

    assert table == known


@pytest.mark.parametrize("name", in_both_languages("docs/errors"))
def test_every_rejection_of_the_http_layer_is_in_its_table(name: str) -> None:
    table = {(row[0], row[1].strip("`")) for row in rows(DOCUMENTS[name]) if row[0].isdigit()}

    assert {(str(status.value), code) for status, code in REJECTION_CODES.items()} <= table


# --- commands and sections


@each_readme
def test_the_readmes_name_exactly_the_two_commands_to_know(name: str) -> None:
    shown = "\n".join(fences(DOCUMENTS[name], "sh"))

    assert re.findall(r"^make \w+", shown, re.MULTILINE) == ["make run", "make test"]


def test_every_make_target_exists() -> None:
    targets = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}

    for name, text in DOCUMENTS.items():
        assert {*re.findall(r"^make ([a-z-]+)", commands(text), re.MULTILINE)} <= targets, name


def test_every_command_exists() -> None:
    for name, text in DOCUMENTS.items():
        assert {*re.findall(r"-m proxy ([a-z]+)", commands(text))} <= {*COMMANDS}, name


@pytest.mark.parametrize("name", in_both_languages("docs/operations"))
def test_every_command_has_a_row(name: str) -> None:
    assert [row[0].strip("`").split()[0] for row in first_table(DOCUMENTS[name])] == [*COMMANDS]


@each_reference
def test_every_section_has_a_row(name: str) -> None:
    named = [row[0] for row in rows(DOCUMENTS[name]) if row[0].startswith("[`[")]

    assert [re.sub(r"[^a-z].*", "", first.lstrip("[`")) for first in named] == [*Settings.model_fields]


# --- links and files


def test_every_relative_link_has_a_target() -> None:
    for name, text in DOCUMENTS.items():
        plain = FENCE.sub("", text)
        for target in [*LINK.findall(plain), *REFERENCE.findall(plain), *images(plain)]:
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            path = beside(name, file) if file else name
            assert (ROOT / path).exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(DOCUMENTS[path]), f"{name}: {target}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_and_test_that_is_named_exists(name: str) -> None:
    in_comments = " ".join(NAMED_TESTS.findall(DOCUMENTS[name])).replace(",", " ").split()
    for named in [*in_comments, *NAMED_FILE.findall(commands(DOCUMENTS[name]))]:
        path, _, function = named.partition("::")
        assert (ROOT / path).exists(), named
        assert not function or re.search(rf"\bdef {function}\(", (ROOT / path).read_text()), named


def beside(name: str, file: str) -> str:
    """Return the target of a relative link as a path from the root."""
    return normpath(f"{name.rpartition('/')[0] or '.'}/{file}")


def in_the_other_language(name: str) -> set[str]:
    """Return the documents that exist in the language of this one."""
    return {
        document
        for document in DOCUMENTS
        if translation_of(document) in DOCUMENTS and document.endswith(CHINESE) != name.endswith(CHINESE)
    }


@each_readme
def test_the_readmes_link_each_other_their_index_and_the_root_documents(name: str) -> None:
    other = translation_of(name)
    index = next(page for page in INDEXES if page.endswith(CHINESE) == name.endswith(CHINESE))
    beside_it = {
        document
        for document in DOCUMENTS
        if "/" not in document and document not in in_the_other_language(name)
    } - {*READMES}

    assert f"]({other})" in DOCUMENTS[name].split("\n## ")[0]
    assert {*LINK.findall(DOCUMENTS[name])} >= {index, *beside_it}


@each_readme
def test_the_readmes_are_short(name: str) -> None:
    assert len(DOCUMENTS[name].splitlines()) <= README_LINES_MAX


@each_index
def test_the_indexes_link_every_document_in_their_language(name: str) -> None:
    linked = {beside(name, target.partition("#")[0]) for target in LINK.findall(DOCUMENTS[name])}

    assert linked >= {*DOCUMENTS} - {name} - in_the_other_language(name)


def test_every_document_exists_in_both_languages_and_links_the_other() -> None:
    for name, text in DOCUMENTS.items():
        if "/" in name:
            other = translation_of(name)

            assert other in DOCUMENTS
            assert f"]({other.rpartition('/')[2]})" in text.split("\n## ")[0], name


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(CHINESE)])
def test_no_line_ends_between_two_chinese_characters(name: str) -> None:
    """Browsers show the end of a line as a space, also in the middle of a word."""
    prose = BLOCK.sub("", DOCUMENTS[name])
    assert re.findall(r".*[一-鿿，。；：、]\n[ ]*[一-鿿（].*", prose) == []


@pytest.mark.parametrize(
    "english",
    [name for name in DOCUMENTS if not name.endswith(CHINESE) and translation_of(name) in DOCUMENTS],
)
def test_both_languages_show_the_same_settings_and_the_same_kinds_of_blocks(english: str) -> None:
    blocks = [FENCE.findall(DOCUMENTS[name]) for name in (english, translation_of(english))]
    kinds = [[kind for kind, _ in shown] for shown in blocks]
    settings = [[tomllib.loads(text) for kind, text in shown if kind == "toml"] for shown in blocks]

    assert kinds[0] == kinds[1]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("name", in_both_languages("docs/nginx"))
def test_the_nginx_location_is_that_of_the_file(name: str) -> None:
    directive = re.compile(r"^ +(\w[^;#]*;)", re.MULTILINE)
    _, shown = fences(DOCUMENTS[name], "nginx")

    api, _, _ = (ROOT / "config/nginx/proxy.conf").read_text().partition("# The web chat.")
    assert directive.findall(shown) == directive.findall(api)


# --- images


def test_images_are_small_and_each_is_shown() -> None:
    shown = {beside(name, image) for name, text in DOCUMENTS.items() for image in images(text)}
    files = [*(ROOT / "docs/images").iterdir(), *(ROOT / "docs/performance").glob("*.svg")]
    kept = {path.relative_to(ROOT).as_posix() for path in files}

    assert shown == kept
    assert [name for name in kept if (ROOT / name).stat().st_size > IMAGE_BYTES_MAX] == []


@each_readme
def test_the_diagram_differs_by_its_colours_only_in_the_dark(name: str) -> None:
    dark, light = [image for image in images(DOCUMENTS[name]) if "/overview-" in image]
    texts = [(ROOT / image).read_text(encoding="utf-8") for image in (dark, light)]

    assert "dark" in dark
    assert texts[0] != texts[1]
    assert COLOUR.sub("", texts[0]) == COLOUR.sub("", texts[1])


# --- changes


def test_the_changelog_has_entries_for_this_version() -> None:
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)

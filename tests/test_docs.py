"""The documents: what they name is there, and what is there they name."""

import re
from collections.abc import Iterator
from posixpath import normpath
from typing import Final

import pytest

from proxy import errors
from proxy.cli import _COMMANDS
from proxy.errors import ProxyError
from proxy.settings import Settings
from tests.documents import (
    CHINESE,
    DOCUMENTS,
    FENCE,
    LINK,
    READMES,
    ROOT,
    anchors,
    commands,
    each_readme,
    fences,
    rows,
    translation_of,
)

IN_A_STREAM: Final = {"stream", "流中"}


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


# --- commands and sections


@each_readme
@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readmes_name_the_two_commands_to_know(name: str, command: str) -> None:
    assert re.search(rf"^{command}\b", "\n".join(fences(DOCUMENTS[name], "sh")), re.MULTILINE)


def test_every_make_target_exists() -> None:
    targets = {*re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}

    for name, text in DOCUMENTS.items():
        assert {*re.findall(r"^make ([a-z]+)", commands(text), re.MULTILINE)} <= targets, name


def test_every_command_exists() -> None:
    for name, text in DOCUMENTS.items():
        assert {*re.findall(r"-m proxy ([a-z]+)", commands(text))} <= {*_COMMANDS}, name


@each_readme
def test_the_readmes_have_a_row_for_every_command_and_every_section(name: str) -> None:
    named = [row[0].strip("`").split()[0] for row in rows(DOCUMENTS[name]) if row[0].startswith("`")]
    sections = [first.strip("[]").split(".")[0] for first in named if first.startswith("[")]

    assert {*named} >= {*_COMMANDS}
    assert sections == [*Settings.model_fields]


# --- links and files


def test_every_relative_link_leads_somewhere() -> None:
    for name, text in DOCUMENTS.items():
        for target in LINK.findall(FENCE.sub("", text)):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            path = beside(name, file) if file else name
            assert (ROOT / path).exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(DOCUMENTS[path]), f"{name}: {target}"


def beside(name: str, file: str) -> str:
    """The path from the root of what a document's relative link names."""
    return normpath(f"{name.rpartition('/')[0] or '.'}/{file}")


@each_readme
def test_the_readmes_link_each_other_and_every_other_document(name: str) -> None:
    text = DOCUMENTS[name]
    other = next(readme for readme in READMES if readme != name)
    in_the_other_language = {
        document
        for document in DOCUMENTS
        if document != other
        and translation_of(document) in DOCUMENTS
        and document.endswith(CHINESE) != name.endswith(CHINESE)
    }

    assert f"]({other})" in text.split("\n## ")[0]
    assert set(LINK.findall(text)) >= set(DOCUMENTS) - {name} - in_the_other_language


def test_every_document_of_the_folder_is_there_in_both_languages_and_links_the_other() -> None:
    for name, text in DOCUMENTS.items():
        if "/" in name:
            other = translation_of(name)

            assert other in DOCUMENTS
            assert f"]({other.rpartition('/')[2]})" in text.split("\n## ")[0], name


@each_readme
def test_the_nginx_location_is_that_of_the_file(name: str) -> None:
    directive = re.compile(r"^ +(\w[^;#]*;)", re.MULTILINE)
    (shown,) = fences(DOCUMENTS[name], "nginx")

    api, _, _ = (ROOT / "config/nginx/proxy.conf").read_text().partition("# The web chat.")
    assert directive.findall(shown) == directive.findall(api)


def test_the_changelog_says_what_is_new() -> None:
    assert re.search(r"^## \[(Unreleased|0\.1\.0)\]", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)

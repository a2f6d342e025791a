"""The pages about clients: the repairs that they name exist, and both languages have the same content."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.wire.repairs import REPAIRS, SETS, resolve
from tests.documents import (
    CODE,
    DOCUMENTS,
    FENCE,
    below,
    fences,
    first_table,
    rows,
)
from tests.settings.test_config_files import surroundings_of
from tests.test_docs_configuration import completed

PAGES: Final = ("docs/clients.md", "docs/clients.zh-CN.md")
CLIENTS: Final = (
    "RAGFlow",
    "Dify",
    "Open WebUI",
    "FastGPT",
    "LobeChat",
    "Cherry Studio",
    "LangChain",
    "Continue",
    "Cline",
)
FOR_ALL: Final = {"docs/clients.md": "Repairs for all", "docs/clients.zh-CN.md": "通用的修正"}
WITH_FORM: Final = ("Dify", "Open WebUI", "FastGPT", "LobeChat", "Cherry Studio", "Cline")
LABEL_OF_URL: Final = re.compile(r"\*\*.*(?:URL|Host|address|地址)")
HEADING: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)
SECTION: Final = re.compile(r"^## ", re.MULTILINE)
WIDTH: Final = 120

each_page = pytest.mark.parametrize("page", PAGES)


def section_of(page: str, client: str) -> str:
    """Return the text below the name of a client, including code blocks."""
    (text,) = [part for part in SECTION.split(DOCUMENTS[page]) if part.startswith(f"{client}\n")]
    return text


def key_of(page: str, client: str) -> dict[str, Any]:
    """Return the caller's key in the text about a client."""
    (block,) = fences(section_of(page, client), "toml")
    (key,) = tomllib.loads(block)["access"]["keys"]
    assert isinstance(key, dict)
    return key


def repairs_in_tables(text: str) -> list[str]:
    """Return the names in code that are the first cell of a row."""
    return [row[0].strip("`") for row in rows(text) if CODE.fullmatch(row[0])]


def in_every_profile() -> set[str]:
    names = set(SETS["common"])
    assert all(names <= set(profile) for profile in SETS.values())
    return names


def headings(page: str) -> list[tuple[str, str]]:
    """The symbols, and the words of each."""
    return HEADING.findall(FENCE.sub("", DOCUMENTS[page]))


# --- the repairs


@each_page
def test_repairs_of_every_profile_are_described_only_once(page: str) -> None:
    assert repairs_in_tables(below(DOCUMENTS[page], FOR_ALL[page])) == [
        name for name in REPAIRS if name in in_every_profile()
    ]


@each_page
def test_a_client_has_its_profile_and_a_reason_for_each_repair(page: str) -> None:
    common = in_every_profile()
    for client in CLIENTS:
        profile = client.lower().replace(" ", "_")
        names = key_of(page, client)["repairs"]
        of_its_own = [name for name in REPAIRS if REPAIRS[name] in resolve(names) and name not in common]

        assert names == [profile if profile in SETS else "common"], client
        assert repairs_in_tables(section_of(page, client)) == of_its_own, client


@each_page
def test_every_repair_that_is_named_exists(page: str) -> None:
    named = {*repairs_in_tables(DOCUMENTS[page])}
    for client in CLIENTS:
        named.update(key_of(page, client)["repairs"])

    assert named - {*SETS, *REPAIRS} == set()


@each_page
def test_no_repair_is_misspelled_in_a_sentence(page: str) -> None:
    for span in {*CODE.findall(FENCE.sub("", DOCUMENTS[page]))} - {*REPAIRS}:
        assert difflib.get_close_matches(span, REPAIRS, cutoff=0.8) == []


@each_page
def test_the_key_that_is_shown_loads_with_its_repairs(page: str, tmp_path: Path) -> None:
    for client in CLIENTS:
        (block,) = fences(section_of(page, client), "toml")
        text = completed(block)
        (key,) = surroundings_of(text, tmp_path).load(text).access.keys

        assert key.name == client.lower().replace(" ", "-")
        assert [*key.repairs] == key_of(page, client)["repairs"], client


# --- the pages


@each_page
def test_every_client_has_its_section_in_the_same_order(page: str) -> None:
    sections = [words for marks, words in headings(page) if marks == "##"]

    assert tuple(sections[1:]) == CLIENTS


def test_both_languages_have_the_same_headings_blocks_and_names() -> None:
    english, chinese = PAGES

    assert [marks for marks, _ in headings(english)] == [marks for marks, _ in headings(chinese)]
    assert FENCE.findall(DOCUMENTS[english]) == FENCE.findall(DOCUMENTS[chinese])
    for client in CLIENTS:
        first, second = (section_of(page, client) for page in PAGES)
        assert repairs_in_tables(first) == repairs_in_tables(second)
        assert len(rows(first)) == len(rows(second))
        assert sorted(CODE.findall(FENCE.sub("", first))) == sorted(CODE.findall(FENCE.sub("", second)))


@each_page
def test_a_form_is_explained_label_by_label(page: str) -> None:
    for client in WITH_FORM:
        form = first_table(section_of(page, client))

        assert sum("**" in label for label, _ in form) >= 4, client
        (address,) = [value for label, value in form if CODE.match(value) and LABEL_OF_URL.search(label)]
        assert address.startswith("`http://HOST:5002"), client


@each_page
def test_the_python_block_is_python(page: str) -> None:
    (block,) = fences(DOCUMENTS[page], "python")

    compile(block, page, "exec")


@each_page
def test_no_line_is_too_long(page: str) -> None:
    """A paragraph in Chinese is one line, because browsers show the end of a line as a space."""
    lines = [line for line in DOCUMENTS[page].splitlines() if not re.search("[一-鿿]", line)]
    assert [line for line in lines if len(line) > WIDTH] == []

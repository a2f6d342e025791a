"""The Markdown documents, and functions that find their parts."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in (ROOT, ROOT / "docs", ROOT / "docs/performance")
    for path in sorted(folder.glob("*.md"))
}
"""The documents by their paths from the root."""
CHINESE: Final = ".zh-CN.md"


def in_both_languages(page: str) -> tuple[str, str]:
    """Return the English and the Chinese document."""
    return f"{page}.md", f"{page}{CHINESE}"


READMES: Final = in_both_languages("README")
INDEXES: Final = in_both_languages("docs/README")
REFERENCES: Final = in_both_languages("docs/configuration")
MIGRATIONS: Final = in_both_languages("docs/flask-migration")

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
REFERENCE: Final = re.compile(r"^\[[^\]\n]+\]: (\S+)$", re.MULTILINE)
IMAGE: Final = re.compile(r"(?:src|srcset)=\"([^\"]+)\"|!\[[^\]\n]*\]\(([^)\s]+)\)")
NAMED_TESTS: Final = re.compile(r"<!-- tests: ([^>]*) -->")
TABLE: Final = re.compile(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)

each_readme = pytest.mark.parametrize("name", READMES)
each_index = pytest.mark.parametrize("name", INDEXES)
each_reference = pytest.mark.parametrize("name", REFERENCES)


def fences(text: str, language: str) -> list[str]:
    """Return the code blocks in one language."""
    return [body for of, body in FENCE.findall(text) if of == language]


def commands(text: str) -> str:
    """Return all code: the blocks, and the spans as one line each."""
    blocks = [body for _, body in FENCE.findall(text)]
    return "\n".join([*blocks, *CODE.findall(FENCE.sub("", text))])


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row below its heading."""
    lines = "".join(TABLE.findall(text)).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings by GitHub's rule."""
    plain = (heading.lower() for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def below(text: str, heading: str) -> str:
    """Return the text below the heading with this beginning, up to the next heading of any level."""
    (after,) = re.findall(rf"^#+ {re.escape(heading)}.*\n((?:(?!#).*\n)*)", FENCE.sub("", text), re.MULTILINE)
    return str(after)


def images(text: str) -> list[str]:
    """Return the files of the images, relative to the document."""
    return [html or markdown for html, markdown in IMAGE.findall(FENCE.sub("", text))]


def first_table(text: str) -> list[list[str]]:
    """Return the rows of the first table."""
    table = TABLE.search(text)
    return rows(table[0]) if table else []


def translation_of(name: str) -> str:
    """Return the same document in the other language."""
    return name.replace(CHINESE, ".md") if name.endswith(CHINESE) else name.replace(".md", CHINESE)

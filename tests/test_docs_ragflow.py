"""docs/ragflow*.md: the pictures agree with the page and with the output of the program."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.documents import CODE, DOCUMENTS, ROOT, first_table, images, in_both_languages
from tests.pictures import ragflow
from tests.pictures.drawing import texts

PAGES: Final = dict(zip(ragflow.LANGUAGES, in_both_languages("docs/ragflow"), strict=True))
NUMBER: Final = re.compile(r"\d+(\.\d+)?")

each_language = pytest.mark.parametrize("language", ragflow.LANGUAGES)


def picture(name: str) -> str:
    return (ROOT / "docs/images" / name).read_text(encoding="utf-8")


def masked(lines: list[str]) -> str:
    """Return a text without spaces, at which pictures break lines, and without numbers, which differ."""
    return NUMBER.sub("0", "".join("".join(lines).split()))


@each_language
def test_the_page_shows_its_pictures(language: str) -> None:
    named = [f"images/ragflow-{kind}{language}" for kind in ("form", "doctor", "status")]

    assert {*images(DOCUMENTS[PAGES[language]])} == {
        f"{named[0]}.svg", f"{named[1]}.svg", f"{named[2]}.png", "images/ragflow-log.svg"
    }  # fmt: skip


@each_language
def test_the_form_is_filled_in_as_the_table_says(language: str) -> None:
    shown = texts(picture(f"ragflow-form{language}.svg"))
    columns = zip(*(row[1:] for row in first_table(DOCUMENTS[PAGES[language]])), strict=True)
    chat, embedding = ([(CODE.findall(cell) or [""])[-1] for cell in column] for column in columns)

    assert shown == texts(ragflow.draw_forms(language))
    for values in (chat, embedding):
        assert {value for value in values if value} <= {*shown}


@each_language
async def test_doctor_prints_what_its_picture_shows(language: str, tmp_path: Path) -> None:
    async with ragflow.service(tmp_path) as url:
        session = await ragflow.doctor(url, language)

    assert masked(texts(picture(f"ragflow-doctor{language}.svg"))) == masked(session.splitlines())


async def test_a_request_is_logged_with_the_fields_of_the_picture(tmp_path: Path) -> None:
    shown = json.loads("".join(texts(picture("ragflow-log.svg"))))
    async with ragflow.service(tmp_path) as url:
        line = json.loads(await ragflow.request_line(url))

    assert [*line] == [*shown]
    for field in ("event", "caller", "path", "status", "outcome", "model", "upstream"):
        assert line[field] == shown[field]

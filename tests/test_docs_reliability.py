"""Every fault in the reliability tables names tests that exist, the same ones in both languages."""

import re
from typing import Final

import pytest

from tests.documents import DOCUMENTS, ROOT, in_both_languages, rows

PAGES: Final = in_both_languages("docs/reliability")
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
FAULTS_MIN: Final = 66


def faults(page: str) -> list[list[str]]:
    """The rows of the tables of faults; those of figures have another shape."""
    return [row for row in rows(DOCUMENTS[page]) if len(row) == 3]


@pytest.mark.parametrize("page", PAGES)
def test_every_fault_names_tests_that_exist(page: str) -> None:
    assert len(faults(page)) >= FAULTS_MIN
    for what, outcome, tests in faults(page):
        assert what
        assert outcome
        named = TEST.findall(tests)
        assert named, f"{what}: no test is named"
        for path, function in named:
            assert re.search(rf"\bdef {function}\(", (ROOT / path).read_text()), f"{what}: {path}::{function}"


def test_both_languages_name_the_same_tests() -> None:
    english, chinese = (TEST.findall(DOCUMENTS[page]) for page in PAGES)
    assert english == chinese

"""Every fault in the reliability tables names tests that exist, the same ones in both languages."""

import re
from typing import Final

import pytest

from tests.documents import DOCUMENTS, ROOT, in_both_languages, rows

PAGES: Final = in_both_languages("docs/reliability")
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
FAULTS_MIN: Final = 66
WITH_TWO_WORKERS_MIN: Final = 52
WITH_TWO_WORKERS: Final = "tests/integration/test_worker_faults.py"
UNAFFECTED: Final = "–"
"""The mark of a row whose result does not depend on the number of workers."""


def faults(page: str) -> list[list[str]]:
    """Return the rows of the tables of faults; tables of figures have another shape."""
    return [row for row in rows(DOCUMENTS[page]) if "tests/" in row[2]]


def check_tests(what: str, cell: str) -> None:
    """Fail if a cell names no test, or one that does not exist."""
    named = TEST.findall(cell)
    assert named, f"{what}: no test is named"
    for path, function in named:
        assert re.search(rf"\bdef {function}\(", (ROOT / path).read_text()), f"{what}: {path}::{function}"


@pytest.mark.parametrize("page", PAGES)
def test_every_fault_names_tests_that_exist(page: str) -> None:
    assert len(faults(page)) >= FAULTS_MIN
    for what, outcome, tests, _ in faults(page):
        assert what
        assert outcome
        check_tests(what, tests)


@pytest.mark.parametrize("page", PAGES)
def test_faults_name_tests_with_two_workers_or_do_not_depend_on_them(page: str) -> None:
    affected = {what: tests for what, _, _, tests in faults(page) if tests != UNAFFECTED}
    assert len(affected) >= WITH_TWO_WORKERS_MIN
    for what, tests in affected.items():
        check_tests(what, tests)


def test_each_fault_that_two_workers_meet_is_in_the_tables() -> None:
    tests = re.findall(r"(?m)^async def (test_\w+)\(", (ROOT / WITH_TWO_WORKERS).read_text())
    cells = "".join(tests for _, _, _, tests in faults(PAGES[0]))
    named = {function for path, function in TEST.findall(cells) if path == WITH_TWO_WORKERS}
    assert named == {*tests}


def test_both_languages_name_the_same_tests() -> None:
    english, chinese = (TEST.findall(DOCUMENTS[page]) for page in PAGES)
    assert english == chinese

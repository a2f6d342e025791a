"""Every guarantee of SECURITY.md names tests that exist, and the Chinese page gives as many."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]


def guarantees_of(page: str, heading: str, next_heading: str) -> list[str]:
    """Return the paragraphs below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    blocks = text.partition(f"\n## {next_heading}\n")[0].split("\n\n")
    return [block for block in blocks if block.strip() and not block.lstrip().startswith("#")]


GUARANTEES: Final = guarantees_of("SECURITY.md", "Guarantees", "Not guarded")
IN_CHINESE: Final = guarantees_of("SECURITY.zh-CN.md", "保证", "不在防护之内")
_TESTS: Final = re.compile(r"<!-- tests: ([^>]*) -->\s*$")


def named_tests(block: str) -> list[str]:
    """Return the tests that a guarantee names."""
    found = _TESTS.search(block)
    return [] if found is None else [name.strip() for name in found[1].split(",")]


@pytest.mark.parametrize("block", GUARANTEES, ids=lambda block: block[:30].strip())
def test_a_guarantee_names_tests_that_exist(block: str) -> None:
    names = named_tests(block)
    assert names, "no test is named"
    for name in names:
        path, _, function = name.partition("::")
        source = (ROOT / path).read_text()
        assert not function or re.search(rf"\bdef {re.escape(function)}\(", source), name


def test_both_languages_give_the_same_number_of_guarantees() -> None:
    assert len(IN_CHINESE) == len(GUARANTEES) > 20

"""Every guarantee of SECURITY.md names tests that exist."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "SECURITY.md").read_text()
GUARANTEES: Final = [
    block
    for block in TEXT.partition("## Guarantees")[2].partition("## Not guarded")[0].split("\n\n")
    if block.strip() and not block.lstrip().startswith("#")
]
_TESTS: Final = re.compile(r"<!-- tests: ([^>]*) -->\s*$")


def named_tests(block: str) -> list[str]:
    """The tests that a guarantee names."""
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

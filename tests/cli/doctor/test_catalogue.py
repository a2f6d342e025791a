"""The words of the findings: complete in both languages, and with the same values."""

import re
import string
from pathlib import Path

import pytest

from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Level
from proxy.transport_failure import FailureKind

CODE = Path(__file__).parents[3] / "proxy/cli/doctor"
HAN = re.compile(r"[\u4e00-\u9fff]")


def fields(texts: tuple[str, ...]) -> set[str]:
    """Return the placeholders of some texts."""
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", CATALOGUE)
def test_both_languages_say_the_same(name: str) -> None:
    entry = CATALOGUE[name]
    for language in (entry.english, entry.chinese):
        parts = language if entry.level is not Level.OK else language[:1]
        assert all(parts)
    assert not HAN.search("".join(entry.english))
    assert HAN.search(entry.chinese.happened) or entry.chinese.happened.startswith("{")
    if name not in {*FailureKind}:  # whose English words come from the transport's explanation
        assert fields(entry.english) == fields(entry.chinese)


def test_every_connection_failure_has_a_message() -> None:
    assert {*FailureKind} <= CATALOGUE.keys()


def test_every_finding_is_used_and_every_used_one_exists() -> None:
    code = "".join(path.read_text() for path in CODE.glob("*.py") if path.name != "catalogue.py")
    quoted = {*re.findall(r'"([a-z0-9_]+)"', code)}
    assert CATALOGUE.keys() - quoted - {*FailureKind} == set()

"""Findings: their words with values that come from a server."""

from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.findings import Entry, Finding, Level, clean


def test_values_are_cleaned() -> None:
    entry = Entry(Level.OK, *[CATALOGUE["name_found"].english] * 2)
    finding = Finding("name_found", "url", {"host": "a\x1b[31m\u202eb{x}", "addresses": "1" * 500})
    assert finding.words(entry, "en").happened == f"a [31m b{{x}} is {'1' * 200}..."
    assert clean("a\nb") == "a b"

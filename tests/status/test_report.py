"""The report of a worker: it reaches the other workers unchanged."""

from msgspec.structs import replace

from proxy.status.report import decode, encode
from tests.browser.scripted_status import STATES


def test_reports_are_unchanged_between_workers() -> None:
    for report in STATES.values():
        assert decode(encode(report)) == replace(report)
    assert encode(None) == b""

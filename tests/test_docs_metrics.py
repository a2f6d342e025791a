"""Every metric and every alert is documented, in both languages."""

import re
from typing import Final

import pytest

from proxy.telemetry import Metrics
from tests.documents import CODE, DOCUMENTS, ROOT, in_both_languages, rows

PAGES: Final = in_both_languages("docs/metrics")
ALERT: Final = re.compile(r"- alert: (\w+)\n.*?labels: {severity: (\w+)}", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_has_a_row(page: str) -> None:
    exported = re.findall(r"^# TYPE (llm_proxy_\w+) ", Metrics(list).render()[0].decode(), re.MULTILINE)
    table = [row for row in rows(DOCUMENTS[page]) if len(row) == 3 and row[0].startswith("`llm_proxy_")]
    documented = [name for row in table for name in CODE.findall(row[0])]
    assert sorted(documented) == sorted(exported)


@pytest.mark.parametrize("page", PAGES)
def test_every_alert_has_a_row(page: str) -> None:
    alerts = ALERT.findall((ROOT / "config/prometheus/alerts.yml").read_text())
    table = [row for row in rows(DOCUMENTS[page]) if row[0].startswith("`LlmProxy")]
    assert [(row[0].strip("`"), row[2]) for row in table] == alerts

"""Totals of usage: tokens are added up, and the number of model names is limited."""

from proxy.telemetry import Metrics, UsageTotals
from proxy.telemetry.readings import MODELS_MAX, OTHER_MODEL, UsageKey


def test_usage_adds_up_by_caller_model_and_upstream() -> None:
    totals = UsageTotals()
    totals.add("ragflow", "gpt-4o", "chat", 10, 5)
    totals.add("ragflow", "gpt-4o", "chat", 1, 2)
    totals.add("batch", "gpt-4o", "chat", 7, 0)
    assert dict(totals) == {
        UsageKey("ragflow", "gpt-4o", "chat"): (11, 7),
        UsageKey("batch", "gpt-4o", "chat"): (7, 0),
    }


def test_the_number_of_invented_names_is_bounded() -> None:
    totals = UsageTotals()
    for number in range(MODELS_MAX + 100):
        totals.add("c", f"model-{number}", "u", 1, 1)
    totals.add("c", "model-0", "u", 1, 1)  # A known model is still counted by its name.
    found = dict(totals)
    assert len(found) == MODELS_MAX + 1
    assert found[UsageKey("c", OTHER_MODEL, "u")] == (100, 100)
    assert found[UsageKey("c", "model-0", "u")] == (2, 2)


def test_long_and_unprintable_names_are_no_labels() -> None:
    totals = UsageTotals()
    for model in ("x" * 129, "x" * (2 << 20), "a\x1b[2J", "a\u202eb", "a\nb"):
        totals.add("c", model, "u", 1, 1)
    assert dict(totals) == {UsageKey("c", OTHER_MODEL, "u"): (5, 5)}


def test_they_are_in_the_metrics() -> None:
    totals = UsageTotals()
    totals.add("ragflow", "gpt-4o", "chat", 10, 5)
    text = Metrics(list, totals).render()[0].decode()
    labels = 'caller="ragflow",kind="{}",model="gpt-4o",upstream="chat"'
    assert f"llm_proxy_tokens_total{{{labels.format('prompt')}}} 10.0" in text
    assert f"llm_proxy_tokens_total{{{labels.format('completion')}}} 5.0" in text

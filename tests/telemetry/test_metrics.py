"""Metrics: every number has a name, every credential its series, and no series shows a secret."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import Metrics, TokenReading, TokenStats

STATS = TokenStats(
    served_fresh=11, served_stale=12, waits=13, wait_seconds=1.4, fetches=25, fetches_failed_passing=6,
    fetches_failed_permanent=7, fetch_seconds=1.8, rejections=19, rejections_without_effect=20, adopted=21,
    lease_wait_seconds=2.2, store_errors=23, early_deaths=24,
)  # fmt: skip
READING = TokenReading("corp", "stale", 42.5, 299.5, 3, 4, 5.5, 8.25, STATS)


def samples(readings: list[TokenReading]) -> dict[tuple[str, ...], float]:
    """Return the samples of tokens by name and labels."""
    text, content_type = Metrics(lambda: readings).render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("llm_proxy_token_")
    }


def test_a_credential_has_all_its_numbers() -> None:
    found = samples([READING])
    prefix = "llm_proxy_token_"
    assert found == {
        (f"{prefix}state", "corp", "empty"): 0,
        (f"{prefix}state", "corp", "fresh"): 0,
        (f"{prefix}state", "corp", "stale"): 1,
        (f"{prefix}state", "corp", "expired"): 0,
        (f"{prefix}state", "corp", "suspect"): 0,
        (f"{prefix}remaining_seconds", "corp"): 42.5,
        (f"{prefix}lifetime_seconds", "corp"): 299.5,
        (f"{prefix}generation", "corp"): 3,
        (f"{prefix}waiters", "corp"): 4,
        (f"{prefix}backoff_seconds", "corp"): 5.5,
        (f"{prefix}learned_life_seconds", "corp"): 8.25,
        (f"{prefix}served_total", "corp", "fresh"): 11,
        (f"{prefix}served_total", "corp", "stale"): 12,
        (f"{prefix}fetch_total", "corp", "ok"): 12,
        (f"{prefix}fetch_total", "corp", "failed_passing"): 6,
        (f"{prefix}fetch_total", "corp", "failed_permanent"): 7,
        (f"{prefix}invalidations_total", "corp", "true"): 19,
        (f"{prefix}invalidations_total", "corp", "false"): 20,
        (f"{prefix}adopted_total", "corp"): 21,
        (f"{prefix}early_deaths_total", "corp"): 24,
        (f"{prefix}store_errors_total", "corp"): 23,
        (f"{prefix}lease_wait_seconds_total", "corp"): 2.2,
        (f"{prefix}fetch_seconds_count", "corp"): 25,
        (f"{prefix}fetch_seconds_sum", "corp"): 1.8,
        (f"{prefix}wait_seconds_count", "corp"): 13,
        (f"{prefix}wait_seconds_sum", "corp"): 1.4,
    }


def test_every_counter_has_a_metric() -> None:
    before = samples([READING])
    for field in msgspec.structs.fields(TokenStats):
        changed = msgspec.structs.replace(STATS)
        setattr(changed, field.name, getattr(STATS, field.name) + 1)
        assert samples([READING._replace(counts=changed)]) != before, field.name


def test_several_credentials_are_listed_together() -> None:
    found = samples([READING, READING._replace(credential="other", generation=9)])
    assert found["llm_proxy_token_generation", "corp"] == 3
    assert found["llm_proxy_token_generation", "other"] == 9


def test_two_workers_in_one_process_do_not_share_their_numbers() -> None:
    assert samples([READING]) == samples([READING])

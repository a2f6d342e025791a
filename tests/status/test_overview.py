"""The overview: the sum of the reports of all workers, and the differences between them."""

from msgspec.structs import replace

from proxy.status.overview import CALLERS_SHOWN, PROBLEMS_SHOWN, merge
from proxy.status.page import parts
from proxy.status.words import CHINESE, ENGLISH
from proxy.telemetry.traffic import CallerTraffic, MinuteReading
from tests.browser.scripted_status import (
    AT,
    CIRCUIT_OPEN,
    EMPTY,
    EXPIRED,
    loaded,
    problem,
    traffic,
)

MINUTE = int(AT / 60)


def test_counts_of_workers_are_added() -> None:
    one, two = merge([loaded()], 1), merge([loaded(), loaded()], 2)
    assert two.streams == 2 * one.streams
    assert two.running == 2 * one.running
    assert two.rate == 2 * one.rate > 0
    assert two.totals == {result: 2 * count for result, count in one.totals.items()}
    assert [row.last_hour for row in two.callers] == [2 * row.last_hour for row in one.callers]
    assert two.recent_first_events == one.recent_first_events
    assert two.upstreams[0].attempts == {"2xx": 2 * 24_110, "4xx": 2 * 31}


def test_workers_that_do_not_report_are_counted() -> None:
    overview = merge([loaded()], 3)
    assert (overview.workers, overview.silent) == (3, 2)
    assert "2 of 3 workers did not report" in parts(overview, ENGLISH, 0.0)["summary"]


def test_callers_that_nginx_serves_are_shown_although_their_requests_are_not_counted() -> None:
    served = replace(EMPTY, offloaded={"indexer": 3})
    overview = merge([EMPTY, served], 2)
    assert [(row.name, row.last_hour, row.offloaded) for row in overview.callers] == [("indexer", 0, True)]
    html = parts(overview, ENGLISH, 0.0)["callers"]
    assert 'indexer <span class="quiet">+ nginx</span>' in html
    assert "they are in its log, not here" in html
    assert "nginx" not in parts(merge([EMPTY], 1), ENGLISH, 0.0)["callers"]


def test_a_circuit_that_is_open_in_one_worker_is_shown() -> None:
    overview = merge([loaded(), CIRCUIT_OPEN], 2)
    assert overview.upstreams[0].circuits == {"closed": 1, "opened": 1}
    html = parts(overview, ENGLISH, 0.0)["upstreams"]
    assert "Circuit open in 1 of 2 workers" in html
    assert "Circuit closed in 1 of 2 workers" in html


def test_a_credential_is_that_of_the_worker_whose_token_ends_first() -> None:
    overview = merge([loaded(), EXPIRED], 2)
    assert [reading.credential for reading in overview.credentials] == ["corp", "embed", "static", "new"]
    assert overview.credentials[0].state == "expired"


def test_it_is_ready_only_if_all_workers_are() -> None:
    assert "Not ready" in parts(merge([loaded(), EXPIRED], 2), ENGLISH, 0.0)["summary"]
    assert "未就绪" in parts(merge([EXPIRED], 1), CHINESE, 0.0)["summary"]


def test_callers_and_problems_are_limited() -> None:
    callers = {
        f"caller-{number}": CallerTraffic(1, {"ok": number + 1}) for number in range(CALLERS_SHOWN + 7)
    }
    many = [problem(number, "failed", "upstream_timeout", 504) for number in range(2 * PROBLEMS_SHOWN)]
    overview = merge([replace(EMPTY, traffic=traffic({}, callers, {}, *many))], 1)
    assert len(overview.callers) == CALLERS_SHOWN
    assert overview.callers[0].name == f"caller-{CALLERS_SHOWN + 6}"
    assert "7 more callers are not shown." in parts(overview, ENGLISH, 0.0)["callers"]
    assert len(overview.problems) == PROBLEMS_SHOWN
    assert overview.problems[0] == many[0]


def test_the_oldest_minute_is_an_hour_ago_and_the_last_is_in_progress() -> None:
    counts = {number: MinuteReading({"ok": 1}, {}) for number in range(MINUTE - 80, MINUTE + 1)}
    overview = merge([replace(EMPTY, traffic=traffic(counts, {}, {}))], 1)
    assert len(overview.results) == 60
    assert overview.totals["ok"] == 60

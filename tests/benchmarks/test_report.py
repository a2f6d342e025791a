"""Runs: ratios, what CI accepts, tables, and keeping a run."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import parse_arguments
from tests.benchmarks.bars import BARS, verdicts
from tests.benchmarks.peers import PEERS
from tests.benchmarks.picture import draw
from tests.benchmarks.report import Report, Row, summarize
from tests.benchmarks.rounds import Round
from tests.benchmarks.scenarios import build_scenarios
from tests.benchmarks.systems import SYSTEMS
from tests.benchmarks.tables import number, render_report, render_summary
from tests.benchmarks.words import ENGLISH, LANGUAGES, Words

MACHINE = {"machine": "a CPU", "system": "Linux", "versions": "quart 1", "commit": "abc"}


def costs(*values: float) -> list[Round]:
    return [Round({"cpu_us": value, "p99_ms": 1.0}) for value in values]


def chat_rows(service: float = 30.0) -> list[Row]:
    measured = {"nginx": costs(1, 2, 4), "floor": costs(20, 20, 20), "proxy": costs(service, 60, 40)}
    return summarize("chat", measured)


def run(*rows: Row) -> Report:
    return Report("2026-11-26", 3, MACHINE, [*rows])


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    _, _, proxy = chat_rows()
    assert proxy.figures["x_nginx"].median == 30
    assert proxy.figures["x_floor"].median == 2
    assert (proxy.figures["cpu_us"].lowest, proxy.figures["cpu_us"].highest) == (30, 60)


def test_a_system_that_fails_leaves_the_others_comparable() -> None:
    failed = [Round({}, Counter({"not measured": 1}))]
    nginx, proxy = summarize("chat", {"nginx": costs(1, 2), "proxy": failed})
    assert (nginx.figures["x_nginx"].median, proxy.figures, proxy.failed) == (1, {}, 1)
    nginx, proxy = summarize("chat", {"nginx": failed, "proxy": costs(1, 2)})
    assert "x_nginx" not in proxy.figures


def test_a_kept_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = run(*chat_rows())
    report.save(tmp_path / "run.json")
    assert Report.load(tmp_path / "run.json") == report


@pytest.mark.parametrize("words", LANGUAGES)
def test_every_measurement_has_a_description(words: Words) -> None:
    assert {*words.scenarios} == {*build_scenarios(), "token"}
    assert {*words.systems} == {*SYSTEMS, *PEERS}
    assert words.figures.keys() == ENGLISH.figures.keys()


def test_the_table_shows_failures_only_if_there_are_any() -> None:
    assert "failed" not in render_report(run(*chat_rows()))
    bad = summarize("chat", {"proxy": [Round({"cpu_us": 1.0}, Counter(altered=2))]})
    assert "| altered 2 |" in render_report(run(*bad))


def test_the_short_table_shows_figures_with_their_ratios() -> None:
    table = render_summary(run(*chat_rows()), ENGLISH)
    assert "| **this service** | 40, 30× |" in table


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12"), (1.26, "1.3"), (12.34, "12.3"), (123.4, "123"), (9007.2, "9007")]
)
def test_figures_have_a_sensible_number_of_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_ci_rejects_high_ratios_failures_and_missing_figures() -> None:
    paced = summarize("paced-500x30", {"nginx": costs(10), "proxy": costs(60)})
    start = summarize("start", {"proxy": [Round({"idle_mb": 73.4})]})
    assert verdicts(run(*chat_rows(), *paced, *start)) == []
    slow = summarize("paced-500x30", {"nginx": costs(10), "proxy": costs(10 * BARS[1].highest + 1)})
    assert "over" in verdicts(run(*chat_rows(), *slow, *start))[0]
    large = summarize("start", {"proxy": [Round({"idle_mb": 88.4})]})
    assert verdicts(run(*chat_rows(), *paced, *large)) == ["start: idle_mb is 88.40, over 80"]
    assert "not measured" in verdicts(run(*chat_rows(), *start))[0]
    failed = summarize("open", {"proxy": [Round({}, Counter(lost=1))]})
    assert "failed" in verdicts(run(*chat_rows(), *paced, *start, *failed))[0]


def test_the_command_line_chooses_rows_and_scenarios_in_the_order_of_the_table() -> None:
    options = parse_arguments(["--rows", "proxy", "nginx", "--only", "burst", "chat"])
    assert (options.rows, options.only, options.rounds) == (["nginx", "proxy"], ["chat", "burst"], 5)
    assert parse_arguments(["--check"]).only == ["chat", "paced-500x30", "start"]
    assert parse_arguments(["--quick"]).rows == ["nginx", "floor", "proxy"]
    assert "litellm" in parse_arguments(["--peers"]).rows


@pytest.mark.parametrize("words", LANGUAGES)
def test_the_picture_names_the_figures_and_differs_by_its_colours_only(tmp_path: Path, words: Words) -> None:
    pictures = []
    for theme in ("light", "dark"):
        draw(run(*chat_rows()), words, theme, tmp_path / f"{theme}.svg")
        pictures.append((tmp_path / f"{theme}.svg").read_text())
    assert "40 µs" in pictures[0]
    assert pictures[0] != pictures[1]
    plain = [re.sub(r"#[0-9a-f]{6}\b", "", picture) for picture in pictures]
    assert plain[0] == plain[1]

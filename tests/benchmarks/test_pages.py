"""The pages show the runs that are kept, and quote no other figure."""

import re
from typing import Final

import pytest

from tests.benchmarks.pages import FOLDER, PAGES, fill, kept_curve, kept_runs, page_of, without_figures
from tests.benchmarks.picture import PANELS, THEMES
from tests.benchmarks.report import Curve, Report
from tests.benchmarks.tables import number, render_curve, render_report
from tests.benchmarks.words import LANGUAGES, Words

QUOTED: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?(?:µs|ms|MB|KiB|×|times|倍)")
SPEED: Final = re.compile(r"^## (?:Speed|性能)\n(.*?)^## ", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("words", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_the_tables_match_the_kept_runs(name: str, words: Words) -> None:
    text = page_of(name, words).read_text(encoding="utf-8")
    assert text == fill(text, kept_runs(), kept_curve(), words)
    assert "<!-- figures: " in text


@pytest.mark.parametrize("words", LANGUAGES)
def test_the_readme_quotes_only_figures_of_the_kept_runs(words: Words) -> None:
    (section,) = SPEED.findall(page_of("README", words).read_text(encoding="utf-8"))
    tables = "\n".join(render_report(run, words) for run in kept_runs().values())
    known = {*re.findall(r"\d+(?:\.\d+)?", tables)}
    assert {*QUOTED.findall(without_figures(section))} <= known


@pytest.mark.parametrize("words", LANGUAGES)
@pytest.mark.parametrize("theme", THEMES)
def test_the_picture_of_open_streams_is_there(theme: str, words: Words) -> None:
    suffix = words.suffix.removesuffix(".md")
    picture = (FOLDER / f"scale-{theme}{suffix}.svg").read_text(encoding="utf-8")
    assert [label for label in (*words.axes, *words.workers) if label not in picture] == []


@pytest.mark.parametrize("words", LANGUAGES)
@pytest.mark.parametrize("theme", THEMES)
def test_the_pictures_show_the_kept_runs(theme: str, words: Words) -> None:
    for name, run in kept_runs().items():
        picture = (FOLDER / f"{name}-{theme}{words.suffix.removesuffix('.md')}.svg").read_text(
            encoding="utf-8"
        )
        costs = [row.figures["cpu_us"].median for panel in PANELS for row in run.of(panel) if row.figures]
        assert [cost for cost in costs if f"{number(cost)} µs" not in picture] == []


@pytest.mark.parametrize("words", LANGUAGES)
def test_a_kept_run_names_its_machine_versions_date_and_commit(words: Words) -> None:
    kept: list[tuple[Report | Curve, str]] = [
        (run, render_report(run, words)) for run in kept_runs().values()
    ]
    curve = kept_curve()
    kept.append((curve, render_curve(curve, words)))
    for run, text in kept:
        for fact in (run.date, *run.machine.values()):
            assert fact in text
        assert re.fullmatch("[0-9a-f]{7,}", run.machine["commit"])

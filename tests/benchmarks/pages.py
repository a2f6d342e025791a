"""Runs that are kept in docs/performance/, and the tables and pictures made of them.

`python -m tests.benchmarks.pages` makes them again without measuring.
"""

import re
import sys
from pathlib import Path
from typing import Final

from tests.benchmarks.picture import THEMES, draw, draw_curve
from tests.benchmarks.process import REPOSITORY
from tests.benchmarks.report import Curve, Report
from tests.benchmarks.tables import (
    render_curve,
    render_machine_briefly,
    render_needs,
    render_report,
    render_summary,
)
from tests.benchmarks.words import LANGUAGES, Words

FOLDER: Final = REPOSITORY / "docs" / "performance"
RUNS: Final = ("bench", "peers")
PAGES: Final = ("README", "docs/performance/README", "docs/performance/scale")
_BLOCK: Final = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(?:.*?\n)??(<!-- end of figures -->)", re.DOTALL)
README_SYSTEMS: Final = ("nginx", "proxy", "lm-proxy", "litellm")


def kept_runs() -> dict[str, Report]:
    """Return the kept runs by name."""
    return {name: Report.load(FOLDER / f"{name}.json") for name in RUNS}


def kept_curve() -> Curve:
    """Return the run with growing numbers of streams."""
    return Curve.load(FOLDER / "scale.json")


def fill(text: str, runs: dict[str, Report], curve: Curve, words: Words) -> str:
    """Write the tables of the runs between the marks of a page."""
    peers = runs["peers"]
    tables = {
        **{name: render_report(run, words) for name, run in runs.items()},
        **{f"{name}-summary": render_summary(run, words) for name, run in runs.items()},
        "scale": render_curve(curve, words),
        "needs": render_needs(curve, words),
        "readme": "\n\n".join(
            [render_machine_briefly(peers, words), render_summary(peers, words, README_SYSTEMS)]
        ),
    }
    return _BLOCK.sub(lambda block: f"{block[1]}{tables[block[2]]}\n{block[3]}", text)


def without_figures(text: str) -> str:
    """Return a page without its tables."""
    return _BLOCK.sub("", text)


def page_of(name: str, words: Words) -> Path:
    """Return the file of a page in one language."""
    return REPOSITORY / f"{name}{words.suffix}"


def write_pages() -> None:
    """Fill all pages, and draw all pictures."""
    runs, curve = kept_runs(), kept_curve()
    for words in LANGUAGES:
        for name in PAGES:
            path = page_of(name, words)
            path.write_text(fill(path.read_text(encoding="utf-8"), runs, curve, words), encoding="utf-8")
        for name, run in runs.items():
            for theme in THEMES:
                suffix = words.suffix.removesuffix(".md")
                draw(run, words, theme, FOLDER / f"{name}-{theme}{suffix}.svg")
        for theme in THEMES:
            draw_curve(curve, words, theme, FOLDER / f"scale-{theme}{words.suffix.removesuffix('.md')}.svg")


def keep(report: Report, name: str) -> None:
    """Keep a run in place of the last one of its kind."""
    report.save(FOLDER / f"{name}.json")
    write_pages()


if __name__ == "__main__":
    write_pages()
    sys.exit(0)

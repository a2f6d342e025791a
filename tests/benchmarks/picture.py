"""The pictures of runs, light and dark: CPU time by system, and the cost of open streams."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.report import Curve, Report
from tests.benchmarks.tables import number
from tests.benchmarks.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: Final = ("chat", "burst", "paced-500x30")
THEMES: Final = {
    "light": {"text": "#1a2223", "ours": "#0a7a78", "others": "#b4bfbe"},
    "dark": {"text": "#e6ecec", "ours": "#3fb8b3", "others": "#57666a"},
}
OURS: Final = frozenset({"proxy", "uvicorn", "granian", "workers", "offload"})
WIDTH_INCHES: Final = 9.2
BAR_INCHES: Final = 0.3
HEAD_INCHES: Final = 0.9
CURVE_INCHES: Final = 3.2


def draw(report: Report, words: Words, theme: str, path: Path) -> None:
    """Draw the costs in a run."""
    colours = THEMES[theme]
    systems = [*dict.fromkeys(row.system for row in report.rows)][::-1]
    with _picture(theme, HEAD_INCHES + BAR_INCHES * len(systems), path) as figure:
        panels = [name for name in PANELS if report.of(name)]
        for place, scenario in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            _draw_panel(axes, report, scenario, systems, words, colours)
            if place:
                axes.set_yticklabels([])
        figure.subplots_adjust(
            left=0.28, right=0.97, wspace=0.12, top=1 - 0.5 / figure.get_figheight(), bottom=0.02
        )


def draw_curve(curve: Curve, words: Words, theme: str, path: Path) -> None:
    """Draw how CPU and memory grow with open streams."""
    colours = THEMES[theme]
    streams, *labels = words.axes
    with _picture(theme, CURVE_INCHES, path) as figure:
        for place, (label, field) in enumerate(zip(labels, ("cpu_percent", "memory_mb"), strict=True)):
            axes = figure.add_subplot(1, 2, place + 1)
            for workers, colour, name in zip((1, 2), ("ours", "others"), words.workers, strict=True):
                points = curve.of(workers)
                values = [getattr(point, field) for point in points]
                axes.plot(
                    [point.streams for point in points], values, "o-", color=colours[colour], markersize=3
                )
                axes.annotate(
                    name,
                    (points[-1].streams, values[-1]),
                    (-4, 6 if workers == 2 else -28),
                    textcoords="offset points",
                    ha="right",
                )
            axes.set_title(label, fontsize=9, loc="left", color=colours["text"])
            axes.set_xlabel(streams)
            axes.set_ylim(bottom=0)
            axes.tick_params(colors=colours["text"])
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["bottom", "left"]].set_color(colours["others"])
        figure.subplots_adjust(left=0.07, right=0.97, wspace=0.2, top=0.9, bottom=0.17)


@contextmanager
def _picture(theme: str, height_inches: float, path: Path) -> Iterator["Figure"]:
    """Yield an empty figure, and write it at the end. Text stays text, in the fonts of the reader."""
    import matplotlib as mpl  # takes a second, and the module is imported for its constants as well
    from matplotlib.figure import Figure

    colour = THEMES[theme]["text"]
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "bench",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": colour,
        "axes.labelcolor": colour,
        "axes.facecolor": "none",
        "ytick.color": colour,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # Our fonts only measure the text.
        figure = Figure((WIDTH_INCHES, height_inches))
        yield figure
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _draw_panel(
    axes: "Axes", report: Report, scenario: str, systems: list[str], words: Words, colours: dict[str, str]
) -> None:
    costs = [report.figure(scenario, system, "cpu_us") for system in systems]
    widths = [1.0 if cost is None else max(cost.median, 1.0) for cost in costs]
    fills = [colours["ours" if system in OURS else "others"] for system in systems]
    axes.barh(range(len(systems)), widths, color=fills, height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(1, max(widths) * 12)
    axes.set_yticks(range(len(systems)), [words.systems[system].replace("*", "") for system in systems])
    for place, (cost, width) in enumerate(zip(costs, widths, strict=True)):
        text = "–" if cost is None else f"{number(cost.median)} µs"
        axes.text(width * 1.15, place, text, va="center")
    axes.set_title(words.panels[scenario], fontsize=9, loc="left", color=colours["text"])
    axes.xaxis.set_visible(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)

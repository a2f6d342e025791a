"""Draws the panels of a Grafana dashboard as SVG, without Grafana."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

Points = Sequence[tuple[float, float]]
"""Seconds and values."""

UNIT_WIDTH: Final = 50
UNIT_HEIGHT: Final = 24
"""Pixels of one unit of Grafana's grid, which is 24 units wide."""
GAP: Final = 4
COLOURS: Final = ("#3274d9", "#56a64b", "#e0752d", "#a352cc", "#e02f44", "#1f9e9e", "#b8860b", "#6d6d6d")
LEGEND_MAX: Final = 6
STYLE: Final = (
    "text{font:11px sans-serif;fill:#3b3b3b}.t{font-weight:600;font-size:12px}.a{font-size:9px;fill:#888}"
    ".v{font-size:30px;font-weight:600;fill:#2b7a2b}.g{stroke:#e4e4e4}.p{fill:#fff;stroke:#d8d8d8}"
)


@dataclass(frozen=True)
class Series:
    """One line of a panel."""

    name: str
    points: Points


@dataclass
class Panel:
    """One panel with its data.

    Args:
        model: The panel in the dashboard's JSON.
        series: What its queries returned.
        span: The first and the last moment of the picture.
    """

    model: dict[str, Any]
    series: list[Series]
    span: tuple[float, float]
    _parts: list[str] = field(default_factory=list)

    def draw(self) -> str:
        """Return the panel as an SVG group."""
        grid = self.model["gridPos"]
        self.width, self.height = grid["w"] * UNIT_WIDTH - GAP, grid["h"] * UNIT_HEIGHT - GAP
        self._parts = [
            f'<g transform="translate({grid["x"] * UNIT_WIDTH},{grid["y"] * UNIT_HEIGHT})">',
            f'<rect class="p" width="{self.width}" height="{self.height}" rx="3"/>',
            f'<text class="t" x="8" y="17">{escape(self.model["title"])}</text>',
        ]
        if self.model["type"] == "stat":
            self._draw_value()
        else:
            self._draw_lines()
        return "".join([*self._parts, "</g>"])

    @property
    def _unit(self) -> str:
        return str(self.model["fieldConfig"]["defaults"]["unit"])

    def _draw_value(self) -> None:
        last = next((points[-1][1] for points in (s.points for s in self.series) if points), math.nan)
        middle = f'x="{self.width / 2:.0f}" y="{self.height / 2 + 22:.0f}" text-anchor="middle"'
        self._parts.append(f'<text class="v" {middle}>{written(last, self._unit)}</text>')

    def _draw_lines(self) -> None:
        custom = self.model["fieldConfig"]["defaults"]["custom"]
        is_stacked = "stacking" in custom
        lines = stacked(self.series) if is_stacked else self.series
        top = ceiling(max((value for line in lines for _, value in line.points), default=0.0))
        left, right, above, below = 46, self.width - 8, 28, self.height - 34
        for share in (0.0, 0.5, 1.0):
            y = below - share * (below - above)
            self._parts.append(f'<path class="g" d="M{left} {y:.0f}H{right}"/>')
            label = written(share * top, self._unit)
            self._parts.append(
                f'<text class="a" x="{left - 4}" y="{y + 3:.0f}" text-anchor="end">{label}</text>'
            )
        start, end = self.span
        for number, line in reversed([*enumerate(lines)]):
            colour = COLOURS[number % len(COLOURS)]
            xy = [
                (left + (at - start) / (end - start) * (right - left), below - value / top * (below - above))
                for at, value in line.points
            ]
            path = "L".join(f"{x:.0f} {y:.1f}" for x, y in xy)
            if path and is_stacked:
                area = f"M{path}L{xy[-1][0]:.0f} {below}L{xy[0][0]:.0f} {below}Z"
                self._parts.append(f'<path d="{area}" fill="{colour}"/>')
            elif path:
                self._parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        self._draw_legend(left, below + 24)

    def _draw_legend(self, x: float, y: float) -> None:
        for number, line in enumerate(self.series[:LEGEND_MAX]):
            colour = COLOURS[number % len(COLOURS)]
            self._parts.append(
                f'<rect x="{x:.0f}" y="{y - 7:.0f}" width="8" height="8" fill="{colour}"/>'
                f'<text class="a" x="{x + 11:.0f}" y="{y:.0f}">{escape(line.name)}</text>'
            )
            x += 20 + 5 * len(line.name)
            if x > self.width - 60:
                return


def stacked(series: Sequence[Series]) -> list[Series]:
    """Add the previous lines to each line."""
    totals: dict[float, float] = {}
    lines = []
    for line in series:
        for at, value in line.points:
            totals[at] = totals.get(at, 0.0) + value
        lines.append(Series(line.name, [(at, totals[at]) for at, _ in line.points]))
    return lines


def ceiling(value: float) -> float:
    """Return the next larger number of the form 1, 2 or 5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)


def written(value: float, unit: str) -> str:
    """Format a value in its unit."""
    if not math.isfinite(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "bytes":
        return f"{value / (1 << 20):.3g} MiB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    return f"{value:.3g}" + ("/s" if unit == "reqps" else "")


def draw(panels: Sequence[Panel]) -> str:
    """Return a picture of all panels."""
    height = max(p.model["gridPos"]["y"] + p.model["gridPos"]["h"] for p in panels) * UNIT_HEIGHT
    drawn = "\n".join(panel.draw() for panel in panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-6 -6 {24 * UNIT_WIDTH + 8} {height + 8}">'
        f"<style>{STYLE}</style>"
        f'<rect x="-6" y="-6" width="100%" height="100%" fill="#f4f5f5"/>\n{drawn}\n</svg>\n'
    )

"""Small charts as SVG, drawn by the service (pure). They scale; their texts are next to them, in HTML."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

from proxy.telemetry import TokenLife
from proxy.telemetry.traffic import RESULTS

WIDTH: Final = 600
HEIGHT: Final = 80
BAR_WIDTH: Final = 1000
BAR_HEIGHT: Final = 24
_BAR_TOP: Final = 6
_BAR_BODY: Final = 12
_HATCH: Final = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="back" width="5" height="5"/>'
    '<rect class="stripe" width="2.5" height="5"/></pattern></defs>'
)


def line_chart(lines: Mapping[str, Sequence[float | None]], label: str) -> str:
    """Draw lines that have a step for each value and a gap where there is none.

    Args:
        lines: The values by the class of the line, all equally many.
        label: What a screen reader says instead.
    """
    highest = max((value for line in lines.values() for value in line if value is not None), default=0.0)
    drawn = "".join(
        f'<path class="line {name}" d="{_steps(line, highest or 1.0)}"/>' for name, line in lines.items()
    )
    return _svg(WIDTH, HEIGHT, label, _floor() + drawn)


def stacked_chart(columns: Sequence[Mapping[str, int]], label: str) -> str:
    """Draw a column for each mapping of results to counts."""
    highest = max((sum(column.values()) for column in columns), default=0) or 1
    width = WIDTH / max(len(columns), 1)
    drawn = "".join(
        part for place, column in enumerate(columns) for part in _stack(column, place * width, width, highest)
    )
    return _svg(WIDTH, HEIGHT, label, _HATCH + _floor() + drawn)


def life_bar(life: TokenLife | None, label: str) -> str:
    """Draw the rest of a token's lifetime as a bar that shrinks to the left, and its two marks."""
    parts = [f'<rect class="track" y="{_BAR_TOP}" width="{BAR_WIDTH}" height="{_BAR_BODY}" rx="3"/>']
    if life is not None:
        parts.append(
            f'<rect class="left-over" y="{_BAR_TOP}" width="{_place(life.age, life.end):.1f}" '
            f'height="{_BAR_BODY}" rx="3"/>'
        )
        if math.isfinite(life.end):
            if life.refresh < life.expiry:
                parts.append(_mark("soft", _place(life.refresh, life.end)))
            parts.append(_mark("hard", _place(life.expiry, life.end)))
    return _svg(BAR_WIDTH, BAR_HEIGHT, label, "".join(parts))


def _place(age: float, end: float) -> float:
    """Return the x position of an age on a bar that shrinks to the left."""
    if not math.isfinite(end):
        return BAR_WIDTH
    return BAR_WIDTH * min(max(1 - age / end, 0.0), 1.0) if end > 0 else 0.0


def _mark(name: str, place: float) -> str:
    return f'<path class="mark {name}" d="M{place:.1f} 0V{BAR_HEIGHT}"/>'


def _steps(values: Sequence[float | None], highest: float) -> str:
    """Return the path of a line that is level for each value, and joins neighbours."""
    width = WIDTH / max(len(values), 1)
    path, place, is_joined = "", 0, False
    for value, equal in groupby(values):
        start, place = place, place + len([*equal])
        if value is not None:
            height = HEIGHT - 2 - (HEIGHT - 6) * value / highest
            path += f"V{height:.1f}" if is_joined else f"M{start * width:.1f} {height:.1f}"
            path += f"H{place * width:.1f}"
        is_joined = value is not None
    return path


def _stack(column: Mapping[str, int], left: float, width: float, highest: int) -> Iterator[str]:
    """Draw a column from the floor up; a result that occurred is at least two units high."""
    bottom = HEIGHT - 1.0
    for result in RESULTS:
        count = column.get(result, 0)
        if count:
            height = max((HEIGHT - 12) * count / highest, 2.0)
            bottom -= height
            yield (
                f'<rect class="{result}" x="{left + 1:.1f}" y="{bottom:.1f}" '
                f'width="{width - 2:.1f}" height="{height:.1f}"/>'
            )


def _floor() -> str:
    return f'<path class="floor" d="M0 {HEIGHT - 1}H{WIDTH}"/>'


def _svg(width: int, height: int, label: str, drawing: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{drawing}</svg>'
    )

"""The charts: lines with gaps, columns of results, and the bar of a token."""

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest

from proxy.status.charts import BAR_WIDTH, HEIGHT, WIDTH, life_bar, line_chart, stacked_chart
from proxy.telemetry import TokenLife


def parts(svg: str, tag: str) -> list[dict[str, str]]:
    """Return the attributes of each element of a kind, in order."""
    return [element.attrib for element in ET.fromstring(svg).iter(tag)]  # noqa: S314  our own


def line(values: Sequence[float | None]) -> str:
    """Return the path of a line."""
    (found,) = [
        path["d"] for path in parts(line_chart({"main": values}, "x"), "path") if "main" in path["class"]
    ]
    return found


def test_a_line_has_a_gap_where_there_is_no_value() -> None:
    path = line([1.0, None, 1.0, 2.0])
    assert path.count("M") == 2
    assert path.startswith("M0.0 ")
    assert path.endswith(f"H{WIDTH:.1f}")
    assert line([None, None]) == ""
    assert line([]) == ""


def test_equal_neighbours_are_one_stroke() -> None:
    assert line([0.0] * 150).count("H") == 1


@pytest.mark.parametrize("values", [[0.0, 5.0], [1e9, 1.0], [0.0, 0.0]])
def test_a_line_stays_inside_its_chart(values: list[float]) -> None:
    heights = [float(height) for height in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", line(values))]
    assert all(0 <= height <= HEIGHT for height in heights)
    assert heights.index(min(heights)) == values.index(max(values))  # the highest value is at the top


def test_results_are_stacked_from_the_floor_and_rare_ones_stay_visible() -> None:
    svg = stacked_chart([{"ok": 10_000, "failed": 1}, {}, {"rejected": 5_000}], "x")
    columns = [rect for rect in parts(svg, "rect") if rect["class"] in {"ok", "left", "rejected", "failed"}]
    assert [rect["class"] for rect in columns] == ["ok", "failed", "rejected"]
    answered, failed, rejected = columns
    assert float(failed["height"]) == 2.0
    assert float(failed["y"]) + float(failed["height"]) == pytest.approx(float(answered["y"]), abs=0.1)
    assert float(failed["y"]) >= 0
    assert float(rejected["x"]) > float(answered["x"]) + WIDTH / 3
    assert [rect["class"] for rect in parts(stacked_chart([], "x"), "rect")] == ["back", "stripe"]


def test_a_token_bar_shrinks_from_right_to_left_past_two_marks() -> None:
    svg = life_bar(TokenLife(age=120.0, refresh=200.0, expiry=290.0, end=300.0), "x")
    rest = [float(rect["width"]) for rect in parts(svg, "rect") if rect["class"] == "left-over"]
    assert rest == [pytest.approx(0.6 * BAR_WIDTH)]
    marks = {path["class"]: float(path["d"][1:].split()[0]) for path in parts(svg, "path")}
    assert marks["mark soft"] == pytest.approx(BAR_WIDTH / 3, abs=0.1)
    assert marks["mark hard"] == pytest.approx(BAR_WIDTH / 30, abs=0.1)


@pytest.mark.parametrize(
    ("life", "rest", "marks"),
    [
        (None, [], 0),
        (TokenLife(5.0, math.inf, math.inf, math.inf), [BAR_WIDTH], 0),
        (TokenLife(301.0, 200.0, 290.0, 300.0), [0.0], 2),
        (TokenLife(0.5, 1.8, 1.8, 1.9), [pytest.approx(0.737 * BAR_WIDTH, abs=1)], 1),  # not renewed ahead
    ],
)
def test_every_token_has_a_bar(life: TokenLife | None, rest: list[float], marks: int) -> None:
    svg = life_bar(life, "x")
    assert [float(rect["width"]) for rect in parts(svg, "rect") if rect["class"] == "left-over"] == rest
    assert len(parts(svg, "path")) == marks


def test_labels_are_text() -> None:
    label = '<b> & "x"'
    (svg,) = parts(line_chart({}, label), "svg")
    assert svg["aria-label"] == label

"""How the page writes durations."""

import math

import pytest

from proxy.status.words import CHINESE, ENGLISH

NO_BREAK = "\u00a0"


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0, "0 s", "0 秒"),
        (0.0123, "12 ms", "12 毫秒"),
        (0.85, "850 ms", "850 毫秒"),
        (3.04, "3.0 s", "3.0 秒"),
        (59.9, "59 s", "59 秒"),
        (60, "1 min", "1 分"),
        (192, "3 min 12 s", "3 分 12 秒"),
        (3600, "1 h", "1 小时"),
        (7500, "2 h 5 min", "2 小时 5 分"),
        (100_000, "1 d 3 h", "1 天 3 小时"),
        (math.inf, "∞", "∞"),
    ],
)
def test_a_duration_has_its_two_largest_units_on_one_line(seconds: float, english: str, chinese: str) -> None:
    assert ENGLISH.duration(seconds) == english.replace(" ", NO_BREAK)
    assert CHINESE.duration(seconds) == chinese.replace(" ", NO_BREAK)

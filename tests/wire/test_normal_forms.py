"""Unicode normal forms: as the standard defines them, and in linear time."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.normal_forms import MARKS_MAX, normalize
from tests.pace import paced

ACUTE, GRAVE_BELOW = "\u0301", "\u0316"
TIBETAN = "\u0f73"
"""Not a combining mark itself, but its decomposition consists of two."""


@given(st.text(alphabet=st.characters(), max_size=50).filter(lambda text: len(text) <= MARKS_MAX))
def test_ordinary_text_is_normalised_as_the_standard_says(text: str) -> None:
    assert normalize("NFC", text) == unicodedata.normalize("NFC", text)
    assert normalize("NFKC", text) == unicodedata.normalize("NFKC", text)


def test_marks_beyond_the_limit_are_dropped_and_later_ones_kept() -> None:
    text = "a" + ACUTE * (MARKS_MAX + 5) + "b" + ACUTE
    assert normalize("NFC", text) == unicodedata.normalize("NFC", "a" + ACUTE * MARKS_MAX + "b" + ACUTE)


@pytest.mark.parametrize(
    "text",
    [
        "a" + ACUTE * 50_000 + GRAVE_BELOW * 50_000,
        "a" + (ACUTE + GRAVE_BELOW) * 50_000,
        TIBETAN * 100_000,
        "\uff9e\u0301" * 50_000,
        "".join(map(chr, range(0xAC00, 0xD7A3))) * 9,
    ],
    ids=["two classes", "alternating", "decomposed", "half-width", "syllables"],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    start = time.process_time()
    normalize("NFC", text)
    normalize("NFKC", text)
    assert time.process_time() - start < paced(0.5)

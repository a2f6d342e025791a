"""The phrases of `init`: complete in both languages, and with the same places for values."""

import pytest

from proxy.cli.init_phrases import COMMENTS, TEXTS


@pytest.mark.parametrize("name", TEXTS)
def test_both_languages_have_the_same_indent_and_the_same_values(name: str) -> None:
    english, chinese = TEXTS[name]
    assert english != chinese
    assert english.strip()
    assert chinese.strip()
    assert english.count("{}") == chinese.count("{}")
    assert len(english) - len(english.lstrip()) == len(chinese) - len(chinese.lstrip())


def test_both_languages_have_every_comment() -> None:
    assert len(COMMENTS["en"]) == len(COMMENTS["zh"])
    assert all(len(set(pair)) == 2 for pair in zip(COMMENTS["en"], COMMENTS["zh"], strict=True))

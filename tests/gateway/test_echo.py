"""The echoed sentences, and how they are split into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.echo import LAST_MESSAGE, NO_MESSAGES, PromptTurn, echo_sentence, split_pieces

# Words, spaces of several kinds, ideographs, full-width punctuation, a supplementary plane, an emoji.
MIXED = st.text(st.sampled_from("ab.é \n\t\u00a0\u3000你好\uff0c。カ한𠮷😀"))


@given(MIXED)
def test_pieces_together_are_the_text(text: str) -> None:
    pieces = split_pieces(text)
    assert "".join(pieces) == text
    assert all(pieces)


@given(st.text(st.sampled_from("忙你我他的。\uff01「」")))
def test_ideographs_come_one_by_one(text: str) -> None:
    assert split_pieces(text) == list(text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("hello", ["hello"]),
        ("hello big world", ["hello ", "big ", "world"]),
        ("two  spaces\nand a line", ["two  ", "spaces\n", "and ", "a ", "line"]),
        ("  indented", ["  ", "indented"]),
        ("message:你是谁?", ["message:", "你", "是", "谁", "?"]),
        ("用OpenAI吧。", ["用", "OpenAI", "吧", "。"]),
        ("你好 世界", ["你", "好 ", "世", "界"]),
        ("ok\uff0c好", ["ok", "\uff0c", "好"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
    ],
)
def test_pieces_are_words_or_characters(text: str, pieces: list[str]) -> None:
    assert split_pieces(text) == pieces


@pytest.mark.parametrize(
    ("turns", "sentence"),
    [
        ([], NO_MESSAGES),
        ([PromptTurn("system", "be brief"), PromptTurn("user", "hi")], NO_MESSAGES),
        ([PromptTurn("user", "hi")], LAST_MESSAGE + "hi"),
        ([PromptTurn("user", "hi"), PromptTurn("assistant", "oh")], LAST_MESSAGE + "oh"),
        ([PromptTurn("user", "")], LAST_MESSAGE),
    ],
)
def test_the_first_role_chooses_the_sentence(turns: list[PromptTurn], sentence: str) -> None:
    assert echo_sentence(turns) == sentence


def test_the_sentences_are_the_articles() -> None:
    assert LAST_MESSAGE == "As a mock AI Assitant, I can only echo your last message:"
    assert (
        NO_MESSAGES == "As a mock AI Assitant, I can only echo your last message, but there were no messages!"
    )

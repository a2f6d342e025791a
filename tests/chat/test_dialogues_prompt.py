"""Cleaning of a visitor's question."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat.dialogues import clean_prompt


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("  你好\n", "你好"),
        ("if (a < b) {\n\treturn '<b>';\n}", "if (a < b) {\n\treturn '<b>';\n}"),
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("a\x00b\x1b[31mc\x7f", "ab[31mc"),
        ("e\u0301", "\xe9"),
        ("user\u202egpj.exe\u2066x\u2069", "usergpj.exex"),
        ("\ufeffhi \U000e0041\U000e0042", "hi"),
        ("half \ud83d of one", "half  of one"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("\u200e \x07", ""),
    ],
)
def test_only_invisible_characters_are_removed(written: str, clean: str) -> None:
    assert clean_prompt(written) == clean


@given(st.text(st.characters()))
def test_every_cleaned_prompt_is_clean_and_encodable(text: str) -> None:
    clean = clean_prompt(text)

    assert clean == clean_prompt(clean)
    assert clean == clean.strip()
    assert unicodedata.is_normalized("NFC", clean)
    clean.encode()
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in clean)
    assert not any(unicodedata.bidirectional(c) in {"LRO", "RLO", "LRE", "RLE", "RLI"} for c in clean)

"""Syntax highlighting: which code is highlighted, and how long it takes at most."""

import re
import time
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chat.code_colours import COLOURED_CHARS_MAX, LANGUAGES, colour_code
from tests.pace import paced

TAGS = r"""<span class="[a-z][a-z0-9]{0,2}">|</span>"""
HARD = [
    ("java", "a "),
    ("java", "a a;\n"),
    ("c", "\n "),
    ("typescript", "a."),
    ("html", "<!--"),
    ("ocaml", "1"),
    ("perl", "<<A\n\n"),
    ("python", "f('"),
    ("objective-c", "{"),
    ("sql", "'"),
    ("yaml", "- "),
    ("diff", "-"),
]


def test_every_language_that_is_named_is_known() -> None:
    shown = {language: colour_code('x = "1" # y\n', language).language for language in LANGUAGES}
    assert shown == {language: language for language in LANGUAGES}


@pytest.mark.parametrize("language", ["python", "Python", "PY"])
def test_tokens_have_classes(language: str) -> None:
    coloured = colour_code("if x: pass\n", language)
    assert '<span class="k">if</span>' in coloured.html
    assert coloured.language == language.lower()


@pytest.mark.parametrize("language", ["", "brainfuck", "mermaid", "text", "makefile"])
def test_unknown_languages_are_not_highlighted(language: str) -> None:
    assert colour_code("if <x>\n", language).html == "if &lt;x&gt;\n"


@pytest.mark.parametrize("language", ['"><script>', "a b", "x" * 31, "\u202e", "语言", "../x"])
def test_an_invalid_language_name_is_not_shown(language: str) -> None:
    assert colour_code("x", language).language == ""


def test_long_code_stays_plain() -> None:
    code = "if x: pass\n" * (COLOURED_CHARS_MAX // 10)
    assert colour_code(code, "python").html == code


@given(st.text(alphabet="\n\t <>&'\"`#/*(){}=ab1é你", max_size=200), st.sampled_from(sorted(LANGUAGES)))
@settings(max_examples=200)
def test_colours_change_no_character(code: str, language: str) -> None:

    assert unescape(re.sub(TAGS, "", colour_code(code, language).html)) == code


@pytest.mark.parametrize(("language", "unit"), HARD)
@pytest.mark.parametrize("end", ["", ";\n"])
def test_no_text_makes_a_lexer_slow(language: str, unit: str, end: str) -> None:
    line = unit * (900 // len(unit)) + end
    code = (line * (COLOURED_CHARS_MAX // len(line) + 1))[:COLOURED_CHARS_MAX]
    began = time.process_time()
    colour_code(code, language)
    assert time.process_time() - began < paced(2)


@pytest.mark.parametrize("code", ["a " * 500, "x" + " " * 300, "\n" * 300, "y" * 1_500])
def test_code_that_would_take_long_stays_plain(code: str) -> None:
    assert colour_code(code, "java").html == code

"""The structure of unfinished Markdown: its blocks, and the inline constructs that are still open."""

import pytest

from proxy.chat.markdown import OpenSpans, find_blocks


def test_blocks_have_their_first_lines_and_a_list_is_given_by_its_items() -> None:
    text = "# a\nb\nc\n\n- d\n\n  e\n- f\n  - g\n> h\n```\ni\n\n```\n| j |\n|---|\n"
    assert [(block.type, block.line) for block in find_blocks(text)] == [
        ("heading", 0),
        ("paragraph", 1),
        ("list_item", 4),
        ("list_item", 7),
        ("blockquote", 9),
        ("fence", 10),
        ("table", 14),
    ]
    assert find_blocks("") == []


@pytest.mark.parametrize(
    "text",
    ["**a", "a *b", "~~a", "`a", "``a` b", "[a", "[a [b]", "[a](b", r"\(a", r"\[a", "$$a", "a $b", "**a *b*"],
)
def test_an_unclosed_construct_is_open(text: str) -> None:
    assert OpenSpans(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "**a**",
        "2 * 3",
        "a_b",
        "`a*`",
        "[a](b)",
        "[a]",
        r"\(a\)",
        "$a$",
        "价 $5。",
        "a $ b",
        r"\*a",
        "](",
    ],
)
def test_a_closed_construct_and_plain_text_are_not_open(text: str) -> None:
    assert not OpenSpans(text)


def test_the_kind_of_an_open_construct_is_known() -> None:
    assert OpenSpans("**a _b").emphasis == {"*", "_"}
    assert OpenSpans("a $$b").formula == "$$"
    assert OpenSpans(r"a \[b").formula == r"\]"
    assert OpenSpans("`a").formula == ""

"""Emphasis: CommonMark's rules, except beside Chinese characters."""

import pytest

from proxy.chat.markdown.parser import build_parser, render_markdown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**“词”**的", "<strong>“词”</strong>的"),
        ("这是**重点，**然后", "这是<strong>重点，</strong>然后"),
        ("他说*“好”*。", "他说<em>“好”</em>。"),
        ("a**“b”**c", "a**“b”**c"),  # CommonMark 6.2: a letter follows the punctuation
        ("snake_case_name", "snake_case_name"),
        ("_a_ and __b__", "<em>a</em> and <strong>b</strong>"),
        ("** a **", "** a **"),
        ("***both***", "<em><strong>both</strong></em>"),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_emphasis_ends_where_a_reader_expects_it(text: str, html: str) -> None:
    assert render_markdown(build_parser(), text).html == f"<p>{html}</p>"

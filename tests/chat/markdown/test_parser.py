"""Markdown as HTML, before it is sanitised: no HTML of the model, safe links, bounded nesting."""

import pytest

from proxy.chat.markdown.parser import ADDRESS_CHARS_MAX, build_parser, is_safe_address, render_markdown


def html_of(text: str) -> str:
    """Return the HTML of a text."""
    return render_markdown(build_parser(), text).html


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://a.example/x", True),
        ("HTTP://a.example", True),
        ("mailto:a@b.example", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//a.example", False),
        ("/relative", False),
        ("https:///no-host", False),
        ("https://a.example/" + "x" * ADDRESS_CHARS_MAX, False),
    ],
)
def test_links_are_absolute_and_no_scripts(address: str, *, safe: bool) -> None:
    assert is_safe_address(address) is safe
    assert ("<a " in html_of(f"[text](<{address}>)")) is safe


def test_html_of_the_model_is_text() -> None:
    assert html_of("<b onclick=x>a</b>") == "<p>&lt;b onclick=x&gt;a&lt;/b&gt;</p>"
    assert "<script" not in html_of("<script>\nalert(1)\n</script>")


def test_an_image_becomes_a_link() -> None:
    assert html_of("![cat](https://a.example/c.png)") == '<p><a href="https://a.example/c.png">cat</a></p>'


def test_cells_are_aligned_by_classes() -> None:
    table = html_of("| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | 3 |")
    assert "style=" not in table
    assert table.count('class="to-center"') == table.count('class="to-right"') == 2


def test_a_single_paragraph_is_plain() -> None:
    assert render_markdown(build_parser(), "one\ntwo").plain
    assert not render_markdown(build_parser(), "one\n\ntwo").plain
    assert not render_markdown(build_parser(), "# one").plain


def test_a_formula_that_cannot_be_read_is_shown_as_code() -> None:
    assert html_of("$x^2$").startswith("<p><math")
    assert "<code>" in html_of(r"$\begin{x$")


def test_deep_nesting_is_limited() -> None:
    assert html_of(">" * 1000 + "a").count("<blockquote>") <= 20

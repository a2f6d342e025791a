"""Blocks: how Markdown is rendered, and that the HTML has no active content."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chat.render import MARKDOWN_CHARS_MAX, BlockKind, render_block
from tests.chat.hostile import HOSTILE, HUGE
from tests.chat.safe_html import read_safe
from tests.pace import paced

KINDS: tuple[BlockKind, ...] = ("right", "describe", "left", "error")
WORDS = r"""
< > & " ' ` ``` * ** _ ~~ # | [ ] ( ) ![ ]( $ $$ \( \) \[ \] \ http://a.b javascript: :-: \frac { } ^ \text{
&lt; &#x202e; </div> <script> 字
"""
BLANKS = ["\n", "\n\n", " ", "    ", "- ", "- [x] ", "1. ", "> ", "\x00", "\u202e"]
MARKS = st.sampled_from([*WORDS.split(), *BLANKS])
SOUP = st.lists(MARKS | st.text(max_size=3), max_size=60).map("".join)


def inner(text: str, kind: BlockKind = "left") -> str:
    """Return the content of the block's div."""
    html = render_block(kind, text)
    read_safe(kind, html)
    return html.removeprefix(f"<div class='{kind}'>").removesuffix("</div>")


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_content_does_not_run(kind: BlockKind) -> None:
    small = [text for text in HOSTILE if text not in HUGE]
    assert len(small) >= 300
    for text in small:
        read_safe(kind, render_block(kind, text))


def test_huge_nesting_is_bounded_in_time() -> None:
    for text in HUGE:
        began = time.process_time()
        html = render_block("left", text)
        assert time.process_time() - began < paced(5), text[:20]
        read_safe("left", html)


@pytest.mark.parametrize("kind", KINDS)
@given(text=SOUP | st.text())
@settings(max_examples=100)
def test_any_text_gives_inert_html(kind: BlockKind, text: str) -> None:
    read_safe(kind, render_block(kind, text))


@given(st.text())
@settings(max_examples=100)
def test_the_visitor_sees_the_text_unchanged(text: str) -> None:
    plain = "".join(char for char in text if char.isprintable())
    assert read_safe("right", render_block("right", plain)) == plain


def test_the_visitors_text_is_escaped_and_keeps_its_lines() -> None:
    assert (
        render_block("right", "a <b>\n& 'c'\n")
        == "<div class='right'><p>a &lt;b&gt;<br>&amp; &#x27;c&#x27;<br></p></div>"
    )


def test_an_error_has_no_paragraph() -> None:
    assert render_block("error", "出错 <x>") == "<div class='error'>出错 &lt;x&gt;</div>"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("你好\n", "<p>你好\n</p>"),
        ("你好。\n\n\n", "<p>你好。\n</p>"),
        ("你好。", "<p>你好。</p>"),
        ("Hello! ", "<p>Hello! </p>"),
        ("\n\n**你好**\n", "<p><strong>你好</strong>\n</p>"),
        ("a\nb", "<p>a<br>\nb</p>"),
    ],
)
def test_a_plain_paragraph_keeps_its_line_feed_inside(text: str, html: str) -> None:
    assert inner(text) == html
    assert inner(text, "describe") == html


def test_blank_pieces_are_empty() -> None:
    assert render_block("left", " \n\n") == "<div class='left'></div>"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("### 标题？\n", "<h3>标题？</h3>"),
        ("3. 三\n", '<ol start="3">\n<li>三</li>\n</ol>'),
        ("    - 深\n", "<ul>\n<li>深</li>\n</ul>"),
        ("- a\n  - b\n", "<ul>\n<li>a\n<ul>\n<li>b</li>\n</ul>\n</li>\n</ul>"),
        ("~~x~~", "<p><s>x</s></p>"),
        ("---\n", "<hr>"),
        ("a&nbsp;b &copy;", "<p>a&nbsp;b ©</p>"),
        ("x <b>y</b>", "<p>x &lt;b&gt;y&lt;/b&gt;</p>"),
        ("x\n===", "<p>x<br>\n===</p>"),
        ("[1]: http://a.example/x", "<p>[1]: http://a.example/x</p>"),
    ],
)
def test_markdown_is_rendered(text: str, html: str) -> None:
    assert inner(text) == html


@pytest.mark.parametrize("text", ["**“词”**的", "这是**重点。**后面", "他**说：**“好”", "a**重**b"])
def test_emphasis_works_between_chinese_characters(text: str) -> None:
    assert "<strong>" in inner(text)
    assert "*" not in inner(text)


@pytest.mark.parametrize("text", ["snake_case_name", "2 * 3 * 4", "a ** b"])
def test_delimiters_that_are_not_emphasis_stay(text: str) -> None:
    assert inner(text) == f"<p>{text}</p>"


def test_task_lists_have_boxes_that_cannot_be_ticked() -> None:
    html = inner("- [x] 完成\n- [ ] 未完\n")
    assert html.count("<input ") == html.count('disabled=""') == html.count('type="checkbox"') == 2
    assert html.count('checked=""') == 1


def test_table_cells_are_aligned_by_class() -> None:
    html = inner("| a | b | c |\n|:-:|--:|:--|\n| 1 | 2 | 3 |\n")
    assert html.count("to-center") == html.count("to-right") == 2
    assert "<td>3</td>" in html


def test_images_become_links() -> None:
    html = inner("![图](http://a.example/x.png)")
    assert ">图</a>" in html
    assert "<img" not in html


def test_links_open_a_new_tab_and_send_no_referrer() -> None:
    rest = 'target="_blank" rel="noopener noreferrer nofollow"'
    assert inner("[x](https://a.example/?q=1&r=2)") == (
        f'<p><a href="https://a.example/?q=1&amp;r=2" {rest}>x</a></p>'
    )


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "/chat/reset", "#x", "//a.example", "data:,x", "tel:1"]
)
def test_other_links_are_shown_as_they_are_written(address: str) -> None:
    assert inner(f"[x]({address})") == f"<p>[x]({address})</p>"


def test_code_has_its_language_and_its_colours() -> None:
    html = inner('```python\nif x < 1: print("a")\n```\n')
    assert html.startswith('<pre><code class="language-python"><span class="k">if</span>')
    assert read_safe("left", f"<div class='left'>{html}</div>") == 'if x < 1: print("a")\n'


def test_an_unclosed_fence_is_code() -> None:
    assert inner("```\na *b*") == "<pre><code>a *b*</code></pre>"


@pytest.mark.parametrize(
    "text", ["$x<1$", r"\(x<1\)", "$$x<1$$", "\\[\nx<1\n\\]", "其中 $$x<1$$ 成立", "> $$\n> x<1\n> $$"]
)
def test_formulas_become_mathml(text: str) -> None:
    assert "<mi>x</mi><mo>&lt;</mo><mn>1</mn>" in inner(text)


def test_prices_are_not_formulas() -> None:
    for text in ("costs $5 and $6", "7$ 或 8$，好", "约 $9。到 $10。"):
        assert inner(text) == f"<p>{text}</p>"


def test_a_formula_that_cannot_be_read_is_shown_as_code() -> None:
    assert inner(r"$\href{javascript:alert(1)}{x}$") == r"<p><code>\href{javascript:alert(1)}{x}</code></p>"


def test_a_very_long_text_is_shown_without_rendering_its_markdown() -> None:
    html = inner("**a** <b>\n" * (MARKDOWN_CHARS_MAX // 10 + 1))
    assert html.startswith("<p>**a** &lt;b&gt;<br>")

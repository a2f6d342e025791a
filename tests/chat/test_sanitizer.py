"""The sanitiser alone, with HTML that the renderer never produces."""

from html import unescape

import pytest

from proxy.chat.sanitizer import build_cleaner
from tests.chat.hostile import HOSTILE, HUGE
from tests.chat.safe_html import read_safe

CLEANER = build_cleaner()


def test_hostile_html_is_cleaned() -> None:
    for text in HOSTILE:
        if text not in HUGE and unescape(text).isprintable():
            read_safe("left", f"<div class='left'>{CLEANER.clean(text)}</div>")


@pytest.mark.parametrize(
    ("html", "clean"),
    [
        ("<p class='x' id=y style=z title=t lang=en data-x=1 onclick=a>x</p>", "<p>x</p>"),
        ("<code class='language-py evil'>x</code>", "<code>x</code>"),
        ("<span class='k evil-class kn'>x</span>", '<span class="k kn">x</span>'),
        ("<td class=to-right>", ""),
        ("<ol start=-1><li>x</li></ol>", "<ol><li>x</li></ol>"),
        ("<img src=x>", ""),
        ("<a href='/x'>x</a>", '<a target="_blank" rel="noopener noreferrer nofollow">x</a>'),
        (
            "<math><mspace width='99em' height='2em'></mspace></math>",
            '<math><mspace height="2em"></mspace></math>',
        ),
        ("<math href='javascript:x' mathcolor=red><mi>x</mi></math>", "<math><mi>x</mi></math>"),
        (
            "<math alttext='<b> \\frac&quot;'><mi alttext=x>x</mi></math>",
            '<math alttext="&lt;b&gt; \\frac&quot;"><mi>x</mi></math>',
        ),
        (f"<math alttext='{'x' * 2001}'><mi>x</mi></math>", "<math><mi>x</mi></math>"),
        ("<div class=error>x</div>", "x"),
    ],
)
def test_only_listed_html_is_kept(html: str, clean: str) -> None:
    assert CLEANER.clean(html) == clean


def test_an_input_is_a_box_that_cannot_be_ticked() -> None:
    html = CLEANER.clean("<input type=password name=x value=y checked=z autofocus>")
    assert set(html.removesuffix(">").split()) == {"<input", 'type="checkbox"', 'disabled=""', 'checked=""'}

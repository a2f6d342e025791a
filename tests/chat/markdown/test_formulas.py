"""LaTeX as MathML: which formulas are converted, and which are rejected."""

import time
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chat.markdown.formulas import LATEX_CHARS_MAX, to_mathml
from tests.pace import paced

WORDS = r"""
\frac \sqrt { } [ ] ^ _ & \\ \left( \right) \text{ x 1 < &lt; \begin{matrix} \end{matrix} \color{red}
\hspace{1em} \rule{1em}{1em} é 字 ' %
"""
PARTS = st.sampled_from([*WORDS.split(), " "])


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{a}{b}",
        r"\sum_{i=1}^{n} i^2 = \frac{n(n+1)}{2}",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"f(x) = \begin{cases} 1 & x < 0 \\ 2 & x \ge 0 \end{cases}",
        r"\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}",
        r"\text{速度} = \lim_{t \to 0} \vec{v}",
        r"\begin{aligned} a &= b \\ &= c \end{aligned}",
        r"\hat{y} \in \mathbb{R}^n",
    ],
)
def test_common_formulas_are_read(latex: str) -> None:
    tree = fromstring(to_mathml(latex, display=True) or "")  # noqa: S314  our own words
    assert tree.tag == "math"
    assert tree.attrib == {"display": "block"}
    assert "\\" not in "".join(tree.itertext())


def test_an_inline_formula_is_marked_as_inline() -> None:
    assert to_mathml("x", display=False) == '<math display="inline"><mrow><mi>x</mi></mrow></math>'


@pytest.mark.parametrize("latex", [r"\text{<b>}", r"\text{&lt;b&gt;}", r"\mbox{&#60;b&#62;}", "<b>"])
def test_no_text_becomes_an_element(latex: str) -> None:
    told = to_mathml(latex, display=False)
    assert told is not None
    assert "<b>" not in told


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac",
        r"\left(",
        "x_1_2",
        r"\href{javascript:alert(1)}{x}",
        r"\style{color:red}{x}",
        r"\class{error}{x}",
        r"\newcommand{\a}{\a\a}\a",
        r"\def\a{\a\a}\a",
        r"\sqrt" * 390,
        "{" * 1_000 + "}" * 1_000,
        "x" * (LATEX_CHARS_MAX + 1),
    ],
)
def test_invalid_and_forbidden_formulas_are_rejected(latex: str) -> None:
    began = time.process_time()
    assert to_mathml(latex, display=False) is None
    assert time.process_time() - began < paced(1)


@given(st.lists(PARTS | st.text(max_size=2), max_size=30).map("".join))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(latex: str) -> None:
    told = to_mathml(latex, display=False)
    assert told is None or told.startswith('<math display="inline">')

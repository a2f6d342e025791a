"""LaTeX as MathML: which formulas are converted, and which are rejected."""

import time
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chat.markdown.formulas import LATEX_CHARS_MAX, to_mathml
from tests.chat.formulas import FORMULAS
from tests.linear_time import KIB, assert_linear
from tests.pace import paced

WORDS = r"""
\frac \sqrt { } [ ] ^ _ & \\ \left( \right) \text{ x 1 < &lt; \begin{matrix} \end{matrix} \color{red}
\hspace{1em} \rule{1em}{1em} é 字 ' %
"""
PARTS = st.sampled_from([*WORDS.split(), " "])


def read(latex: str, *, display: bool = True) -> Element:
    """Return the tree of a valid formula."""
    return fromstring(to_mathml(latex, display=display) or "")  # noqa: S314  our own words


def shape(element: Element) -> str:
    """Return the elements of a tree with their texts, such as `msup(mi:x mn:2)`."""
    inner = " ".join(map(shape, element))
    return element.tag + (f"({inner})" if inner else f":{element.text}" if element.text else "")


@pytest.mark.parametrize("latex", FORMULAS)
def test_every_formula_of_the_corpus_is_read(latex: str) -> None:
    tree = read(latex)
    assert tree.tag == "math"
    assert tree.attrib == {"display": "block", "alttext": latex}
    text = "".join(tree.itertext())
    assert not {"\\", "&"}.intersection(text.replace("∖", ""))
    sizes = {
        "mfrac": 2,
        "msup": 2,
        "msub": 2,
        "mover": 2,
        "munder": 2,
        "mroot": 2,
        "msubsup": 3,
        "munderover": 3,
    }
    for element in tree.iter():
        assert len(element) == sizes.get(element.tag, len(element)), shape(element)


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x^2", "math(msup(mi:x mn:2))"),
        (r"n \log n", "math(mi:n mo:log mi:n)"),
        (r"\left(a\right)^2", "math(msup(mrow(mo:( mi:a mo:)) mn:2))"),
        (r"\text{速度}", "math(mtext:速度)"),
        (r"\textbf{ab}", "math(mtext:ab)"),
        (r"\sqrt[3]{x}", "math(mroot(mi:x mn:3))"),
        (r"\vec{a}", "math(mover(mi:a mo:→))"),
        (r"\begin{equation} a \tag{1} \label{eq:a} \end{equation}", "math(mi:a mspace mtext:(1))"),
    ],
)
def test_a_formula_has_its_elements(latex: str, expected: str) -> None:
    assert shape(read(latex)) == expected


def test_the_power_of_a_matrix_has_a_base_and_an_exponent() -> None:
    (power,) = read(r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}^{-1}")
    assert power.tag == "msup"
    base, exponent = power
    assert shape(base) == (
        "mrow(mo:( mtable(mtr(mtd(mi:a mspace) mtd(mi:b)) mtr(mtd(mi:c mspace) mtd(mi:d))) mo:))"
    )
    assert "".join(exponent.itertext()) == "−1"


@pytest.mark.parametrize(
    ("latex", "struts"), [(r"\begin{matrix} x \\ y \end{matrix}", 2), (r"\substack{x \\ y}", 0)]
)
def test_each_row_has_a_strut_except_below_a_sign(latex: str, struts: int) -> None:
    assert [space.attrib for space in read(latex).iter("mspace")] == struts * [
        {"width": "0", "height": "0.7em", "depth": "0.25em"}
    ]


def test_a_bracket_does_not_move_into_the_preceding_name() -> None:
    assert shape(read(r"f\!\left(x\right)")) == "math(mi:f mrow(mo:( mi:x mo:)))"
    assert shape(read(r"f\! \left(x\right)")) == shape(read(r"f\left(x\right)"))
    assert shape(read(r"f\!x")) == "math(mi:f mspace mi:x)"


@pytest.mark.parametrize("name", ["aligned", "align", "align*", "split", "alignat{2}", "eqnarray*"])
def test_equations_are_aligned_at_their_sign(name: str) -> None:
    latex = rf"\begin{{{name}}} a &= b \\ &= c \end{{{name.removesuffix('{2}')}}}".replace("t{2}}", "t}{2}")
    table = read(latex)[0]
    assert [[cell.get("style", "")[:17] for cell in line] for line in table] == [
        ["text-align: right", "text-align: left;"]
    ] * 2
    assert [["".join(cell.itertext()) for cell in line] for line in table] == [["a", "=b"], ["", "=c"]]


def test_cases_have_a_brace_and_two_columns() -> None:
    latex = r"f(x) = \begin{cases} 1 & \text{if } x < 0 \\ 2 & x \ge 0 \end{cases}"
    brace, table, _ = read(latex)[-1]
    assert brace.text == "{"
    assert [len(line) for line in table] == [2, 2]


def test_an_inline_formula_is_marked_as_inline() -> None:
    assert to_mathml("x", display=False) == '<math alttext="x"><mi>x</mi></math>'


@pytest.mark.parametrize("latex", [r"\text{<b>}", r"\mbox{<b>}", "<b>", r"\textbf{<b>}", r"\text{a}<b>"])
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
def test_any_text_is_parsed_or_rejected(latex: str) -> None:
    told = to_mathml(latex, display=False)
    assert told is None or told.startswith('<math alttext="')


def test_a_formula_takes_linear_time() -> None:
    """The same for delimiters that nothing closes."""
    units = [
        part.encode()
        for part in (*WORDS.split(), "(", "[", r"\langle", r"\{", "( x", r"[\log", r"\bigl(", "'")
    ]

    def run(latex: bytes) -> None:
        to_mathml(latex.decode(errors="replace"), display=True)

    assert_linear(run, units, limit=2 * KIB, memory=200, seconds_per_mib=20)

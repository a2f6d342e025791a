"""Chemical formulas as LaTeX and as MathML."""

from xml.etree.ElementTree import fromstring

import pytest

from proxy.chat.markdown.chemistry import write_chemistry
from proxy.chat.markdown.formulas import to_mathml
from tests.linear_time import KIB, assert_linear

READ = {
    "H2O": r"\mathrm{H}_{2}\mathrm{O}",
    "2H2 + O2 -> 2H2O": r"2\,\mathrm{H}_{2}+\mathrm{O}_{2}\longrightarrow 2\,\mathrm{H}_{2}\mathrm{O}",
    "SO4^2-": r"\mathrm{SO}_{4}^{2-}",
    "Na+ + Cl- -> NaCl v": r"\mathrm{Na}^{+}+\mathrm{Cl}^{-}\longrightarrow \mathrm{NaCl}\downarrow ",
    r"CaCO3 ->[\Delta] CO2 ^": r"\mathrm{CaCO}_{3}\xrightarrow[]{\Delta }\mathrm{CO}_{2}\uparrow ",
    "N2 <=>[Fe][5 C] NH3": r"\mathrm{N}_{2}\xrightleftharpoons[5\,\mathrm{C}]{\mathrm{Fe}}\mathrm{NH}_{3}",
    "CuSO4*5H2O": r"\mathrm{CuSO}_{4}\cdot 5\,\mathrm{H}_{2}\mathrm{O}",
    "^{227}_{90}Th+": r"{}^{227}_{90}\mathrm{Th}^{+}",
    "CH3-CH=CH#C": r"\mathrm{CH}_{3}{-}\mathrm{CH}{=}\mathrm{CH}{\equiv}\mathrm{C}",
    "(NH4)2S": r"( \mathrm{NH}_{4}) _{2}\mathrm{S}",
    "[Fe(CN)6]^{4-}": r"[ \mathrm{Fe}( \mathrm{CN}) _{6}] ^{4-}",
    "Fe^{III}": r"\mathrm{Fe}^{\mathrm{III}}",
    "1/2 O2 (g)": r"1/2\,\mathrm{O}_{2}( \mathrm{g}) ",
    "Cu^2+ + 2e- <-> Cu": r"\mathrm{Cu}^{2+}+2\,\mathrm{e}^{-}\longleftrightarrow \mathrm{Cu}",
}


@pytest.mark.parametrize("equation", READ)
def test_equations_are_written_as_latex_that_is_read(equation: str) -> None:
    latex = rf"\ce{{{equation}}}"
    assert write_chemistry(latex) == f"{{{READ[equation]}}}"
    assert to_mathml(latex, display=True) is not None


def test_equations_are_found_inside_of_formulas() -> None:
    mathml = to_mathml(r"K = \frac{[\ce{NH3}]^2}{[\ce{N2}]} \quad \pu{5 m/s}", display=True)
    assert "".join(fromstring(mathml or "").itertext()) == "K=[NH3]2[N2]5\N{NO-BREAK SPACE}m/s"  # noqa: S314  our own words


@pytest.mark.parametrize("latex", [r"\ce{A & B}", r"\ce{A", r"\ce{A ->[&] B}", r"\ce{\ce{A &}}", r"\cell{A}"])
def test_unknown_commands_do_not_change(latex: str) -> None:
    assert write_chemistry(latex) == latex
    assert to_mathml(latex, display=True) is None


def test_reading_takes_linear_time() -> None:
    def run(latex: bytes) -> None:
        write_chemistry(latex.decode(errors="replace"))

    units = [rb"\ce{", rb"\ce{A}", b"A ->[B]", b"^{2", b"A^2+", b" ", b"\\", b"12", b"A"]
    assert_linear(run, units, before=rb"\ce{", after=b"}", limit=16 * KIB, memory=200, seconds_per_mib=20)

"""Formulas on the page: pictures for visual inspection, and the positions of their parts."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Stage
from tests.browser.inspection import looks
from tests.browser.test_screens import DARK, PHONE
from tests.chat.formulas import FORMULAS

PARTS = 6


@pytest.mark.parametrize("look", looks("light", "dark", "phone"))
async def test_the_corpus_has_its_pictures(stage: Stage, look: str) -> None:
    options = {"light": {}, "dark": DARK, "phone": PHONE}[look]
    width = 390 if look == "phone" else 1000
    page = await stage.open(**{**options, "viewport": {"width": width, "height": 2000}})
    size = -(-len(FORMULAS) // PARTS)
    for part in range(PARTS):
        some = FORMULAS[part * size :][:size]
        stage.chat.turn(
            f"第 {part + 1} 部分", "\n\n".join(f"行内 ${latex}$：\n\n$${latex}$$" for latex in some)
        )
        await expect(page.turns).to_have_count(part + 1)
        await page.in_state("idle")
        await expect(page.answer.last.locator("math")).to_have_count(2 * len(some))
        await page.page.evaluate("document.fonts.ready")
        await page.shot(f"formulas-{look}-{part + 1}")
    assert await page.page.evaluate("document.fonts.check('16px \"LLM Chat Math\"')")
    assert await page.faults() == []


BOXES = """
() => {
    const math = document.querySelector("llm-chat").shadowRoot.querySelector(".prose math");
    return [...math.querySelectorAll("*")].map((element) => {
        const {left, right, top, bottom} = element.getBoundingClientRect();
        return [element.localName, element.textContent, left, right, top, bottom];
    });
}
"""


async def boxes(stage: Stage, latex: str) -> dict[str, list[float]]:
    """Return the left, right, top and bottom of each element that contains text directly."""
    page = await stage.open()
    stage.chat.turn("?", f"$${latex}$$")
    await page.in_state("idle")
    await expect(page.answer.locator("math")).to_have_count(1)
    await page.page.evaluate("document.fonts.load('16px \"LLM Chat Math\"')")
    return {f"{name}:{text}": place for name, text, *place in await page.page.evaluate(BOXES)}


async def test_equations_are_aligned_at_their_sign(stage: Stage) -> None:
    found = await boxes(stage, r"\begin{aligned} x + y + z &= b \\ a &\le c \end{aligned}")
    assert found["mo:="][0] == pytest.approx(found["mo:≤"][0], abs=3)
    assert found["mi:a"][2] > found["mi:b"][3] - 8


async def test_a_brace_and_brackets_are_as_high_as_what_they_hold(stage: Stage) -> None:
    found = await boxes(stage, r"\begin{cases} 1 \\ 2 \\ 3 \end{cases} \left[ \frac{a}{b} \right]")
    _, _, top, bottom = found["mo:{"]
    assert top <= found["mn:1"][2] + 4
    assert bottom >= found["mn:3"][3] - 4
    assert found["mo:["][3] - found["mo:["][2] >= found["mfrac:ab"][3] - found["mfrac:ab"][2] - 4


async def test_the_rows_of_two_matrices_are_level(stage: Stage) -> None:
    found = await boxes(
        stage, r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix} \begin{bmatrix} x \\ z \end{bmatrix}"
    )
    assert found["mi:x"][3] == pytest.approx(found["mn:1"][3], abs=2)
    assert found["mi:z"][3] == pytest.approx(found["mn:3"][3], abs=2)


async def test_a_matrix_keeps_away_from_the_exponent_before_it(stage: Stage) -> None:
    found = await boxes(stage, r"\begin{bmatrix} 1 \end{bmatrix}^{T} \begin{pmatrix} x \end{pmatrix}")
    assert found["mo:("][0] - found["mi:T"][1] >= 2


async def test_an_exponent_stands_above_the_right_end_of_its_base(stage: Stage) -> None:
    found = await boxes(stage, r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}^{n}")
    assert found["mi:n"][0] >= found["mo:)"][1] - 3
    assert found["mi:n"][3] < found["mi:d"][2] + 6


async def test_words_in_a_formula_keep_their_distance(stage: Stage) -> None:
    found = await boxes(stage, r"n \log m")
    assert found["mo:log"][0] - found["mi:n"][1] >= 1
    assert found["mi:m"][0] - found["mo:log"][1] >= 1

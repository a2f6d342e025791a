"""What is copied from an answer: Markdown that is rendered as the answer was."""

import random
import re
from collections.abc import Callable, Sequence

import pytest

from proxy.chat.render import render_block
from tests.browser import samples
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Stage
from tests.browser.test_asking import MIXED, WRITTEN
from tests.chat.formulas import FORMULAS
from tests.chat.hostile import HOSTILE, HUGE
from tests.chat.test_render import BLANKS, WORDS

SHOW = """async (answers) => {
    const [{ readBlocks }, { Prose }, { Words }, { plainText }] = await Promise.all(
        ["safe_html", "prose", "words", "plain_text"].map((name) => import(`/chat/page/${name}.js`)),
    );
    return answers.map((blocks) => {
        const prose = new Prose(new Words("en"), () => {}, "answer");
        for (const block of blocks) {
            for (const { nodes } of readBlocks(block)) {
                prose.append(nodes);
            }
        }
        return [prose.root.innerHTML, plainText(prose.root)];
    });
}"""
"""Shows answers, each a list of blocks, and returns the HTML and the copy of each."""

UNCHANGED = [
    "$E=mc^2$",
    r"half is $\frac{1}{2}$",
    r"A line: $$\sum_{i=1}^n i$$ and more.",
    "$$\\begin{aligned}\na &= b \\\\\n- c\n\\end{aligned}$$",
    r"The price \(x\)5 and 5\(x\)",
    r"\(f(x) = \text{如果。}\)",
    "- a $$x$$ b\n- $$x$$",
    "do ~~not~~ use",
    "**[this](https://e.example/d)**",
    "***both***",
    "**a *b* c**",
    "*a **b***",
    "*a _b_ c*",
    "*_a_*",
    "**`code` and *[a link](https://e.example/)***",
    r"\* star",
    r"\- dash",
    r"1\. one",
    r"\> quote",
    r"\# heading",
    r"a \*\*b\*\* c \`d\` \~\~e\~\~ \_f\_ \$g\$",
    r"[a\](https://e.example/)",
    r"\![a](https://e.example/)",
    "[[a]](https://e.example/)",
    r"[&#91;a](https://e.example/) [b\](https://e.example/)",
    r"\<b> \<https://e.example/>",
    r"\&amp; \&#35;",
    r"\\[a\\]",
    "2 * 3 * 4, snake_case_name, $5, a < b, AT&T, 50%, -5, C:\\Users, (a) [b]",
    "C* and ~5",
    "| a | b | c |\n| --- | :-: | --: |\n| `1 \\| 2` | $\\lvert x \\rvert$ | \\*a\\* |",
    "# A # B",
    "## 1. First",
    "- a\n  - b\n\n  - c",
    "<https://e.example/a_b_c>",
    "[a](<https://e.example/a(b>)",
    "- ___\n- a",
    "> - a\n> - b\n>\n> c",
    "- > a\n\n  > b",
    "- > a\n\n  | b |\n  | --- |",
    "- a\n  > b\n- c",
]
"""Texts whose copy is the text itself."""
FROM_ELSEWHERE = [
    ("x<sub>1</sub><sup>2</sup>", "x<sub>1</sub><sup>2</sup>"),
    ("<b>a </b><i>b</i>", "**a** *b*"),
    ("<blockquote>a<p>b</p></blockquote>", "> a\n>\n> b"),
    ("<math><mi>x</mi></math>", "x"),
    (f"<math alttext='{'x' * 2001}'><mi>x</mi></math>", "x"),
]
"""HTML of another publisher, and its copy."""
BLOCKS = ("a", "# a", "```\na\n```", "| a |\n| --- |", "---", "$$x$$", "- [x] a", "a  \nb")
NESTED = 500
SOUPS = 1_000
SEED = 3


def sentences(text: str) -> Sequence[str]:
    """Cut a text as a dialogue does, and render its pieces."""
    return samples.blocks("left", text)


def whole(text: str) -> Sequence[str]:
    """Render a text as one piece."""
    return [render_block("left", text)]


def nested(chance: random.Random, depth: int = 3) -> str:
    """Return random blocks: some are lists or quotes of others."""

    def block() -> str:
        mark = chance.choice(("", "", "- ", "1. ", "> ") if depth else ("",))
        if not mark:
            return chance.choice(BLOCKS)
        begin = "\n> " if mark == "> " else f"\n{' ' * len(mark)}"
        return mark + nested(chance, depth - 1).replace("\n", begin)

    return chance.choice(("\n", "\n\n")).join(block() for _ in range(chance.randrange(1, 4)))


async def show(
    page: ChatPage, answers: Sequence[str], blocks: Callable[[str], Sequence[str]]
) -> list[tuple[str, str]]:
    """Return the HTML and the copy of each answer."""
    shown = await page.page.evaluate(SHOW, [blocks(answer) for answer in answers])
    return [(html, copy) for html, copy in shown]


def visible(html: str) -> str:
    """Return HTML without the blanks that a browser does not show."""
    html = re.sub(r"(?<!<br>)\n", " ", re.sub(r"<figcaption.*?</figcaption>", "", html))
    html = re.sub(r"\s+(?=</(?:p|li|code|h\d|strong|em|s|t[dh]|a)>)|(?<=<p>)\s+", "", html)
    return html.replace("</code> <code>", "</code><code>")  # Markdown cannot express the latter


async def changed(
    page: ChatPage, answers: Sequence[str], blocks: Callable[[str], Sequence[str]] = sentences
) -> list[tuple[str, str]]:
    """Return the answers whose copy is rendered differently, each with its copy."""
    shown = await show(page, answers, blocks)
    again = await show(page, [copy for _, copy in shown], blocks)
    return [
        (answer, copy)
        for answer, (html, copy), (other, _) in zip(answers, shown, again, strict=True)
        if visible(html) != visible(other)
    ]


async def test_ordinary_markdown_is_copied_unchanged(stage: Stage) -> None:
    page = await stage.open()
    assert [copy for _, copy in await show(page, UNCHANGED, sentences)] == UNCHANGED


async def test_a_copy_of_any_formula_is_rendered_as_the_formula_was(stage: Stage) -> None:
    page = await stage.open()
    written = ("a ${}$ b", "$${}$$", "| ${}$ |\n| --- |", "- ${}$\n\n  $${}$$")
    assert await changed(page, [text.replace("{}", latex) for latex in FORMULAS for text in written]) == []


async def test_a_copy_of_any_answer_is_rendered_as_the_answer_was(stage: Stage) -> None:
    page = await stage.open()
    own = [value for name, value in vars(samples).items() if name.isupper() and isinstance(value, str)]
    hostile = [text for text in HOSTILE if text not in HUGE]
    assert await changed(page, [*own, "\n".join(own), MIXED, WRITTEN, *UNCHANGED, *hostile]) == []


async def test_a_copy_of_random_marks_is_rendered_as_they_were(stage: Stage) -> None:
    page = await stage.open()
    chance = random.Random(SEED)
    marks = [*WORDS.replace("&#x202e;", "").split(), *BLANKS[:-2], "a", "b", "中", "1"]
    soups = ["".join(chance.choices(marks, k=chance.randrange(1, 20))) for _ in range(SOUPS)]
    assert await changed(page, [soup for soup in soups if "\\\n" not in soup], whole) == []


async def test_a_copy_of_nested_blocks_is_rendered_as_they_were(stage: Stage) -> None:
    page = await stage.open()
    chance = random.Random(SEED)
    assert await changed(page, [nested(chance) for _ in range(NESTED)], whole) == []


@pytest.mark.parametrize(("html", "copy"), FROM_ELSEWHERE, ids=range(len(FROM_ELSEWHERE)))
async def test_html_of_another_publisher_is_copied_as_markdown(stage: Stage, html: str, copy: str) -> None:
    page = await stage.open()
    [(_, found)] = await show(page, [html], lambda text: [f"<div class='left'>{text}</div>"])
    assert found == copy

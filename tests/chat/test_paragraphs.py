"""The splitter: pieces are self-contained, and do not depend on the deltas."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.chat.paragraphs import (
    FORMULA_CHARS_MAX,
    HELD_CHARS_MAX,
    PIECE_CHARS_MAX,
    PIECE_CHARS_SOFT,
    TABLE_CELLS_MAX,
    ParagraphSplitter,
)
from tests.pace import paced

WORDS = r"""
! ? 。 ！ ？ ｡ ） ” " ] ) * ** *** _ __ ~~ ` `` ``` ~~~ $ $$ \( \) \[ \] \ [ ]( ![ | # ## ### - 1. > http://a.b/?q=
a b1 1.5 字 汉字
"""
BLANKS = [
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "   ",
    "    ",
    "\t",
    "- ",
    "1. ",
    "# ",
    "> ",
    "|-|\n",
    "```\n",
    "$$\n",
    "\u3000",
]
MARKS = st.sampled_from([*WORDS.split(), *BLANKS])
TEXTS = st.lists(MARKS | st.text(max_size=4), max_size=80).map("".join)


def cut(text: str, *sizes: int) -> list[str]:
    """Return the pieces of a text that arrives in deltas of these sizes, which repeat."""
    cutter = ParagraphSplitter()
    pieces: list[str] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)] if sizes else len(text)
        pieces += cutter.feed(text[at : at + size])
        at += size
        turn += 1
    return pieces + cutter.flush()


@given(TEXTS | st.text(), st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=500)
@example("a。**" * 3, [1])
@example("|\n" + " " * 600 + "\n", [1])
def test_pieces_joined_are_the_text_and_do_not_depend_on_the_deltas(text: str, sizes: list[int]) -> None:
    pieces = cut(text, *sizes)
    assert "".join(pieces) == text
    assert all(pieces)
    assert pieces == cut(text)


@example("!\xa0")
@example("!\x1c")
@given(TEXTS)
@settings(max_examples=200)
def test_only_blank_text_gives_a_blank_piece(text: str) -> None:
    pieces = cut(text)
    assert all(piece.strip() for piece in pieces) or not text.strip() or len(text) > 1_000


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("|" + "a|" * 200 + "\n|" + "-|" * 200 + "\n", "|\n"),
        ("- " + "* " * 500 + "\n", "  a\n"),
        ("> " * 500 + "\n", "> a\n"),
        ("```" + "x" * 1000 + "\n", "```a\n"),
    ],
    ids=["table", "list", "quotation", "fence"],
)
def test_short_lines_after_a_complicated_one_cost_no_more_than_others(head: str, row: str) -> None:
    text = head + row * (10_000 // len(row))
    began = time.process_time()
    assert "".join(cut(text, 8)) == text
    assert time.process_time() - began < paced(1.0)


def test_a_table_ends_before_rendering_adds_too_many_cells() -> None:
    columns, rows = 200, 1_000
    text = "|" + "a|" * columns + "\n|" + "-|" * columns + "\n" + "|\n" * rows
    pieces = cut(text)
    assert all((columns + 1) * piece.count("\n") <= TABLE_CELLS_MAX + 3 * columns for piece in pieces[:1])
    assert len(pieces) > 1
    assert "".join(pieces) == text


def test_a_table_with_complete_rows_is_split_by_its_length_only() -> None:
    text = "|a|\n|-|\n" + "|b|\n" * 3_500
    assert len(cut(text)[0]) > PIECE_CHARS_SOFT - 10


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好！世界。“好吗？”他说。", ["你好！", "世界。", "“好吗？”", "他说。"]),
        ("真的?!好 吧!! 是", ["真的?!", "好 吧!! ", "是"]),
        ("Hello! (Really?) Yes.", ["Hello! ", "(Really?) ", "Yes."]),
        ("一行\n二行\n\n三行", ["一行\n", "二行\n\n", "三行"]),
        ("一\r\n\r\n二", ["一\r\n\r\n", "二"]),
        ("句。  \n \n下", ["句。  \n \n", "下"]),
        ("\n\n开始。好", ["\n\n开始。", "好"]),
        ("一\n　　二\n　", ["一\n", "　　二\n　"]),
        ('他说"你好。真好。"然后', ['他说"你好。', '真好。"', "然后"]),
        ('好！"引"', ["好！", '"引"']),
        ("半｡全", ["半｡", "全"]),
        ("前文###标题\n后。文", ["前文", "###标题\n", "后。", "文"]),
        ("前。### 标题？是。\n\n后", ["前。", "### 标题？是。\n\n", "后"]),
        ("# 一！二\n## 三\n", ["# 一！二\n", "## 三\n"]),
    ],
)
def test_the_articles_marks_cut(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces
    assert cut(text, 1) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "见 https://a.example/?q=你!x 吧",
        "if (a != b) ok",
        "版本 1.5 和 2.0",
        "![图!好。](http://a.example/x!.png) 后",
        "[问？答。](http://a.example/?a=1) 后",
        "**重点。还是重点！**",
        "*斜！体*后",
        "~~旧。新~~",
        "`a ? b : c! ` 后",
        "``a`！ b`` 后",
        "$n! = 1。5$",
        r"\(n! \) 后",
        "公式 $$n! \\text{？} $$ 后",
        "公式 $$\nn! \n$$ 后",
        "C# 和 F## 好",
        "是！- 不是列表",
        "字！> 不是引文",
    ],
)
def test_inline_constructs_are_not_split(text: str) -> None:
    if text == "$n! = 1。5$":  # the mark shows that it was not a formula
        assert cut(text) == ["$n! = 1。", "5$"]
    else:
        assert cut(text) == [text]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("好。**重点。**后！`x`", ["好。", "**重点。**", "后！", "`x`"]),
        ("好！![图](u)！完", ["好！", "![图](u)！", "完"]),
        ("a![图](u)！完", ["a![图](u)！", "完"]),
        ("价 $5。再 $6！好", ["价 $5。", "再 $6！", "好"]),
        ("**没有关。\n下。一", ["**没有关。\n", "下。", "一"]),
    ],
)
def test_inline_marks_stay_with_their_sentence(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces
    assert cut(text, 1) == pieces


@pytest.mark.parametrize(
    "block",
    [
        "```py\na! b? c。\n\n# x\n- y\n```\n",
        "~~~\n```\n!\n~~~\n",
        "````\n```\n\n```\n````\n",
        "| a！b | c |\n|---|---|\n| 1? | 2。3 |\n",
        "a | b\n--|--\n1! 2 | 3。4\n",
        "> 引。文\n> 二！三\n",
        "$$\nn!\n= m\n$$\n",
        "\\[\nn! \n\\]\n",
        "- 一。二！\n  续。行\n  - 子。项\n\n    ```py\n    a！b\n\n    c\n    ```\n",
        "1. 一。二\n   - 子\n     - 孙。子\n\n   段。落\n",
        "- ```py\n  a\n\n  b\n  ```\n  后。记\n",
    ],
)
def test_a_block_is_one_piece(block: str) -> None:
    for before, after in (("", ""), ("前。\n", "后"), ("前。\n\n", "\n后")):
        gap = after[: len(after) - len(after.lstrip())]
        told = [before, block + gap, after.lstrip()]
        assert cut(before + block + after) == [piece for piece in told if piece]
        assert cut(before + block + after, 1) == [piece for piece in told if piece]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("- a\n- b\n  - c\n- d\n", ["- a\n", "- b\n  - c\n", "- d\n"]),
        ("1. a\n\n   b\n\n2. c\n\n后", ["1. a\n\n   b\n\n", "2. c\n\n", "后"]),
        ("* a\n+ b\n10) c", ["* a\n", "+ b\n", "10) c"]),
        ("1. a\n```py\nx\n\n```\n2. b", ["1. a\n", "```py\nx\n\n```\n", "2. b"]),
        ("- [x] a。b\n- [ ] c", ["- [x] a。b\n", "- [ ] c"]),
        ("-不。是\n**不**！是", ["-不。", "是\n", "**不**！", "是"]),
    ],
)
def test_a_list_is_split_into_items(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces
    assert cut(text, 1) == pieces


def test_a_sentence_is_returned_with_the_character_that_follows_it() -> None:
    cutter = ParagraphSplitter()
    assert cutter.feed("你好。") == []
    assert cutter.feed("世") == ["你好。"]
    assert cutter.flush() == ["世"]
    assert cutter.flush() == []


def test_a_splitter_can_be_used_again_after_a_flush() -> None:
    cutter = ParagraphSplitter()
    cutter.feed("```\n没有关。\n")
    assert cutter.flush() == ["```\n没有关。\n"]
    assert cutter.feed("你好。世界") == ["你好。"]


@pytest.mark.parametrize("opening", ["**", "`", "[", "[x](", r"\(", "见 $$", "~~", "_"])
def test_an_unclosed_construct_delays_text_only_for_a_while(opening: str) -> None:
    text = opening + "这是一句话。" * 400
    pieces = cut(text, 3)
    assert len(pieces) > 100
    assert max(map(len, pieces)) < HELD_CHARS_MAX + 100


def test_a_formula_that_is_never_closed_ends_at_a_blank_line_or_after_a_while() -> None:
    assert cut("$$\na = b\n\n后。文") == ["$$\na = b\n\n", "后。", "文"]
    assert max(map(len, cut("$$\n" + "a = b。\n" * 3_000))) <= FORMULA_CHARS_MAX


@pytest.mark.parametrize(
    "block", ["```\n" + "x = 1\n" * 9_000, "x" * 50_000, "| a\n" * 9_000, "- " + "y" * 40_000]
)
def test_no_piece_is_larger_than_its_limit(block: str) -> None:
    pieces = cut(block, 7)
    assert "".join(pieces) == block
    assert max(map(len, pieces)) <= PIECE_CHARS_MAX
    assert pieces == cut(block)


UNITS = [
    "你好，世界。",
    "*",
    "[",
    "`a",
    "a|b\n",
    "- a\n",
    "```\n",
    "$$\n",
    "\n",
    " ",
    "###",
    '！"',
    "1. ",
    "\\",
    "$a ",
]


@pytest.mark.parametrize("unit", UNITS)
def test_splitting_takes_linear_time(unit: str) -> None:
    text = unit * (50_000 // len(unit))
    began = time.process_time()
    assert "".join(cut(text, 1)) == text
    assert time.process_time() - began < paced(2.5)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好。", ["你好。"]),
        ("真的?! ", ["真的?! "]),
        ("Hello! ", ["Hello! "]),
        ("一行\n", ["一行\n"]),
        ("## 标题\n", ["## 标题\n"]),
        ("“好。”", ["“好。”"]),
        ("你好", []),
        ("Why?", []),  # it may be the beginning of a query
        ("**粗。", []),
        ("`码。", []),
        ("[链。", []),
        ("- 项\n", []),  # its continuation may follow
        ("| a | b |\n", []),
        ("```\n码。\n", []),
        ("$$\nx。\n", []),
        ("\n\n", []),
        ("", []),
    ],
)
def test_a_pause_returns_what_is_complete(text: str, pieces: list[str]) -> None:
    cutter = ParagraphSplitter()
    said = cutter.feed(text) + cutter.pause()
    assert said == pieces
    assert "".join([*said, *cutter.pause(), *cutter.flush()]) == text


@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=200)
def test_pauses_lose_nothing(text: str, sizes: list[int]) -> None:
    cutter = ParagraphSplitter()
    pieces: list[str] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces += cutter.feed(text[at : at + size]) + cutter.pause()
        at, turn = at + size, turn + 1
    pieces += cutter.flush()
    assert "".join(pieces) == text
    assert all(pieces)

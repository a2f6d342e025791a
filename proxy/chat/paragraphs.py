"""Cut a streamed Markdown text into pieces that can be shown one by one (pure).

A piece is a sentence, a heading, a list item with all that belongs to it, a quotation, a table, a block of
code or a formula. Each is rendered alone, so nothing that Markdown must see as a whole is torn. Joined, the
pieces are the text. They do not depend on how it was split into deltas: each decision is made at a character.
"""

from typing import Final

from proxy.chat.line_kinds import (
    PREFIX_CHARS_MAX,
    Fence,
    LineKind,
    columns_of,
    fence_of,
    is_decided,
    is_table_rule,
    item_columns,
    kind_of,
)
from proxy.chat.sentence_ends import SentenceEnds

PIECE_CHARS_MAX: Final = 16_384
"""At most 64 KiB: longer blocks are cut all the same."""
PIECE_CHARS_SOFT: Final = 12_288
"""From here on a block is cut at the end of a line."""
FORMULA_CHARS_MAX: Final = 2_000
"""A formula that is not closed within these is none."""
LINE_CHARS_KEPT: Final = 1_024
_ENDED_BY_A_LINE: Final = frozenset({LineKind.PARAGRAPH, LineKind.HEADING})


class ParagraphCutter:
    """Cut one text; after `flush` it may cut another."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._sentences = SentenceEnds()
        self._begin("\n")

    def feed(self, text: str) -> list[str]:
        """Take more of the text; give the pieces that are whole."""
        at = 0
        while at < len(text):
            end = self._skip(text, at)
            if end == at:
                self._step(text[at])
                end += 1
            at = end
        return self._taken()

    def pause(self) -> list[str]:
        """What is whole as far as can be seen, when nothing has come for a while; the text may go on."""
        table = self._sentences.pipes or self._loose_table
        if self._kind in _ENDED_BY_A_LINE and self._deciding and not table and not self._line:
            end = self._cut_at
        else:
            end = self._sentences.seen if self._kind is LineKind.PARAGRAPH and not self._deciding else None
        if end is not None and end == self._length and "".join(self._parts).strip():
            self._cut(end)
        return self._taken()

    def flush(self) -> list[str]:
        """The rest, when nothing more comes."""
        if self._deciding and self._cut_at is not None and self._line.strip():
            self._decide()
        if self._length:
            self._pieces.append("".join(self._parts))
        self._begin("\n")
        return self._taken()

    def _taken(self) -> list[str]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin(self, before: str) -> None:
        """Begin a piece, as Markdown reads it: at the beginning of a line."""
        self._sentences.begin(before)
        self._parts: list[str] = []
        self._length = 0
        self._cut_at: int | None = None
        self._begin_line()
        self._kind: LineKind | None = None
        self._fence: Fence | None = None
        self._item = 0
        self._formula_end = ""
        self._formula_start = 0
        self._formula_opens = False
        self._loose_table = False

    def _begin_line(self) -> None:
        self._deciding = True
        self._blank = False
        self._line = ""
        self._sentences.begin_line()

    def _skip(self, text: str, at: int) -> int:
        """Take at once what decides nothing; give where it ends."""
        if self._deciding:
            return at
        most = at + self._most() - 1 - self._length
        if self._kind is not LineKind.PARAGRAPH:
            end = text.find("\n", at, most)
            end = min(len(text), most) if end < 0 else end
            self._keep_line(text[at:end])
        else:
            end = self._sentences.skip(text, at, max(at, most))
        if end > at:
            self._parts.append(text[at:end])
            self._length += end - at
        return max(at, end)

    def _keep_line(self, text: str) -> None:
        self._line += text[: max(0, LINE_CHARS_KEPT - len(self._line))]

    def _step(self, char: str) -> None:
        self._parts.append(char)
        self._length += 1
        if char == "\n":
            self._end_line()
        elif self._deciding:
            self._line += char
            if self._is_decided():
                self._decide()
        elif self._kind is LineKind.PARAGRAPH:
            self._read(char, self._length)
        else:
            self._keep_line(char)
        if self._length >= self._most():
            self._give_all()

    def _most(self) -> int:
        """How long the piece may become."""
        if self._kind is LineKind.FORMULA:
            return min(PIECE_CHARS_MAX, self._formula_start + FORMULA_CHARS_MAX)
        return PIECE_CHARS_MAX

    # --- lines

    def _is_decided(self) -> bool:
        if self._sentences.pipes or self._loose_table:  # this line as a whole tells whether there is a table
            return len(self._line) >= PREFIX_CHARS_MAX
        return is_decided(self._line)

    def _end_line(self) -> None:
        if self._deciding:
            if not self._line.strip():
                self._end_blank_line()
                return
            self._line += "\n"
            if self._decide(ended=True):
                return
        match self._kind:
            case LineKind.PARAGRAPH:
                self._end_paragraph()
            case LineKind.ITEM:
                self._end_item_line()
            case LineKind.FENCE:
                self._end_fence_line()
            case LineKind.FORMULA:
                self._end_formula_line()
            case _:
                self._end_block_line()

    def _end_blank_line(self) -> None:
        """Blank lines belong to what stands before them."""
        self._line = ""
        self._blank = True
        if self._cut_at is not None:
            self._cut_at = self._length

    def _decide(self, *, ended: bool = False) -> bool:
        """Say what a line begins. Gives whether the piece was cut before it, and the line read anew."""
        kind = kind_of(self._line)
        goes_on = self._cut_at is not None and self._goes_on(kind)
        if self._cut_at is not None and not goes_on:
            self._cut(self._cut_at)
            return True
        self._cut_at = None
        self._deciding = False
        if goes_on:
            return False
        line, self._kind = self._line, kind
        if kind is LineKind.ITEM:
            self._item = item_columns(line)
        elif kind is LineKind.FORMULA:
            self._formula_end = "$$" if line.lstrip().startswith("$$") else "\\]"
            self._formula_start = self._length - len(line)
            self._formula_opens = True
        elif kind is LineKind.PARAGRAPH:
            return self._read_again(line.removesuffix("\n") if ended else line, self._length - len(line))
        return False

    def _read_again(self, line: str, start: int) -> bool:
        """Read the beginning of a paragraph's line for sentences. Gives whether the piece was cut in it."""
        for place in range(len(line) - len(line.lstrip(" \t\r")), len(line)):
            if self._read(line[place], start + place + 1):
                return True
        return False

    def _goes_on(self, kind: LineKind) -> bool:
        """Whether a line belongs to the block before it."""
        if self._kind is LineKind.ITEM:
            return columns_of(self._line) >= self._item
        if self._blank:
            return False
        if self._sentences.pipes and is_table_rule(self._line):
            self._kind, self._sentences.pipes, self._loose_table = LineKind.TABLE, False, True
            return True
        if self._loose_table:
            return "|" in self._line
        return kind is self._kind and kind in {LineKind.QUOTE, LineKind.TABLE}

    def _end_paragraph(self) -> None:
        formula_end = self._sentences.end_line()
        if formula_end:
            self._kind, self._formula_end = LineKind.FORMULA, formula_end
            self._formula_start = self._length
            self._cut_at, self._line = None, ""
        else:
            self._end_block_line()

    def _end_block_line(self) -> None:
        """The piece may end here: what comes next tells."""
        self._begin_line()
        if self._length >= PIECE_CHARS_SOFT:
            self._cut(self._length)
        else:
            self._cut_at = self._length

    def _end_item_line(self) -> None:
        self._fence = fence_of(self._line.removesuffix("\n"))
        if self._fence is None:
            self._end_block_line()
        else:
            self._kind, self._line = LineKind.FENCE, ""

    def _end_fence_line(self) -> None:
        line, self._line = self._line, ""
        if self._fence is None:
            self._fence = fence_of(line.removesuffix("\n"))
            if self._fence is None:  # inline code
                self._end_block_line()
        elif self._fence.is_closed_by(line):
            self._fence = None
            if self._item:
                self._kind = LineKind.ITEM
            self._end_block_line()
        elif self._length >= PIECE_CHARS_SOFT:
            self._give_all()

    def _end_formula_line(self) -> None:
        line, self._line = self._line, ""
        body = line.lstrip()[2:] if self._formula_opens else line
        self._formula_opens = False
        if self._formula_end in body or not line.strip():
            self._end_block_line()

    # --- pieces

    def _read(self, char: str, place: int) -> bool:
        """Take a character of a paragraph; `place` is the one behind it. Gives whether the piece was cut."""
        end = self._sentences.take(char, place)
        if end is None or not "".join(self._parts)[:end].strip():
            return False
        self._cut(end)
        return True

    def _cut(self, place: int) -> None:
        """Give what stands before a place, and read what stands after it anew."""
        whole = "".join(self._parts)
        piece = whole[:place]
        self._pieces.append(piece)
        self._begin(piece)
        for char in whole[place:]:
            self._step(char)

    def _give_all(self) -> None:
        """Give a piece that became too long, and go on in the same block."""
        piece = "".join(self._parts)
        self._pieces.append(piece)
        self._parts, self._length, self._cut_at, self._formula_start = [], 0, None, 0
        self._sentences.begin(piece)
        if self._kind in {None, LineKind.FORMULA}:
            self._kind = LineKind.PARAGRAPH
        self._deciding = False

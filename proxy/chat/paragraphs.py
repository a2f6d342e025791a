"""Cut a streamed Markdown text into pieces that can be shown one by one (pure).

A sentence, a heading, a list item with what belongs to it, a quotation, a table, a block of code or a formula is
a piece. Each is rendered alone, so nothing that Markdown must see as a whole is torn. Joined, the pieces are the
text, and they do not depend on how it was split into deltas: every decision is made one character at a time.
"""

import re
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
from proxy.chat.open_spans import OpenSpans

PIECE_CHARS_MAX: Final = 16_384
"""At most 64 KiB: longer blocks are cut all the same."""
PIECE_CHARS_SOFT: Final = 12_288
"""From here on a block is cut at the end of a line."""
FORMULA_CHARS_MAX: Final = 4_000
"""A formula that is not closed within these is none."""
LINE_CHARS_KEPT: Final = 1_024

_FULL_WIDTH_MARKS: Final = frozenset("。！？｡")
_MARKS: Final = _FULL_WIDTH_MARKS | frozenset("!?")
_CLOSERS: Final = frozenset("”’）)】》〉」』〕］]}»")
_BLANKS: Final = frozenset(" \t\r\u3000")
# After a mark these would begin a list or a quotation where the text has none.
_BLOCK_MARKS: Final = frozenset("-+>|")
_PLAIN: Final = re.compile(r"[^\s\\\[\]()（）<>\"'|*_~`$#:/!?。！？｡，、；：“”‘’《》〉〕］「」『』【】»}]+")


class ParagraphCutter:
    """Cut one text; after `flush` it may cut another."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._spans = OpenSpans()
        self._quoted_before = self._quoted = False
        self._begin()

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

    def flush(self) -> list[str]:
        """The rest, when nothing more comes."""
        if self._deciding and self._cut_at is not None and self._line.strip():
            self._decide()
        if self._length:
            self._pieces.append("".join(self._parts))
        self._begin()
        self._quoted_before = self._quoted = False
        return self._taken()

    def _taken(self) -> list[str]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin(self) -> None:
        """Begin a piece, at the beginning of a line."""
        self._parts: list[str] = []
        self._length = 0
        self._cut_at: int | None = None
        self._sure = False
        self._before_bang: int | None = None
        self._banged = False
        self._begin_line()
        self._kind: LineKind | None = None
        self._fence: Fence | None = None
        self._item = 0
        self._formula_end = ""
        self._formula_start = 0
        self._formula_opens = False
        self._pipes = False
        self._loose_table = False

    def _begin_line(self) -> None:
        self._deciding = True
        self._blank = False
        self._line = ""
        self._spans.clear()

    def _skip(self, text: str, at: int) -> int:
        """Take at once what decides nothing; give where it ends."""
        if self._deciding:
            return at
        most = at + PIECE_CHARS_MAX - 1 - self._length
        if self._kind is not LineKind.PARAGRAPH:
            end = text.find("\n", at, most)
            end = min(len(text), most) if end < 0 else end
            self._keep_line(text[at:end])
        elif self._cut_at is None and self._spans.idle and (plain := _PLAIN.match(text, at, max(at, most))):
            end = plain.end()
            self._spans.skip(plain.group())
        else:
            return at
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
        if self._length >= PIECE_CHARS_MAX:
            self._give_all()

    # --- lines

    def _is_decided(self) -> bool:
        if self._pipes or self._loose_table:  # this line as a whole tells whether there is a table
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
        if self._pipes and is_table_rule(self._line):
            self._kind, self._pipes, self._loose_table = LineKind.TABLE, False, True
            return True
        if self._loose_table:
            return "|" in self._line
        return kind is self._kind and kind in {LineKind.QUOTE, LineKind.TABLE}

    def _end_paragraph(self) -> None:
        if self._spans.run:
            self._spans.end_run("\n")
        if self._spans.display:
            self._kind, self._formula_end = LineKind.FORMULA, self._spans.display
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
        too_long = self._length - self._formula_start > FORMULA_CHARS_MAX
        if self._formula_end in body or not line.strip() or too_long:
            self._end_block_line()

    # --- sentences

    def _read(self, char: str, end: int) -> bool:
        """Take a character of a paragraph; `end` is the length of the piece with it. Gives whether it was cut."""
        spans = self._spans
        if spans.run and char != spans.run[0] and self._end_run(char, end):
            return True
        if spans.begins_run(char):
            heading = spans.run == "###" and not spans.open and not spans.verbatim
            return heading and self._cut_before_heading(end - 3)
        was_open = spans.open
        spans.take(char)
        self._quoted ^= char == '"'
        self._pipes = self._pipes or char == "|"
        if char in _MARKS:
            if not spans.verbatim:
                self._mark(char, end)
            return False
        return self._cut_at is not None and self._go_on_from_mark(char, end, torn=was_open)

    def _end_run(self, char: str, end: int) -> bool:
        """Let delimiters work: those that close belong to the sentence, others to the next."""
        run, torn = self._spans.run, self._spans.open
        closed = self._spans.end_run(char)
        if self._cut_at is None:
            return False
        if closed and self._cut_at == end - 1 - len(run):
            self._cut_at = end - 1
            return False
        return self._settle("-" if run == "*" and char in _BLANKS else run[0], torn=torn)

    def _mark(self, char: str, end: int) -> None:
        self._banged = char == "!"
        self._before_bang = self._cut_at
        self._sure = char in _FULL_WIDTH_MARKS or (self._sure and self._cut_at is not None)
        self._cut_at = end

    def _go_on_from_mark(self, char: str, end: int, *, torn: bool) -> bool:
        if char in _BLANKS:
            self._sure = True
            self._cut_at = end
            return False
        if char in _CLOSERS or (char == '"' and not self._quoted):
            self._cut_at = end
            return False
        if char == "[" and self._cut_at == end - 1 and self._banged:
            self._cut_at = self._before_bang  # an image begins with the mark
        self._sure = self._sure or not char.isascii()
        return self._settle(char, torn=torn)

    def _settle(self, char: str, *, torn: bool) -> bool:
        """Cut after a mark, if it ends a sentence. Gives whether it did."""
        cut_at, self._cut_at = self._cut_at, None
        if cut_at is None or torn or not self._sure or char in _BLOCK_MARKS:
            return False
        self._cut(cut_at)
        return True

    def _cut_before_heading(self, place: int) -> bool:
        if not "".join(self._parts)[:place].strip():
            return False
        self._cut(place)
        return True

    # --- pieces

    def _cut(self, place: int) -> None:
        """Give what stands before a place, and read what stands after it anew."""
        whole = "".join(self._parts)
        piece = whole[:place]
        self._pieces.append(piece)
        self._quoted_before ^= piece.count('"') % 2 == 1
        self._quoted_before &= not piece.endswith("\n")
        self._quoted = self._quoted_before
        self._begin()
        for char in whole[place:]:
            self._step(char)

    def _give_all(self) -> None:
        """Give a piece that became too long, and go on in the same block."""
        self._pieces.append("".join(self._parts))
        self._parts, self._length, self._cut_at, self._formula_start = [], 0, None, 0
        self._quoted_before = self._quoted
        if self._deciding:
            self._deciding, self._kind = False, self._kind or LineKind.PARAGRAPH
        self._spans.clear()

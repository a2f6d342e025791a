"""Split a streamed Markdown text into pieces that a page can show one by one.

A piece is a sentence, a heading, a list item with everything inside it, a quotation, a table, a code block or
a formula. Each piece is rendered alone, so no Markdown construct is split. Joined, the pieces are the text.
They do not depend on how the text was split into deltas: a decision depends only on the text before it.

markdown-it says which block a line begins or continues. To keep the cost linear, it is not given the whole
block again with every line, but an excerpt: the first line of the block, and the line in question.
"""

import re
from typing import Final, Literal

from proxy.chat.markdown import OpenSpans, find_blocks

PIECE_CHARS_MAX: Final = 16_384
"""The maximum length of a piece, at most 64 KiB; longer blocks are split anywhere."""
PIECE_CHARS_SOFT: Final = 12_288
"""A longer block is split at the end of a line."""
FORMULA_CHARS_MAX: Final = 2_000
"""A formula that is not closed within this length is not treated as one."""
HELD_CHARS_MAX: Final = 400
"""How far back an unclosed inline construct prevents the end of a sentence."""
PREFIX_CHARS_MAX: Final = 512
"""The length of a line's beginning that decides which block it belongs to."""
TABLE_CELLS_MAX: Final = PIECE_CHARS_MAX // 2
"""Cells of a piece of a table, with those that its rows lack: rendering adds them, at 20 µs each. A table
whose rows are complete never has more."""
_EXCERPT_CHARS: Final = 1_024
_SMALL_TABLE: Final = "|x|\n|-|\n"
"""Represents any table: which line continues it does not depend on its columns."""

# A line prefix that does not yet determine the type of its block.
_UNDECIDED: Final = re.compile(r"[^\S\n]*(?:#{1,6}|`{1,2}|~{1,2}|[-+*]|\d{1,9}[.)]?|\$|\\)?")
_ITEM_MARKER: Final = re.compile(r"([^\S\n]*(?:[-+*]|\d{1,9}[.)]))([^\S\n]{1,4}(?=\S))?")
_TABLE_ROW: Final = re.compile(r"[^\S\n]*\|")
_FORMULA: Final = re.compile(r"\s*(\$\$|\\\[)")
_FORMULA_ENDS: Final = {"$$": "$$", "\\[": "\\]"}

_FULL_WIDTH_MARKS: Final = frozenset("。！？｡")
_MARKS: Final = _FULL_WIDTH_MARKS | frozenset("!?")
_CLOSERS: Final = frozenset("”’）)】》〉」』〕］]}»")
_EMPHASIS: Final = re.compile(r"([*_~])\1*")
# At the beginning of a piece these would begin a list or a quotation that the text does not have.
_BLOCK_MARKS: Final = frozenset("-+>|")
# A heading in the middle of a line, as the article's model writes them, or the end of a sentence.
_EVENT: Final = re.compile(r"###|[!?。！？｡]")
_HEADING: Final = "###"
_URL: Final = re.compile(r"://[^\s<>\"'()（），、；：。！？｡“”‘’《》「」『』【】]*$")

BlockType = Literal["paragraph", "list_item", "blockquote", "table", "fence", "formula", "line"]
"""`line` is a block that ends with its line: a heading, a rule, or the last line of a fence or a formula."""


class ParagraphSplitter:
    """Split one text; after `flush`, another."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._text = ""  # not returned yet
        self._quoted = False
        self._begin_block()

    def feed(self, text: str) -> list[str]:
        """Take more of the text, and return the pieces that are complete."""
        start = 0
        while start < len(text):
            end = start + self._limit() - len(self._text)
            self._text += text[start:end]
            start = end
            self._read()
            if len(self._text) >= self._limit():
                self._split_block(self._limit())
        return self._take_pieces()

    def pause(self) -> list[str]:
        """Return what looks complete when no text has arrived for a while; the text may still go on."""
        length = len(self._text)
        if self._line == length and self._text.strip():
            complete = self._block in {"paragraph", "line"} and not self._awaits_table()
        else:
            ended = self._mark is not None and self._sure and self._at == length
            complete = ended and not self._open_spans(length)
        if complete:
            self._cut(length)
        return self._take_pieces()

    def flush(self) -> list[str]:
        """Return the rest of a text that is complete."""
        if not self._decided and self._block and self._text[self._line :].strip():
            self._place(self._text[self._line :])
            self._read()
        if self._text:
            self._cut(len(self._text))
        self._quoted = False
        return self._take_pieces()

    def _take_pieces(self) -> list[str]:
        pieces, self._pieces = self._pieces, []
        return pieces

    # --- pieces

    def _begin_block(self) -> None:
        self._block: BlockType | None = None
        self._excerpt = ""  # represents the block when the next line is assigned
        self._formula_start = 0
        self._formula_end = ""
        self._columns = self._cells = 0  # of a table, at most, with cells that rows lack
        self._begin_line(0)

    def _begin_line(self, start: int) -> None:
        self._line = start  # where the current line begins
        self._at = start  # how far the text has been read
        self._decided = False  # whether the line has been assigned to a block
        self._blank = False  # whether a blank line precedes it
        self._mark: int | None = None  # where the marks begin that may end a sentence
        self._sure = False  # whether they are not part of an expression such as `!=`
        self._held_until = start  # up to where marks are ignored, because a construct is open

    def _cut(self, end: int) -> None:
        """End a piece here; the next piece begins a block."""
        self._return(end)
        self._begin_block()

    def _split_block(self, end: int) -> None:
        """End a piece here because it is too long, and continue in the same block."""
        if self._block == "formula":
            self._block, self._excerpt, self._formula_end = "paragraph", "", ""
        self._return(end)
        self._line, self._at, self._mark, self._held_until = 0, 0, None, 0
        self._columns = self._cells = 0  # what follows has no head

    def _return(self, end: int) -> None:
        piece, self._text = self._text[:end], self._text[end:]
        if not piece:
            return
        self._pieces.append(piece)
        odd = piece.count('"') % 2 == 1
        self._quoted = self._quoted != odd and not piece.endswith("\n")

    def _limit(self) -> int:
        if self._block == "formula":
            return min(PIECE_CHARS_MAX, self._formula_start + FORMULA_CHARS_MAX)
        return PIECE_CHARS_MAX

    # --- lines

    def _read(self) -> None:
        """Read as far as the text allows decisions."""
        advanced = True
        while advanced:
            if not self._decided:
                advanced = self._read_line_beginning()
            elif self._block == "paragraph":
                advanced = self._read_sentence()
            else:
                advanced = self._read_line_end()

    def _read_line_beginning(self) -> bool:
        text, start = self._text, self._line
        limit = start + PREFIX_CHARS_MAX
        if self._awaits_table() or self._block == "table" or _TABLE_ROW.match(text, start):
            end = text.find("\n", self._at, limit) + 1 or limit  # the whole line decides
        else:
            undecided = _UNDECIDED.match(text, start, limit)
            end = min(start + 1 if undecided is None else undecided.end() + 1, limit)
        if end > len(text):
            self._at = len(text)
            return False
        prefix = text[start:end]
        if prefix.endswith("\n") and not prefix.strip():  # blank lines belong to the block before them
            self._begin_line(end)
            self._blank = True
        else:
            self._place(prefix)
        return True

    def _place(self, line: str) -> None:
        """Assign a line to a block, given enough of its beginning."""
        if self._block is None:
            self._block = _block_type(line)
            if self._block == "formula":
                self._formula_start = self._line
        elif not self._continues(line):
            self._cut(self._line)
            return
        self._decided = True
        # A row that may be the head of a table has no sentences.
        self._at = self._line + (len(line) - 1 if _TABLE_ROW.match(line) else 0)

    def _continues(self, line: str) -> bool:
        """Return whether a line belongs to the block before it."""
        if self._blank and self._block != "list_item":
            return False
        if self._awaits_table():
            excerpt = self._excerpt + _shorten(line)
            if find_blocks(excerpt)[0].type == "table":
                self._block, self._excerpt = "table", _SMALL_TABLE
                self._columns = self._text[: self._line].strip().strip("|").count("|") + 1
                self._cells = self._columns
            return self._block == "table"
        # Models forget the blank line after a table: only a line with a pipe is a row.
        may_continue = self._block in {"list_item", "blockquote"} or (self._block == "table" and "|" in line)
        return may_continue and len(find_blocks(self._excerpt + _shorten(line))) == 1

    def _awaits_table(self) -> bool:
        """Return whether the block is a paragraph that may turn out to be the head of a table."""
        return self._block == "paragraph" and "|" in self._excerpt and not self._blank

    def _read_line_end(self) -> bool:
        newline = self._text.find("\n", self._at, self._limit())
        if newline >= 0:
            self._end_line(newline + 1)
        elif len(self._text) > self._limit():
            self._split_block(self._limit())
        else:
            self._at = len(self._text)
            return False
        return True

    def _end_line(self, end: int) -> None:
        line = self._text[self._line : end]
        if self._block == "formula":
            self._end_formula_line(line)
        elif self._block == "fence" and self._excerpt:
            mark = self._excerpt.lstrip()[:3]
            if mark in line and len(find_blocks(self._excerpt + _shorten(line) + "x\n")) > 1:
                self._block = "line"
        elif not self._excerpt:
            self._end_first_line(line, end)
        block = self._block
        self._begin_line(end)
        self._decided = block in {"fence", "formula"}
        self._cells += self._columns
        if end >= PIECE_CHARS_SOFT or self._cells > TABLE_CELLS_MAX:
            self._split_block(end)

    def _end_first_line(self, line: str, end: int) -> None:
        """Set the excerpt that represents the block when the next line is assigned."""
        if self._block != "paragraph":
            self._block = _block_type(line)
        self._excerpt = _shorten(line)
        if self._block == "list_item":
            # Content, and then a blank line: otherwise the next line could continue a paragraph in the item
            # without being indented, which models do not mean.
            # Lists inside it do not decide that, and each of them would cost time with every line.
            marker = _ITEM_MARKER.match(line)
            if marker is not None:
                self._excerpt = f"{marker[1]}{marker[2] or ' '}x\n\n"
        elif self._block == "blockquote":
            self._excerpt = ">\n"  # for the same reason
        elif self._block == "paragraph":
            self._formula_end = self._open_spans(end - 1).formula
            if self._formula_end:
                self._block, self._formula_start = "formula", end

    def _end_formula_line(self, line: str) -> None:
        opening = None if self._formula_end else _FORMULA.match(line)
        if opening is not None:
            self._formula_end = _FORMULA_ENDS[opening[1]]
            line = line[opening.end() :]
        if self._formula_end in line or not (line.strip() or opening):
            self._block = "line"

    # --- sentences

    def _read_sentence(self) -> bool:
        """Find the next place where a sentence of a paragraph may end, or the end of the line."""
        if self._mark is not None:
            return self._read_sentence_end()
        event = _EVENT.search(self._text, self._at)
        newline = self._text.find("\n", self._at, event.start() if event else len(self._text))
        if newline >= 0:
            self._at = newline + 1
            self._end_line(newline + 1)
        elif event is None:
            self._at = max(self._at, len(self._text) - len(_HEADING) + 1)
            return False
        elif event.start() < self._held_until or self._is_in_url(event.start()):
            self._at = event.end()
        elif event[0] == _HEADING:
            self._at = event.end()
            self._cut_sentence(event.start())
        else:
            self._mark = self._at = event.start()
            self._sure = False
        return True

    def _read_sentence_end(self) -> bool:
        """Read the end of a sentence: marks, blanks, and closing quotes, brackets and emphasis."""
        while self._at < len(self._text):
            char = self._text[self._at]
            emphasis = _EMPHASIS.match(self._text, self._at)
            after = self._at + 1 if emphasis is None else emphasis.end()
            if emphasis is not None and after == len(self._text):
                return False  # the run may go on
            if char == "\n":
                self._mark = None
                return True
            if char in _MARKS:
                self._sure = self._sure or char in _FULL_WIDTH_MARKS
            elif char.isspace():
                self._sure = True
            elif emphasis is not None:
                opens = self._text[self._at - 1].isspace()
                if opens or char not in self._open_spans(self._at).emphasis:
                    is_list = emphasis[0] == "*" and self._text[after].isspace()
                    return self._begin_sentence("-" if is_list else char)
            elif not (char in _CLOSERS or self._closes_quote(char)):
                return self._begin_sentence(char)
            self._at = after
        return False

    def _begin_sentence(self, char: str) -> bool:
        """Cut before the character that follows a mark, if that confirms the end of a sentence.

        A half-width mark only counts before a blank or a wide character: `!=`, `![` and `?q=` do not count.
        """
        start, end, self._mark = self._mark, self._at, None
        if char == "[" and self._text[end - 1] == "!":  # an image
            end -= 1
        sure = self._sure or not char.isascii()
        is_link = char == "(" and self._text[end - 1] == "]"
        if end != start and sure and char not in _BLOCK_MARKS and not is_link:
            self._cut_sentence(end)
        return True

    def _cut_sentence(self, end: int) -> None:
        if not self._text[:end].strip():
            return
        if self._open_spans(end):
            # To keep the cost linear, do not look again after each of many short sentences.
            self._held_until = end + (end - self._line) // 8
        else:
            self._cut(end)

    def _open_spans(self, end: int) -> OpenSpans:
        return OpenSpans(self._text[max(self._line, end - HELD_CHARS_MAX) : end])

    def _closes_quote(self, char: str) -> bool:
        return char == '"' and self._quoted != (self._text.count('"', self._line, self._at) % 2 == 1)

    def _is_in_url(self, place: int) -> bool:
        return _URL.search(self._text, max(self._line, place - HELD_CHARS_MAX), place) is not None


def _block_type(line: str) -> BlockType:
    """Return the type of block that a line begins."""
    if _FORMULA.match(line):
        return "formula"
    blocks = find_blocks(_shorten(line))
    match blocks[0].type if blocks else "paragraph":
        case "paragraph" | "list_item" | "blockquote" | "fence" as found:
            return found
        case _:
            return "line"


def _shorten(line: str) -> str:
    """Return the beginning of a line, which is enough to know its block."""
    return f"{line[:_EXCERPT_CHARS].rstrip()}\n"

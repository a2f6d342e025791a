"""Where the sentences of a paragraph end, read character by character (pure).

The marks are ! ? 。 in half and full width, with the closing quotes, brackets and blanks that follow. A
half-width mark counts only before a blank or a wide character, so that `!=`, `![` and `?q=` are none. `###`
begins a heading, wherever it stands.
"""

import re
from typing import Final

from proxy.chat.open_spans import OpenSpans

PLAIN: Final = re.compile(
    r"[^\t\r\n\\\[\]()（）<>\"'|*_~`$#:/!?。！？｡，、；：“”‘’《》〉〕］「」『』【】»}]+"
)
"""Characters that end, open and close nothing; a blank does so only behind a mark or an address."""

_FULL_WIDTH_MARKS: Final = frozenset("。！？｡")
_MARKS: Final = _FULL_WIDTH_MARKS | frozenset("!?")
_CLOSERS: Final = frozenset("”’）)】》〉」』〕］]}»")
# After a mark these would begin a list or a quotation where the text has none.
_BLOCK_MARKS: Final = frozenset("-+>|")
_HEADING: Final = "###"


class SentenceEnds:
    """Find the places to cut in a paragraph's line. Places count from the beginning of the piece."""

    def __init__(self) -> None:
        self._spans = OpenSpans()
        self._quoted_before = False
        self.begin("\n")

    def begin(self, before: str) -> None:
        """Begin a piece.

        Args:
            before: The piece before it: within a line a straight quote may still be open.
        """
        odd = before.count('"') % 2 == 1
        self._quoted_before = (self._quoted_before != odd) and not before.endswith("\n")
        self._quoted = self._quoted_before
        self.pipes = False
        """Whether there is a pipe, as in a table's head."""
        self.begin_line()

    def begin_line(self) -> None:
        """Begin a line: nothing stays open over its end."""
        self._spans.clear()
        self._end: int | None = None
        self._sure = False
        self._before_bang: int | None = None
        self._banged = False

    @property
    def seen(self) -> int | None:
        """Where a sentence ends unless a closing quote still follows; None inside of one."""
        return self._end if self._sure and not self._spans.open and not self._spans.run else None

    def end_line(self) -> str:
        """Read the line's end. Gives what closes the formula that goes on behind it, if there is one."""
        if self._spans.run:
            self._spans.end_run("\n")
        return self._spans.display

    def skip(self, text: str, start: int, end: int) -> int:
        """Take at once what decides nothing; give where it ends."""
        if self._end is not None or not self._spans.idle:
            return start
        plain = PLAIN.match(text, start, end)
        if plain is None:
            return start
        self._spans.skip(plain.group())
        return plain.end()

    def take(self, char: str, place: int) -> int | None:
        """Take a character.

        Args:
            char: Any but a line feed.
            place: The one behind it.

        Returns:
            Where a piece ends, once that is sure.
        """
        spans = self._spans
        if spans.run and char != spans.run[0]:
            end = self._end_run(char, place)
            if end is not None:
                return end
        if spans.begins_run(char):
            heading = spans.run == _HEADING and not spans.open and not spans.verbatim
            return place - len(_HEADING) if heading else None
        torn = spans.open
        spans.take(char)
        self._quoted ^= char == '"'
        self.pipes = self.pipes or char == "|"
        if char in _MARKS:
            if not spans.verbatim:
                self._take_mark(char, place)
            return None
        return None if self._end is None else self._follow(char, place, torn=torn)

    def _end_run(self, char: str, place: int) -> int | None:
        """Let delimiters work: those that close belong to the sentence, others to the next."""
        run, torn = self._spans.run, self._spans.open
        closed = self._spans.end_run(char)
        if self._end is None:
            return None
        if closed and self._end == place - 1 - len(run):
            self._end = place - 1
            return None
        return self._settle("-" if run == "*" and char.isspace() else run[0], torn=torn)

    def _take_mark(self, char: str, place: int) -> None:
        self._banged = char == "!"
        self._before_bang = self._end
        self._sure = char in _FULL_WIDTH_MARKS or (self._sure and self._end is not None)
        self._end = place

    def _follow(self, char: str, place: int, *, torn: bool) -> int | None:
        """Take what follows a mark."""
        if char.isspace():
            self._sure = True
            self._end = place
            return None
        if char in _CLOSERS or (char == '"' and not self._quoted):
            self._end = place
            return None
        if char == "[" and self._banged and self._end == place - 1:
            self._end = self._before_bang  # an image begins with the mark
        self._sure = self._sure or not char.isascii()
        return self._settle(char, torn=torn)

    def _settle(self, char: str, *, torn: bool) -> int | None:
        """Say whether the mark ends a sentence, now that another begins with `char`."""
        end, self._end = self._end, None
        return None if torn or not self._sure or char in _BLOCK_MARKS else end

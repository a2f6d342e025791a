"""Which inline constructs of Markdown are open while a line is read, character by character (pure).

A guess that is good enough not to tear them: https://spec.commonmark.org/0.31.2/#inlines has the full rules,
which need the whole line. A construct that stays open for too long is taken for none.
"""

from typing import Final

HELD_CHARS_MAX: Final = 400
"""For so long an open construct holds a sentence back."""

RUN_CHARS: Final = frozenset("*_~`$#")
_URL_ENDS: Final = frozenset(" \t\r\n<>\"'()（），、；：。！？｡“”‘’《》「」『』【】")
_SENTENCE_ENDS: Final = frozenset("。！？｡")


class OpenSpans:
    """Emphasis, code, formulas, links and addresses that are open."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a line."""
        self.run = ""
        """The delimiters that came last: what they do is told by what follows them."""
        self._before_run = ""
        self._last = ""
        self._escaped = False
        self._slashes = 0
        self._drop()

    def _drop(self) -> None:
        self._code = 0
        self._formula = ""
        self._emphasis: list[tuple[str, int]] = []
        self._brackets = 0
        self._after_bracket = False
        self._target = 0
        self._url = False
        self._age = 0

    @property
    def open(self) -> bool:
        """Whether to cut here would tear something."""
        return bool(
            self._code
            or self._formula
            or self._emphasis
            or self._brackets
            or self._after_bracket
            or self._target
        )

    @property
    def verbatim(self) -> bool:
        """Whether a mark here ends no sentence."""
        return bool(self._code or self._formula or self._target or self._url)

    @property
    def display(self) -> str:
        """What closes the formula that may run over several lines, if one is open."""
        return self._formula if self._formula in {"$$", "\\]"} else ""

    @property
    def idle(self) -> bool:
        """Whether plain characters would change nothing but how long things are open."""
        return not (self.run or self._escaped or self._after_bracket or self._slashes or self._url)

    def begins_run(self, char: str) -> bool:
        """Whether a character begins, or lengthens, a run of delimiters."""
        if self._escaped or char not in RUN_CHARS:
            return False
        if not self.run:
            self._before_run = self._last
        self.run += char
        return True

    def end_run(self, after: str) -> bool:
        """Let the run do what it does.

        Args:
            after: The character that follows it.

        Returns:
            Whether it closed something.
        """
        run, self.run, self._last = self.run, "", self.run[-1]
        self._after_bracket = False
        self._slashes = 0
        self._grow(len(run))
        if run[0] == "`":
            return self._end_code(len(run))
        if run[0] == "$":
            return self._end_dollars(run, after)
        return run[0] != "#" and not self.verbatim and self._end_emphasis(run, after)

    def take(self, char: str) -> None:
        """Take a character that is in no run."""
        self._grow(1)
        if self._escaped:
            self._escaped = False
            self._take_escaped(char)
        elif char == "\\" and not self._code:
            self._escaped = True
        elif not self._code and not self._formula:
            self._take_link(char)
        if char in _SENTENCE_ENDS and self._formula == "$":
            self._formula = ""  # a price, no formula
        self._last = char

    def skip(self, plain: str) -> None:
        """Take several plain characters at once."""
        self._grow(len(plain))
        self._last = plain[-1]

    def _grow(self, chars: int) -> None:
        if not self.open:
            self._age = 0
            return
        self._age += chars
        if self._age > HELD_CHARS_MAX:
            self._drop()

    def _end_code(self, ticks: int) -> bool:
        if self._formula:
            return False
        if not self._code:
            self._code = ticks
            return False
        closed = ticks == self._code
        if closed:
            self._code = 0
        return closed

    def _end_dollars(self, run: str, after: str) -> bool:
        if self._code or self._target:
            return False
        if self._formula:
            closed = run == self._formula and (len(run) == 2 or not self._before_run.isspace())
            if closed:
                self._formula = ""
            return closed
        if run == "$$" or (run == "$" and not after.isspace()):
            self._formula = run
        return False

    def _end_emphasis(self, run: str, after: str) -> bool:
        before, mark = self._before_run or " ", run[0]
        opens, closes = not after.isspace(), not before.isspace()
        if mark == "_":
            opens, closes = opens and not before.isalnum(), closes and not after.isalnum()
        if mark == "~" and len(run) != 2:
            return False
        places = [place for place, (opened, _) in enumerate(self._emphasis) if opened == mark]
        if closes and places:
            left = len(run)
            while places and left > 0:
                place = places.pop()
                left -= self._emphasis[place][1]
                del self._emphasis[place:]
            return True
        if opens:
            self._emphasis.append((mark, len(run)))
        return False

    def _take_escaped(self, char: str) -> None:
        if self._formula and self._formula == "\\" + char:
            self._formula = ""
        elif not self._formula and char in "([" and not self._target:
            self._formula = "\\)" if char == "(" else "\\]"

    def _take_link(self, char: str) -> None:
        after_bracket, self._after_bracket = self._after_bracket, False
        if self._target:
            self._target += (char == "(") - (char == ")")
        elif char == "(" and after_bracket:
            self._target = 1
        elif char == "[":
            self._brackets += 1
        elif char == "]" and self._brackets:
            self._brackets -= 1
            self._after_bracket = True
        if char in _URL_ENDS:
            self._url = False
        self._slashes = self._count_slashes(char)
        if self._slashes == 3:
            self._url, self._slashes = True, 0

    def _count_slashes(self, char: str) -> int:
        """How much of "://" there is."""
        if char == ":":
            return 1
        return self._slashes + 1 if char == "/" and self._slashes else 0

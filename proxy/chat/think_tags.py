"""`<think>` and `</think>` inside an answer, wherever its text was cut (pure)."""

from collections.abc import Iterator
from typing import Final, Literal

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
_CODE: Final = "`"


class ThinkTags:
    """Tell thoughts from the answer.

    A tag right after a backtick is one that the answer speaks of. A closing tag that closes nothing goes:
    some chat templates put the opening one into the prompt.
    """

    def __init__(self) -> None:
        self._held = ""
        self._before = ""
        self._thinking = False

    def feed(self, text: str) -> Iterator[tuple[Literal["reasoning", "answer"], str]]:
        """The text without its tags, in pieces of one kind; what may become a tag waits."""
        text = self._held + text
        self._held = ""
        said = 0
        start = text.find("<")
        while start >= 0:
            rest = text[start : start + len(_CLOSE)]
            if self._spoken_of(text, start):
                tag = None
            elif (_OPEN.startswith(rest) or _CLOSE.startswith(rest)) and rest not in {_OPEN, _CLOSE}:
                self._held = rest  # shorter than a tag: the text ends here
                break
            else:
                tag = next((tag for tag in self._tags() if rest.startswith(tag)), None)
            if tag is not None:
                yield from self._piece(text[said:start])
                self._thinking = tag == _OPEN
                said = start + len(tag)
                self._before = ""
            start = text.find("<", start + len(tag or "<"))
        yield from self._piece(text[said : len(text) - len(self._held)])

    def flush(self) -> tuple[Literal["reasoning", "answer"], str]:
        """What waited, and is no tag."""
        held, self._held = self._held, ""
        return ("reasoning" if self._thinking else "answer"), held

    def _tags(self) -> tuple[str, ...]:
        return (_CLOSE,) if self._thinking else (_OPEN, _CLOSE)

    def _spoken_of(self, text: str, start: int) -> bool:
        return not self._thinking and (text[start - 1] if start else self._before) == _CODE

    def _piece(self, text: str) -> Iterator[tuple[Literal["reasoning", "answer"], str]]:
        if text:
            self._before = text[-1]
            yield ("reasoning" if self._thinking else "answer"), text

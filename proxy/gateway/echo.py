"""What the gateway says, and in which pieces: the echo article's sentences, cut as if into tokens."""

import re
from typing import NamedTuple

# The spelling is the article's.
LAST_MESSAGE = "As a mock AI Assitant, I can only echo your last message:"
NO_MESSAGES = "As a mock AI Assitant, I can only echo your last message, but there were no messages!"

# Scripts that put no spaces between words, with their full-width punctuation: CJK radicals to ideographs,
# compatibility ideographs and forms, full-width forms, the supplementary ideographic planes.
_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{_WIDE}]\s*|[^\s{_WIDE}]+\s*|\s+")


class Turn(NamedTuple):
    """One message of the dialogue."""

    role: str
    text: str


def echo_sentence(turns: list[Turn]) -> str:
    """Echo the last message if the first one is a user's, as in the article; a system prompt stops it."""
    if turns and turns[0].role == "user":
        return LAST_MESSAGE + turns[-1].text
    return NO_MESSAGES


def split_pieces(text: str) -> list[str]:
    """Cut a text into pieces which together are the text again.

    A piece is a word with the space after it, or one character of a script without spaces.
    """
    return _PIECE.findall(text)

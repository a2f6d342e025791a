"""What a visitor wrote, made fit to be sent to a model and shown (pure).

Nothing is escaped here: that is done where it is shown. What goes are characters that nobody sees, and with
which a text can be made to look like another: https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing.
"""

import re
import unicodedata
from typing import Final

_UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, all but tab and line feed
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # overrides of the writing direction
    r"\ufeff\ufffe\uffff\U000e0000-\U000e007f"  # byte order mark, no characters, tags that nobody sees
    r"\ud800-\udfff]"  # half a character, as JSON can write it
)
_LINE_END: Final = re.compile(r"\r\n?|\u2028|\u2029|\x85|\x0b|\x0c")


def clean_prompt(text: str) -> str:
    """The text in NFC with line feeds as its line ends, without what cannot be seen and blanks around it."""
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text))
    return unicodedata.normalize("NFC", text).strip()

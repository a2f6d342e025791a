"""Emphasis that also works between Chinese characters.

In `**“词”**的`, CommonMark (6.2) does not end the emphasis, because punctuation precedes the delimiter and a
letter follows it. Next to a wide character that rule is meaningless, and is not applied.
"""

import unicodedata

from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter


def emphasis(state: StateInline, silent: bool) -> bool:  # noqa: FBT001  markdown-it's own signature
    """Parse a run of `*` or `_`: replaces markdown-it's inline rule."""
    mark = state.src[state.pos]
    if silent or mark not in "*_":
        return False
    end = state.pos
    while end < state.posMax and state.src[end] == mark:
        end += 1
    before = state.src[state.pos - 1] if state.pos > 0 else " "
    after = state.src[end] if end < state.posMax else " "
    opens, closes = _flanks(before, after, mark)
    length = end - state.pos
    for _ in range(length):
        token = state.push("text", "", 0)
        token.content = mark
        state.delimiters.append(
            Delimiter(
                marker=ord(mark),
                length=length,
                token=len(state.tokens) - 1,
                end=-1,
                open=opens,
                close=closes,
            )
        )
    state.pos = end
    return True


def _flanks(before: str, after: str, mark: str) -> tuple[bool, bool]:
    """Return whether a run can open and can close emphasis, given the characters around it."""
    loose_before = before.isspace() or _is_punctuation(before) or _is_wide(before)
    loose_after = after.isspace() or _is_punctuation(after) or _is_wide(after)
    left = not after.isspace() and (not _is_punctuation(after) or loose_before)
    right = not before.isspace() and (not _is_punctuation(before) or loose_after)
    if mark == "*":
        return left, right
    return left and (not right or _is_punctuation(before)), right and (not left or _is_punctuation(after))


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in {"W", "F"}

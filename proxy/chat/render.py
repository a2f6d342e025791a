"""Renders the blocks of a dialogue as HTML without active content.

The outer div has single quotes, as in the article. A piece that is a single paragraph keeps its line feed
inside the `<p>`, by which a page recognises whether the next piece continues the same line.
"""

import functools
from html import escape
from typing import Final, Literal

from proxy.chat.markdown import build_parser, render_markdown
from proxy.chat.sanitizer import build_cleaner

BlockKind = Literal["right", "describe", "left", "error"]

MARKDOWN_CHARS_MAX: Final = 20_000
"""Longer texts are shown as plain text, to limit the time for rendering."""

# Control characters, and characters that change the direction of text ("Trojan Source", CVE-2021-42574).
_DROPPED: Final = dict.fromkeys(
    code
    for codes in (
        range(0x09),
        range(0x0B, 0x20),
        range(0x7F, 0xA0),
        (0x061C, 0x200E, 0x200F, 0xFEFF, 0xFFFE, 0xFFFF),
        range(0x202A, 0x202F),
        range(0x2066, 0x206A),
        range(0xD800, 0xE000),
    )
    for code in codes
)


class BlockRenderer:
    """Renders blocks. It may be used from several threads."""

    def __init__(self) -> None:
        self._parser = build_parser()
        self._cleaner = build_cleaner()

    def render(self, kind: BlockKind, text: str) -> str:
        """Return a block: `<div class='{kind}'>...</div>`."""
        text = _readable(text)
        if kind == "error":
            return f"<div class='error'>{escape(text)}</div>"
        inner = f"<p>{_as_written(text)}</p>" if kind == "right" else self._markdown(text)
        return f"<div class='{kind}'>{inner}</div>"

    def _markdown(self, text: str) -> str:
        if not text.strip():
            return ""
        bare = text.rstrip()
        end = text[len(bare) :]
        end = "\n" if "\n" in end else end[:1]
        if len(text) > MARKDOWN_CHARS_MAX:
            return f"<p>{_as_written(bare)}{end}</p>"
        rendered = render_markdown(self._parser, text)
        # Entities can produce the dropped characters again.
        inner = self._cleaner.clean(rendered.html).translate(_DROPPED)
        if rendered.plain and inner.endswith("</p>"):
            return f"{inner.removesuffix('</p>')}{end}</p>"
        return inner


def render_block(kind: BlockKind, text: str) -> str:
    """Render a block with the renderer of this process.

    Args:
        kind: `right` (the question) and `error` are escaped; `left` (the answer) and `describe` (reasoning)
            are Markdown.
        text: A piece of the text.
    """
    return _renderer().render(kind, text)


@functools.cache
def _renderer() -> BlockRenderer:
    return BlockRenderer()


def _readable(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_DROPPED)


def _as_written(text: str) -> str:
    return escape(text).replace("\n", "<br>")

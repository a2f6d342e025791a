"""Markdown as models write it: rendering to HTML that still has to be sanitised, and its structure."""

from proxy.chat.markdown.outline import OpenSpans, find_blocks
from proxy.chat.markdown.parser import Rendered, build_parser, render_markdown

__all__ = ["OpenSpans", "Rendered", "build_parser", "find_blocks", "render_markdown"]

"""Markdown as models write it, turned into HTML that still has to be cleaned."""

from proxy.chat.markdown.outline import OpenSpans, find_blocks
from proxy.chat.markdown.parser import Rendered, build_parser, render_markdown

__all__ = ["OpenSpans", "Rendered", "build_parser", "find_blocks", "render_markdown"]

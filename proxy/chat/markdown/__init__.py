"""Markdown as models write it, turned into HTML that still has to be cleaned."""

from proxy.chat.markdown.parser import Rendered, build_parser, render_markdown

__all__ = ["Rendered", "build_parser", "render_markdown"]

"""A parser that fails for any HTML that is not on a list, which is independent of the sanitiser's."""

import re
from html.parser import HTMLParser

PLAIN_TAGS = """
a blockquote code del div em h1 h2 h3 h4 h5 h6 li ol p pre s span strong table tbody td th thead tr ul
"""
MATH_TAGS = """
math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup munder
mover munderover mmultiscripts mprescripts mtable mtr mtd
"""
MATH_NAMES = """
accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form height largeop
linethickness lspace mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace scriptlevel
separator stretchy symmetric voffset width
"""
VOID = {"br", "hr", "input"}
TAGS = VOID | set(PLAIN_TAGS.split())
MATH = set(MATH_TAGS.split())
MATH_ATTRIBUTES = set(MATH_NAMES.split())
ATTRIBUTES = {
    "a": {
        "href": r"(?:https?://[^\s<>\"]+|mailto:[^\s<>\"]+)",
        "rel": "noopener noreferrer nofollow",
        "target": "_blank",
    },
    "code": {"class": r"language-[a-z0-9+#._-]{1,30}"},
    "input": {"type": "checkbox", "disabled": "", "checked": ""},
    "ol": {"start": r"\d{1,9}"},
    "span": {"class": r"[a-z][a-z0-9]{0,2}(?: [a-z][a-z0-9]{0,2})*"},
    "td": {"class": "to-(?:center|right)"},
    "th": {"class": "to-(?:center|right)"},
}
STYLE = re.compile(
    r"(?:text-align|justify-items): ?(?:left|right|start|end)|color: ?#[0-9a-fA-F]{6}|width: ?(?:50|100)%"
    r"|font-(?:weight|style): (?:bold|italic)|border[a-z-]*: ?0\.0\dem (?:solid|dashed)(?: currentcolor)?"
    r"|(?:margin|padding)[a-z-]*: ?-?[0-2]?(?:\.\d+)?(?:em)?|background: linear-gradient\([a-z0-9%, ()-]*\)"
)
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


class SafeHtml(HTMLParser):
    """A parser with assertions; `text` is the visible text."""

    def __init__(self, kind: str) -> None:
        super().__init__(convert_charrefs=True)
        self._kind = kind
        self._open: list[str] = []
        self._divs = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check an element and its attributes."""
        assert tag in TAGS or tag in MATH, tag
        assert tag not in MATH - {"math"} or "math" in self._open, "a formula's element outside of a formula"
        if tag == "div":
            assert attrs == [("class", self._kind)]
            assert not self._open, "a div inside"
            self._divs += 1
            assert self._divs == 1, "a second div"
        else:
            assert self._open, "an element outside of the div"
            assert len({name for name, _ in attrs}) == len(attrs)
            for name, value in attrs:
                self._check(tag, name, value or "")
        if tag not in VOID:
            self._open.append(tag)

    def _check(self, tag: str, name: str, value: str) -> None:
        if tag in MATH and name == "style":
            for part in filter(None, map(str.strip, value.split(";"))):
                assert STYLE.fullmatch(part), part
        elif (tag, name) == ("math", "alttext"):
            assert len(value) <= 2_000
            assert not UNSEEN.search(value)
        elif tag in MATH:
            assert name in MATH_ATTRIBUTES, (tag, name)
            assert re.fullmatch(r"[\w%+. -]{0,64}", value, re.ASCII), (tag, name, value)
        else:
            assert name in ATTRIBUTES.get(tag, {}), (tag, name)
            assert re.fullmatch(ATTRIBUTES[tag][name], value), (tag, name, value)

    def handle_endtag(self, tag: str) -> None:
        """Check that an end tag is that of the innermost element."""
        assert tag not in VOID
        assert self._open, f"</{tag}> too many"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        assert self._open, "text outside of the div"
        assert not UNSEEN.search(data)
        self.text += data

    def handle_comment(self, data: str) -> None:
        """Fail."""
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        """Fail."""
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        """Fail."""
        raise AssertionError("an instruction")

    def close(self) -> None:
        """Check that every element is closed."""
        super().close()
        assert not self._open, f"open: {self._open}"
        assert self._divs == 1


def read_safe(kind: str, html: str) -> str:
    """Check that a block is harmless, and return its text."""
    assert html.startswith(f"<div class='{kind}'>")
    assert html.endswith("</div>")
    reader = SafeHtml(kind)
    reader.feed(html)
    reader.close()
    return reader.text

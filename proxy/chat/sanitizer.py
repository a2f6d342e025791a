"""Sanitises rendered HTML with nh3, as a second line of defence in case the renderer has a defect."""

import re
from typing import Final

import nh3

from proxy.chat.markdown.formulas import LATEX_CHARS_MAX
from proxy.chat.markdown.parser import SCHEMES

_LENGTH: Final = re.compile(r"[+-]?\d?(?:\.\d{1,9})?(?:em|ex|px|pt|mu|%)?")
_WORD: Final = re.compile(r"[\w .-]{0,64}", re.ASCII)
_CLASS_WORD: Final = re.compile(r"[a-z][a-z0-9]{0,2}")  # Pygments' short names
_LANGUAGE_CLASS: Final = re.compile(r"language-[\w+#.-]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,9}")
_STYLE: Final = re.compile(
    r"text-align: ?(?:left|right)|justify-items: ?(?:start|end)|color: ?#[0-9A-Fa-f]{6}|width: ?\d{1,3}%"
    r"|font-weight: ?bold|font-style: ?italic"
    r"|(?:margin-left|padding(?:-(?:left|right|top|bottom))?): ?-?[0-2]?(?:\.\d{1,9})?(?:em)?"
    r"|border(?:-(?:left|right|top|bottom))?: ?0\.0\dem (?:solid|dashed)(?: currentcolor)?"
    r"|background: (?:(?:, )?linear-gradient\(to top (?:left|right), transparent 47%, currentcolor 47% 53%, "
    r"transparent 53%\)){1,2}"
)
"""A declaration that the renderer of formulas writes."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MATH_TAGS: Final = _words(
    """
    math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup
    msubsup munder mover munderover mmultiscripts mprescripts mtable mtr mtd
    """
)
TAGS: Final = MATH_TAGS | _words(
    """
    a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre s span strong table tbody td th
    thead tr ul
    """
)
_LENGTHS: Final = _words(
    """
    columnspacing depth height linethickness lspace maxsize minsize rowspacing rspace voffset width
    """
)
_MATH_WORDS: Final = _words(
    """
    accent accentunder columnalign columnlines display displaystyle fence form largeop mathvariant
    movablelimits notation rowlines scriptlevel separator stretchy symmetric
    """
)
ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    "*": frozenset(),  # otherwise ammonia allows lang and title
    "a": frozenset({"href"}),
    "code": frozenset({"class"}),
    "input": frozenset({"checked"}),
    "ol": frozenset({"start"}),
    "span": frozenset({"class"}),
    "td": frozenset({"class"}),
    "th": frozenset({"class"}),
    **dict.fromkeys(MATH_TAGS, _LENGTHS | _MATH_WORDS | {"style"}),
    "math": _LENGTHS | _MATH_WORDS | {"style", "alttext"},
}
LINK_REL: Final = "noopener noreferrer nofollow"


def build_cleaner() -> nh3.Cleaner:
    """Return a sanitiser, which has no state between texts."""
    return nh3.Cleaner(
        tags=set(TAGS),
        clean_content_tags={"script", "style", "template", "iframe", "noscript", "svg", "textarea", "title"},
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        attribute_filter=keep_attribute,
        link_rel=LINK_REL,
        set_tag_attribute_values={
            "a": {"target": "_blank"},
            "input": {"type": "checkbox", "disabled": ""},
        },
        url_schemes=set(SCHEMES),
        url_relative="deny",
    )


def keep_attribute(tag: str, name: str, value: str) -> str | None:
    """Return the value that an allowed attribute keeps, or None to remove the attribute."""
    if name == "class":
        return _keep_class(tag, value)
    if name == "alttext":
        return value if len(value) <= LATEX_CHARS_MAX else None
    if tag in MATH_TAGS:
        if name == "style":
            return value if all(_STYLE.fullmatch(part.strip()) for part in _declarations(value)) else None
        if name in _LENGTHS:
            return value if all(_LENGTH.fullmatch(part) for part in value.split()) else None
        return value if _WORD.fullmatch(value) else None
    if name == "start":
        return value if _NUMBER.fullmatch(value) else None
    if name == "checked":
        return ""
    return value


def _declarations(style: str) -> list[str]:
    return [part for part in style.split(";") if part.strip()]


def _keep_class(tag: str, value: str) -> str | None:
    if tag == "code":
        return value if _LANGUAGE_CLASS.fullmatch(value) else None
    if tag == "span":
        kept = [word for word in value.split() if _CLASS_WORD.fullmatch(word)]
        return " ".join(kept) or None
    return value if value in {"to-center", "to-right"} else None

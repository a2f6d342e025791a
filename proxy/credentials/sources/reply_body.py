"""Turn what a token endpoint answers into values that a path can reach: JSON, XML, cookies (pure)."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final
from xml.etree import ElementTree as ET

_DEPTH_MAX: Final = 50
_DTD: Final = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_COOKIE: Final = re.compile(r"\s*([^=;\s]+)\s*=\s*(\"[^\"]*\"|[^;]*)")
_ATTRIBUTE: Final = re.compile(r";\s*(max-age|expires)\s*=\s*([^;]*)", re.IGNORECASE)


def parse_body(body: bytes) -> Any:
    """Parse JSON, or else XML; None for anything else.

    An XML element becomes a table of its children, by their names without namespaces; several of one name
    become a list; attributes begin with `@`. The root is in a table of its own.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") or _DTD.search(body):
        return None
    try:
        root = ET.fromstring(body)  # noqa: S314 - nothing expands without a DTD
    except (ET.ParseError, ValueError, LookupError):
        return None
    name = _local(root.tag)
    return None if name.lower() == "html" else {name: _value(root, 0)}


def embedded(text: str) -> Any:
    """The object or array in a string that is JSON itself; None if it is not."""
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def cookies_of(set_cookies: Iterable[str]) -> dict[str, str]:
    """Each cookie as `cookie:NAME`, and its `cookie:NAME;max-age` and `cookie:NAME;expires` (RFC 6265)."""
    found: dict[str, str] = {}
    for line in set_cookies:
        cookie = _COOKIE.match(line)
        if cookie:
            found[f"cookie:{cookie[1]}"] = cookie[2].strip().strip('"')
            for attribute in _ATTRIBUTE.finditer(line, cookie.end()):
                found[f"cookie:{cookie[1]};{attribute[1].lower()}"] = attribute[2].strip()
    return found


def _value(element: ET.Element, depth: int) -> Any:
    """A text, or a table of what is inside."""
    if depth > _DEPTH_MAX:
        return None
    inside: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        name, value = _local(child.tag), _value(child, depth + 1)
        before = inside.get(name)
        if name not in inside:
            inside[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            inside[name] = [before, value]
    text = (element.text or "").strip()
    if not inside:
        return text
    return {**inside, "#text": text} if text else inside


def _local(name: str) -> str:
    """A name without its namespace, `{http://...}name`."""
    return name.rpartition("}")[2]

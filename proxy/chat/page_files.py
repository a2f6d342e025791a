"""The files of a page, which are read once and served from memory."""

import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import msgspec

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class PageFile(msgspec.Struct, frozen=True):
    """A file with its content type, and a tag that depends on its content."""

    body: bytes
    content_type: str
    etag: str


PageFiles = Mapping[str, PageFile]
"""Files by their paths in the folder, such as `index.html` or `icons/send.svg`."""


def read_page_files(package: str = "proxy.chat") -> PageFiles:
    """Read the files in the folder `page` of a package whose type is known; other files are not served."""
    return dict(_files(resources.files(package) / "page", ""))


def _files(folder: Traversable, prefix: str) -> list[tuple[str, PageFile]]:
    found: list[tuple[str, PageFile]] = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        kind = _TYPES.get(entry.name[entry.name.rfind(".") :] if "." in entry.name else "")
        if entry.is_dir():
            found += _files(entry, f"{prefix}{entry.name}/")
        elif kind is not None:
            body = entry.read_bytes()
            found.append((prefix + entry.name, PageFile(body, kind, hashlib.sha256(body).hexdigest()[:20])))
    return found

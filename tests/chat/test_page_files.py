"""Reading the page's files: their types and tags, and that no other file is served."""

import hashlib
from pathlib import Path

from proxy.chat.page_files import _files, read_page_files
from tests.documents import ROOT


def test_files_are_served_by_path_with_their_types(tmp_path: Path) -> None:
    (tmp_path / "icons").mkdir()
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "icons" / "send.svg").write_text("<svg/>")
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "Makefile").write_text("no")

    files = dict(_files(tmp_path, ""))

    assert {name: file.content_type for name, file in files.items()} == {
        "index.html": "text/html; charset=utf-8",
        "icons/send.svg": "image/svg+xml",
    }
    assert files["index.html"].body == b"<p>"
    assert hashlib.sha256(b"<p>").hexdigest().startswith(files["index.html"].etag)


def test_the_files_are_those_of_the_package() -> None:
    folder = ROOT / "proxy" / "chat" / "page"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert {*read_page_files()} <= there


def test_the_page_without_its_fonts_is_small() -> None:
    sizes = {name: len(file.body) for name, file in read_page_files().items()}

    assert 50_000 < sum(size for name, size in sizes.items() if not name.startswith("fonts/")) < 200_000

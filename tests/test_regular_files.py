"""Files that could make their reader wait are not opened."""

import os
import re
import socket
import tempfile
from pathlib import Path

import pytest

from proxy.regular_files import open_regular


def test_a_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"content")
    link.symlink_to(file)
    for path in (file, link):
        with open_regular(path) as opened:
            assert opened.read() == b"content"


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "absent"])
def test_anything_else_is_an_error_at_once(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, kind)  # The path of a socket must be short.
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path = Path("/dev/zero")
        elif kind == "socket":
            listener.bind(str(path))
        elif kind == "folder":
            path.mkdir()
        descriptors = {*Path("/dev/fd").iterdir()}
        with pytest.raises(OSError, match=re.escape(str(path))), open_regular(path):
            pass
        assert {*Path("/dev/fd").iterdir()} == descriptors

"""The picture for models that see: every decoder must accept it."""

import struct
import zlib

from proxy.cli.doctor.embeddings import PICTURE_PIXELS, picture


def test_the_picture_is_a_valid_png() -> None:
    data = picture()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        chunks[kind] = content
        at += length + 12
    assert [*chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (width, height, depth, colour) == (PICTURE_PIXELS, PICTURE_PIXELS, 8, 0)  # 8-bit greyscale
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (width + 1)

"""Mask secrets in an upstream's responses, in any form in which servers quote them (pure).

Each byte of a secret becomes an asterisk, so the lengths of headers and bodies do not change, and JSON stays
valid. Secrets can contain one another or overlap, so all of them are searched in the original bytes.
"""

import base64
import functools
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, Self
from urllib.parse import quote

SECRET_BYTES_MIN: Final = 8
"""Shorter values are not masked, because they would match too often."""
PIECE_BYTES_MAX: Final = 256 * 1024
"""The maximum size of a piece of a long or an expanded body."""
_NEVER_ESCAPED: Final = re.compile(r"[A-Za-z0-9._~-]+")
"""Characters that no encoder escapes (RFC 3986 2.3)."""
_NAMED: Final = {
    "&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",), "/": ("sol",), "+": ("plus",),
    "=": ("equals",),
}  # fmt: skip
_ESCAPE_BYTES_MAX: Final = 16
_MEMBERS_MAX: Final = 100
"""A body of more compressed members is rejected, because each takes microseconds, however short it is."""
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Redactor:
    """Masks secrets in responses; falsy if there are no secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret.encode()) >= SECRET_BYTES_MIN}
        special = {secret for secret in known if not _NEVER_ESCAPED.fullmatch(secret)}
        literals = {secret.encode() for secret in known - special}
        self._literals = literals.union(*(_encoded(secret.encode()) for secret in known))
        self._special = [_Special(secret) for secret in special]
        self.longest = max([*map(_longest, special), *map(len, self._literals)], default=0)
        """The maximum length of any form of a secret."""

    def __bool__(self) -> bool:
        return self.longest > 0

    def redact(self, data: bytes) -> bytes:
        """Mask the secrets in data; return the same object if there are none."""
        masked: bytearray | None = None
        for start, end in self._places(data):
            if masked is None:
                masked = bytearray(data)
            masked[start:end] = b"*" * (end - start)
        return data if masked is None else bytes(masked)

    def _places(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield start and end of every occurrence of every secret, also of those that overlap."""
        for literal in self._literals:
            start = data.find(literal)
            while start >= 0:
                yield start, start + len(literal)
                start = data.find(literal, start + 1)
        for secret in self._special:
            yield from secret.places(data)

    def redact_values(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Mask the secrets in header values."""
        joined = b"\n".join([value for _, value in headers])
        if self.redact(joined) is joined:
            return headers
        return [(name, self.redact(value)) for name, value in headers]

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield long data in masked pieces, because each MiB takes up to 10 ms."""
        stream = self.stream()
        for start in range(0, len(data), PIECE_BYTES_MAX):
            yield stream.feed(data[start : start + PIECE_BYTES_MAX])
        yield stream.flush()

    def stream(self) -> "RedactedStream":
        """Return a redactor for one body that is received in pieces."""
        return RedactedStream(self)


def _encoded(secret: bytes) -> set[bytes]:
    """Return the encodings of a whole secret: UTF-16, UTF-32, hexadecimal and base64."""
    wide = {zeros.join(secret[at : at + 1] for at in range(len(secret))) for zeros in (b"\0", b"\0\0\0")}
    digits = secret.hex().encode()
    return wide | {digits, digits.upper()} | _in_base64(secret)


def _in_base64(secret: bytes) -> set[bytes]:
    """Return the base64 forms of a secret inside a longer text, which depend on its offset modulo 3."""
    found = set[bytes]()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        core = encoded[-(-offset * 4 // 3) : (offset + len(secret)) * 4 // 3]
        found |= {core, core.replace(b"/", rb"\/"), quote(core, safe="").encode()}
        found.add(core.translate(bytes.maketrans(b"+/", b"-_")))
    return found


class _Special:
    """A secret with characters that encoders escape in different ways."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._longest_run = max(_NEVER_ESCAPED.findall(secret), key=len, default="").encode()

    def places(self, data: bytes) -> Iterator[tuple[int, int]]:
        found = self._pattern.search(data) if self._longest_run in data else None
        while found is not None:
            yield found.span()
            found = self._pattern.search(data, found.start() + 1)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        """The pattern is compiled on first use, because that takes milliseconds."""
        parts = (re.escape(c.encode()) if _NEVER_ESCAPED.match(c) else _escaped(c) for c in self._secret)
        return re.compile(b"".join(parts))


def _escaped(char: str) -> bytes:
    """Match one character, as it is or as escaped in JSON, JavaScript, HTML, a shell or a URL."""
    percents = b"".join(b"%%(?:25)?%s" % _hex(byte, 2) for byte in char.encode())
    units = char.encode("utf-16-be")
    in_json = b"".join(
        rb"\\{1,2}u" + _hex(int.from_bytes(units[at : at + 2]), 4) for at in range(0, len(units), 2)
    )
    number = ord(char)
    ways = [
        percents,
        in_json,
        rb"\\{1,2}x" + _hex(number, 2),
        b"&#0{0,3}%d;" % number,
        b"&#[xX]0{0,3}%s;" % _hex(number, 1),
        *(b"&%s;" % name.encode() for name in _NAMED.get(char, ())),
        rb"\\{0,3}" + re.escape(char.encode()),  # Last, because the escapes of a backslash begin with one.
    ]
    return b"(?:" + b"|".join(ways) + b")"


def _hex(number: int, digits: int) -> bytes:
    """Match the digits in upper and lower case."""
    return b"".join(
        b"[%s%s]" % (digit.encode(), digit.upper().encode()) if digit.isalpha() else digit.encode()
        for digit in f"{number:0{digits}x}"
    )


def _longest(text: str) -> int:
    """Return the maximum length of a match, in bytes."""
    special = sum(len(char.encode()) for char in text if not _NEVER_ESCAPED.match(char))
    return len(text.encode()) + _ESCAPE_BYTES_MAX * special


class RedactedStream:
    """Masks the secrets in one body, also those that are split between pieces.

    A byte is returned when all occurrences to which it can belong have arrived. They are searched in the
    original bytes, so those before it are kept for as long as an occurrence can begin there.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._overlap = max(0, redactor.longest - 1)
        self._kept = b""
        self._returned = 0
        """How many of the kept bytes have been returned."""

    def feed(self, piece: bytes) -> bytes:
        """Add a piece; return the masked bytes except the last ones, which may begin a secret."""
        original = self._kept + piece
        end = max(self._returned, len(original) - self._overlap)
        masked = self._redactor.redact(original)[self._returned : end]
        start = max(0, end - self._overlap)
        self._kept, self._returned = original[start:], end - start
        return masked

    def flush(self) -> bytes:
        """Return the remaining bytes at the end of the body."""
        masked = self._redactor.redact(self._kept)[self._returned :]
        self._kept, self._returned = b"", 0
        return masked


class Expansion:
    """Decompresses a body in pieces of bounded size. It may have several members (RFC 1952 2.2)."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inflate = zlib.decompressobj(window_bits)
        self._members = 0
        self._rest = b""
        self._is_cut = False  # A body of no bytes at all is that of a HEAD, for example.

    @classmethod
    def of(cls, coding: bytes) -> Self | None:
        """Return the decompressor for a content coding; None if the coding is not supported."""
        bits = _WINDOW_BITS.get(coding.strip().lower())
        return None if bits is None else cls(bits)

    @property
    def has_more(self) -> bool:
        """Whether `expand` can return more without further input."""
        return bool(self._rest)

    def expand(self, piece: bytes = b"") -> bytes:
        """Add a piece of the compressed body; return the next bytes of the expanded one.

        Raises:
            ValueError: The body is not in the content coding, or has too many members.
        """
        compressed = self._rest + piece
        if not compressed:
            return b""
        if self._inflate.eof:
            self._inflate = zlib.decompressobj(self._window_bits)
        try:
            expanded = self._inflate.decompress(compressed, PIECE_BYTES_MAX)
        except zlib.error as error:
            raise ValueError("the body is not in its content coding") from error
        self._members += self._inflate.eof
        if self._members > _MEMBERS_MAX:
            raise ValueError("the body has too many compressed members")
        self._rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._is_cut = not self._inflate.eof
        return expanded

    def check_end(self) -> None:
        """Check, at the end of the body, that it was not cut.

        Raises:
            ValueError: It was.
        """
        if self._is_cut:
            raise ValueError("the compressed body was cut off")

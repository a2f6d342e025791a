"""Replace secrets in what an upstream sends back, in any form in which servers quote them (pure).

A secret is replaced by as many asterisks as it had bytes: no length changes, neither that of a header nor of
a body, and JSON stays JSON.
"""

import base64
import functools
import re
import zlib
from collections.abc import Iterable
from typing import Final, Self
from urllib.parse import quote

SECRET_BYTES_MIN: Final = 8
"""A shorter one is no secret, and would be found everywhere."""
PIECE_BYTES_MAX: Final = 256 * 1024
"""A compressed body is expanded in pieces of this size."""
_NEVER_ESCAPED: Final = re.compile(r"[A-Za-z0-9._~-]+")
"""What no encoder escapes (RFC 3986 2.3)."""
_NAMED: Final = {
    "&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",), "/": ("sol",), "+": ("plus",),
    "=": ("equals",),
}  # fmt: skip
_ESCAPE_BYTES_MAX: Final = 16
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Redactor:
    """Masks some secrets; falsy where there are none.

    Args:
        secrets: What is masked.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret.encode()) >= SECRET_BYTES_MIN}
        special = {secret for secret in known if not _NEVER_ESCAPED.fullmatch(secret)}
        literals = {secret.encode() for secret in known - special}
        self._literals = literals.union(*(_in_base64(secret.encode()) for secret in known))
        self._special = [_Special(secret) for secret in special]
        self.longest = max([*map(_longest, special), *map(len, self._literals)], default=0)
        """The length of the longest form of a secret."""

    def __bool__(self) -> bool:
        return self.longest > 0

    def redact(self, data: bytes) -> bytes:
        """Mask every secret; the same object where there is none."""
        for literal in self._literals:
            data = data.replace(literal, b"*" * len(literal))
        for secret in self._special:
            data = secret.redact(data)
        return data

    def redact_values(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Mask the secrets in the values of headers."""
        joined = b"\n".join([value for _, value in headers])
        if self.redact(joined) is joined:
            return headers
        return [(name, self.redact(value)) for name, value in headers]

    def stream(self) -> "RedactedStream":
        """A body that arrives in pieces."""
        return RedactedStream(self)


def _in_base64(secret: bytes) -> set[bytes]:
    """What stands for the secret in the base64 of any longer text, by the number of bytes before it."""
    found = set[bytes]()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        core = encoded[-(-offset * 4 // 3) : (offset + len(secret)) * 4 // 3]
        found |= {core, core.replace(b"/", rb"\/"), quote(core, safe="").encode()}
        found.add(core.translate(bytes.maketrans(b"+/", b"-_")))
    return found


class _Special:
    """A secret with characters that encoders escape, each of them in a way of its own."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._longest_run = max(_NEVER_ESCAPED.findall(secret), key=len, default="").encode()

    def redact(self, data: bytes) -> bytes:
        if self._longest_run not in data or self._pattern.search(data) is None:
            return data
        return self._pattern.sub(lambda found: b"*" * len(found[0]), data)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        """Compiled when it is needed, which takes some milliseconds."""
        parts = (re.escape(c.encode()) if _NEVER_ESCAPED.match(c) else _escaped(c) for c in self._secret)
        return re.compile(b"".join(parts))


def _escaped(char: str) -> bytes:
    """Match one special character: as it is, or as JSON, JavaScript, HTML, a shell or a URL writes it."""
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
        rb"\\{0,3}" + re.escape(char.encode()),  # last: every escape of a backslash begins with one
    ]
    return b"(?:" + b"|".join(ways) + b")"


def _hex(number: int, digits: int) -> bytes:
    """Match the digits in upper and lower case."""
    return b"".join(
        b"[%s%s]" % (digit.encode(), digit.upper().encode()) if digit.isalpha() else digit.encode()
        for digit in f"{number:0{digits}x}"
    )


def _longest(text: str) -> int:
    """As many bytes as a match can have."""
    special = sum(len(char.encode()) for char in text if not _NEVER_ESCAPED.match(char))
    return len(text.encode()) + _ESCAPE_BYTES_MAX * special


class RedactedStream:
    """Masks the secrets of one body, wherever its pieces are cut."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """All but the last bytes, which may be the beginning of a secret."""
        seen = self._redactor.redact(self._held + piece)
        cut = max(0, len(seen) - self._redactor.longest + 1)
        self._held = seen[cut:]
        return seen[:cut]

    def flush(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return held


class Expansion:
    """Expands a compressed body, a bounded piece at a time."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self._rest = b""

    @classmethod
    def of(cls, coding: bytes) -> Self | None:
        """The one for a content coding; None for any other."""
        bits = _WINDOW_BITS.get(coding.strip().lower())
        return None if bits is None else cls(bits)

    @property
    def has_more(self) -> bool:
        """Whether there is more to come of what was fed."""
        return bool(self._rest)

    def expand(self, piece: bytes = b"") -> bytes:
        """The next bytes.

        Raises:
            ValueError: this is not what the coding says.
        """
        try:
            expanded = self._inflate.decompress(self._rest + piece, PIECE_BYTES_MAX)
        except zlib.error as error:
            raise ValueError("the body is not in its content coding") from error
        self._rest = self._inflate.unconsumed_tail
        return expanded

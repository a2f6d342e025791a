"""Secrets in responses are masked in any form and at any split, and no length changes."""

import base64
import gzip
import html
import itertools
import json
import re
import time
import zlib
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.redaction import PIECE_BYTES_MAX, SECRET_BYTES_MIN, Expansion, Redactor
from tests.pace import paced

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyYWdmbG93In0.c2lnbmF0dXJl-_Zm9v"
ODD = "to/ken+with=every&odd<char>'and\"quotes\\\u00e9%41~"
SECRETS = [JWT, ODD, "sk-0123456789abcdef==", "12345678"]


def masked(secret: str, data: bytes) -> bool:
    """Whether everything is masked and the length does not change."""
    redacted = Redactor([secret]).redact(data)
    return redacted == b"*" * len(data)


@pytest.mark.parametrize("secret", SECRETS)
def test_every_usual_form_is_masked(secret: str) -> None:
    raw = secret.encode()
    forms = [
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        html.escape(secret),
        html.escape(secret, quote=False),
        repr(secret)[1:-1],
    ]
    for form in forms:
        assert masked(secret, form.encode()), form
    percents = quote(secret, safe="")
    assert masked(secret, re.sub("%..", lambda found: found[0].lower(), percents).encode())
    assert masked(secret, percents.replace("%", "%25").encode())  # a URL in a URL
    assert masked(secret, json.dumps(json.dumps(secret)[1:-1])[1:-1].encode())  # JSON in JSON
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in (b"", b"Bearer ", b"x", b"user:"):
            hidden = Redactor([secret]).redact(encode(before + raw + b"after"))
            assert b"*" * (len(raw) * 4 // 3 - 2) in hidden


def in_some_way(data: st.DataObject, char: str) -> str:
    """A special character, escaped or not."""
    code = ord(char)
    units = char.encode("utf-16-be").hex()
    ways = [char, f"&#{code};", f"&#x{code:x};", quote(char, safe=""), quote(char, safe="").lower()]
    ways += ["".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4)), "\\" + char]
    return data.draw(st.sampled_from(ways))


@pytest.mark.parametrize("secret", SECRETS[:1] + SECRETS[2:])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_secret_in_wide_characters_is_masked(secret: str, encoding: str) -> None:
    before, after = "Zugriff für ".encode(encoding), " verweigert".encode(encoding)
    redacted = Redactor([secret]).redact(before + secret.encode(encoding) + after)
    assert len(redacted) == len(before + secret.encode(encoding) + after)
    for letter in {*secret[1:-1]}:
        assert letter.encode(encoding) not in redacted[len(before) + 4 : -len(after) - 4]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_hexadecimal_is_masked(secret: str) -> None:
    digits = secret.encode().hex()
    assert masked(secret, digits.encode())
    assert masked(secret, digits.upper().encode())


@given(st.data())
def test_any_mixture_of_escapes_is_masked(data: st.DataObject) -> None:
    secret = data.draw(
        st.text(min_size=SECRET_BYTES_MIN, max_size=20).filter(lambda text: text.isprintable())
    )
    written = "".join(
        char if char.isascii() and (char.isalnum() or char in "._~-") else in_some_way(data, char)
        for char in secret
    )
    assert masked(secret, written.encode()), (secret, written)


def test_an_escaped_backslash_at_the_end_is_masked_as_a_whole() -> None:
    for written in (r"0000000\u005c", r"0000000\x5c", "0000000&#92;", "0000000%5C", "0000000\\\\"):
        assert masked("0000000\\", written.encode()), written


def test_everything_around_a_secret_stays() -> None:
    body = b'{"error": {"message": "Bearer %s is expired", "headers": ["Authorization: Bearer %s"]}}'
    stars = b"*" * len(JWT)
    assert Redactor([JWT]).redact(body % (JWT.encode(), JWT.encode())) == body % (stars, stars)


def test_data_without_secrets_is_the_same_object() -> None:
    body = b"nothing to hide"
    assert Redactor([JWT]).redact(body) is body


def test_short_secrets_are_not_masked() -> None:
    assert not Redactor(["x" * (SECRET_BYTES_MIN - 1)])
    assert not Redactor()


def test_several_secrets_are_masked() -> None:
    assert Redactor([JWT, "0123456789"]).redact(b"0123456789 " + JWT.encode()).strip(b"* ") == b""


def test_header_values_are_masked() -> None:
    headers = [(b"x-a", b"1"), (b"x-b", JWT.encode()), (b"location", b"/x?t=" + quote(ODD, safe="").encode())]
    found = Redactor([JWT, ODD]).redact_values(headers)
    assert [(name, len(value)) for name, value in found] == [(name, len(value)) for name, value in headers]
    assert found[0] == headers[0]
    assert {value.strip(b"*") for _, value in found[1:]} == {b"", b"/x?t="}
    clean = headers[:1]
    assert Redactor([JWT]).redact_values(clean) is clean


@given(
    st.sampled_from(SECRETS),
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.lists(st.integers(0, 900), max_size=12),
)
def test_a_secret_is_masked_wherever_the_reads_end(
    secret: str, before: bytes, after: bytes, cuts: list[int]
) -> None:
    for form in [secret.encode(), quote(secret, safe="").encode(), base64.b64encode(secret.encode())]:
        body = before + form + after + form
        stream = Redactor([secret]).stream()
        ends = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        pieces = [stream.feed(body[start:end]) for start, end in itertools.pairwise(ends)]
        got = b"".join(pieces) + stream.flush()
        assert got == Redactor([secret]).redact(body)
        assert len(got) == len(body)
        assert form[2:-4] not in got


NESTED = [
    "user7:pa55word-Zx84f9aK2mN7pQ1rS8tV3-tail99",
    "pa55word-Zx84f9aK2mN7pQ1rS8tV3",
    "Zx84f9aK2mN7pQ1rS8tV3",
    "tV3-tail99/and+more",  # overlaps the first
    "abcabcabcabc",  # overlaps itself
    "0000000\\",
]


def occurrences(secret: str, body: bytes) -> set[int]:
    """The places of all bytes that belong to a secret, as it is or in JSON or in a URL."""
    forms = {secret.encode(), json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode()}
    starts = {(form, at) for form in forms for at in range(len(body)) if body.startswith(form, at)}
    return {place for form, at in starts for place in range(at, at + len(form))}


@st.composite
def quotes_of_secrets(draw: st.DrawFn) -> bytes:
    """A text of secrets, their parts and other characters, each as it is or in JSON or in a URL."""
    parts = st.one_of(
        st.sampled_from(NESTED),
        st.sampled_from(NESTED).flatmap(lambda secret: st.integers(1, len(secret)).map(lambda n: secret[:n])),
        st.sampled_from(NESTED).flatmap(
            lambda secret: st.integers(1, len(secret)).map(lambda n: secret[-n:])
        ),
        st.sampled_from(["abc", "/and+more", " ", "\\", "key: ", "u005c"]),
    )
    written = parts.flatmap(
        lambda part: st.sampled_from([part, json.dumps(part)[1:-1], quote(part, safe="")])
    )
    return "".join(draw(st.lists(written, max_size=8))).encode()


@given(quotes_of_secrets(), st.lists(st.integers(0, 300), max_size=12), st.permutations(NESTED))
def test_exactly_the_bytes_of_secrets_that_overlap_are_masked_wherever_the_reads_end(
    body: bytes, cuts: list[int], secrets: list[str]
) -> None:
    body += b"." * 100
    hidden = set().union(*(occurrences(secret, body) for secret in NESTED))
    redactor = Redactor(secrets)
    stream = redactor.stream()
    ends = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [stream.feed(body[start:end]) for start, end in itertools.pairwise(ends)]
    got = b"".join(pieces) + stream.flush()
    assert got == redactor.redact(body)
    assert [place for place in sorted(hidden) if got[place] != ord("*")] == []
    assert all(shown in {sent, ord("*")} for shown, sent in zip(got, body, strict=True))


def test_bytes_that_belong_to_no_secret_stay_next_to_secrets_that_overlap() -> None:
    first, second = NESTED[0], NESTED[3]
    whole = first.removesuffix("tV3-tail99") + second
    body = f"bad key {whole}, tail99 {NESTED[2]}".encode()
    stars = f"bad key {'*' * len(whole)}, tail99 {'*' * len(NESTED[2])}".encode()
    assert Redactor(NESTED).redact(body) == stars


@pytest.mark.parametrize("place", [0, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX - len(ODD), 2 * PIECE_BYTES_MAX])
def test_long_data_is_masked_in_pieces(place: int) -> None:
    redactor = Redactor([*NESTED, ODD])
    data = b"." * place + ODD.encode() + b"." * PIECE_BYTES_MAX + JWT.encode() + NESTED[0].encode()
    pieces = [*redactor.pieces(data)]
    assert b"".join(pieces) == redactor.redact(data)
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX


def test_masking_costs_linear_time() -> None:
    redactor = Redactor(["a" * 4000 + "b"])  # The secret seems to begin everywhere and ends nowhere.
    assert redactor.redact(b"a" * (4 << 20)) == b"a" * (4 << 20)


@pytest.mark.parametrize(
    ("coding", "compress"),
    [(b"gzip", gzip.compress), (b"X-Gzip ", gzip.compress), (b"deflate", zlib.compress)],
)
def test_a_compressed_body_is_expanded_in_bounded_pieces(coding: bytes, compress: object) -> None:
    body = b"0123456789" * 200_000
    expansion = Expansion.of(coding)
    assert expansion is not None
    assert callable(compress)
    pieces = [expansion.expand(compress(body))]
    while expansion.has_more:
        pieces.append(expansion.expand())
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX


def test_other_codings_are_not_known() -> None:
    assert Expansion.of(b"br") is None
    assert Expansion.of(b"gzip, gzip") is None


def test_a_body_that_is_not_compressed_as_it_says_is_an_error() -> None:
    expansion = Expansion.of(b"gzip")
    assert expansion is not None
    with pytest.raises(ValueError, match="coding"):
        expansion.expand(b"plain")


def expanded(compressed: bytes, size: int) -> bytes:
    """Return what a body that arrives in pieces of this size expands to."""
    expansion = Expansion.of(b"gzip")
    assert expansion is not None
    found = b""
    for start in range(0, len(compressed), size):
        found += expansion.expand(compressed[start : start + size])
        while expansion.has_more:
            found += expansion.expand()
    expansion.check_end()
    return found


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "parts",
    [[b"whole"], [b"one", b"", b"two"], [b"0" * 300_000, b"1" * 300_000]],
    ids=["1", "3", "large"],
)
def test_a_body_is_expanded_to_its_end_or_is_an_error(parts: list[bytes], size: int) -> None:
    members = [*map(gzip.compress, parts)]
    assert expanded(b"".join(members), size) == b"".join(parts)
    for cut in range(1, len(members[-1])):
        with pytest.raises(ValueError, match="cut off"):
            expanded(b"".join(members)[:-cut], max(size, 7))


def test_a_body_without_a_byte_is_complete() -> None:
    assert expanded(b"", 1) == b""


def test_what_follows_a_compressed_body_is_an_error() -> None:
    for size in (1, 100):
        with pytest.raises(ValueError, match="coding"):
            expanded(gzip.compress(b"whole") + b"more", size)


def test_a_flood_of_empty_members_is_an_error() -> None:
    flood = gzip.compress(b"") * 20_000
    since = time.process_time()
    with pytest.raises(ValueError, match="too many"):
        expanded(flood, len(flood))
    assert time.process_time() - since < paced(1)

"""Every request of the corpus that our server, h11 and nginx 1.22 treat differently, with the reason."""

from typing import Final, NamedTuple


class Difference(NamedTuple):
    """Requests that some parsers accept and others refuse.

    Args:
        accepted_by: Of `ours`, `h11` and `nginx`.
        why: What the parsers do.
        names: Of the requests in the corpus.
    """

    accepted_by: frozenset[str]
    why: str
    names: tuple[str, ...]


_NGINX: Final = frozenset({"nginx"})
_H11: Final = frozenset({"h11"})
_BOTH: Final = frozenset({"h11", "nginx"})
_OURS_AND_NGINX: Final = frozenset({"ours", "nginx"})
_OURS_AND_H11: Final = frozenset({"ours", "h11"})

DIFFERENCES: Final = (
    Difference(
        _NGINX,
        "nginx takes LF, or CR CR LF, for the end of a line. With a bare LF, one side can see a line "
        "that another does not.",
        (
            "chunks: LF behind the data", "chunks: LF behind the last chunk", "chunks: LF behind the size",
            "chunks: LF in an extension", "chunks: data shorter than the size",
            "first line: GET /a\\nb HTTP/1.1", "header: X-A: b\\r\\r\\n", "line first: X: a\\nb",
            "line first: X: a\\r", "line: X: a\\nb", "line: X: a\\r", "refused: a chunk that ends with LF",
        ),
    ),
    Difference(
        _NGINX,
        "nginx drops a header line or a trailer that it cannot parse, and goes on; it does not "
        "forward it.",
        (
            "chunks: a trailer without a colon", "coding in Transfer-\\xc5ncoding",
            "header: \\xff: a\\r\\n", "header: a\\r\\n", "length and coding in Transfer-\\xc5ncoding",
            "line first: \"X\": y", "line first: X", "line first: X(): y", "line first: X/Y: y",
            "line first: X@: y", "line first: X\\xff: y", "line: \"X\": y", "line: X", "line: X(): y",
            "line: X/Y: y", "line: X@: y", "line: X\\xff: y", "refused: endless trailers",
            "refused: no colon",
        ),
    ),
    Difference(
        _NGINX,
        "nginx serves HTTP/0.9, which has no versions and no headers.",
        (
            "first line: GET /", "refused: no version",
        ),
    ),
    Difference(
        _NGINX,
        "nginx reads the version leniently.",
        (
            "first line: GET / HTTP/1.1 ", "first line: GET / HTTP/1.10",
        ),
    ),
    Difference(
        _NGINX,
        "A target may hold ASCII only (RFC 3986); nginx forwards any byte.",
        (
            "first line: GET /\\xff HTTP/1.1", "refused: a target beyond ASCII", "target: /livez?\\xff",
            "target: /v1/\\xff", "target: /v1/models?\\xff",
        ),
    ),
    Difference(
        _NGINX,
        "nginx skips anything behind a chunk size.",
        (
            "chunks: a space before the extension",
        ),
    ),
    Difference(
        _H11,
        "h11 joins folded lines (RFC 9112 5.2 allows to refuse them).",
        (
            "coding in  Transfer-Encoding", "coding in X: y\\r\\n Transfer-Encoding",
            "coding in X: y\\r\\n\\tTransfer-Encoding", "header:  a: b\\r\\n",
            "length and coding in X: y\\r\\n Transfer-Encoding",
            "length and coding in X: y\\r\\n\\tTransfer-Encoding", "line first: X: y\\r\\n z",
            "line first: X: y\\r\\n z: w", "line first: X: y\\r\\n\\tz", "line:  X: y",
            "line: X: y\\r\\n z", "line: X: y\\r\\n z: w", "line: X: y\\r\\n\\tz", "line: \\tX: y",
            "refused: a folded line",
        ),
    ),
    Difference(
        _H11,
        "h11 prefers Transfer-Encoding to Content-Length. RFC 9112 6.1 calls the pair an attempt to "
        "smuggle.",
        (
            "coding and length:  chunked", "coding and length: CHUNKED", "coding and length: Chunked",
            "coding and length: \\tchunked", "coding and length: chunked", "coding and length: chunked ",
            "coding and length: chunked\\t", "length and coding in TRANSFER-ENCODING",
            "length and coding in X: y\\nTransfer-Encoding", "length and coding in transfer-encoding",
            "refused: chunks and length", "refused: length and chunks",
        ),
    ),
    Difference(
        _H11,
        "h11 takes equal lengths for one (RFC 9112 6.3 allows to refuse them).",
        (
            "length twice:  3", "length twice: 3", "length twice: 3 ", "length twice: 3, 3",
            "length twice: 3,3", "length twice: 3\\t", "length twice: \\t3", "length: 3, 3", "length: 3,3",
            "line: X: y\\nContent-Length: 3", "refused: a list of lengths", "refused: two lengths",
        ),
    ),
    Difference(
        _H11,
        "h11 leaves the version to its user.",
        (
            "first line: GET / HTTP/0.9", "first line: GET / HTTP/2.0", "refused: HTTP/0.9",
            "refused: HTTP/2.0", "refused: the preface of HTTP/2",
        ),
    ),
    Difference(
        _H11,
        "h11 allows Transfer-Encoding in HTTP/1.0. RFC 9112 6.1 calls it faulty.",
        (
            "refused: chunks in HTTP/1.0",
        ),
    ),
    Difference(
        _H11,
        "h11 leaves the value of Host to its user.",
        (
            "host: a b", "host: a/b", "host: a\\x01", "host: a\\x7f", "refused: a host with a slash",
            "refused: a host with a space",
        ),
    ),
    Difference(
        _H11,
        "h11 leaves the form of the target to its user.",
        (
            "first line: GET x HTTP/1.1", "target: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...(20001)",
            "target: :", "target: ?x", "target: @", "target: [", "target: a:b",
            "target: javascript:alert(1)",
        ),
    ),
    Difference(
        _H11,
        "h11 leaves the method to its user; nginx wants upper case, and we want a known method.",
        (
            "first line: get / HTTP/1.1", "refused: a method in lower case",
        ),
    ),
    Difference(
        _H11,
        "h11 has one limit for the whole head; the others limit the target and the lines as well.",
        (
            "refused: too long a head", "refused: too long a target",
        ),
    ),
    Difference(
        _H11,
        "h11 allows a bare CR in a chunk extension.",
        (
            "chunks: CR in an extension",
        ),
    ),
    Difference(
        _H11,
        "h11 allows a tab behind a value; so does RFC 9110 5.5, but nobody sends it.",
        (
            "coding: chunked\\t",
        ),
    ),
    Difference(
        _BOTH,
        "Bare LF ends a line for both (RFC 9112 2.2 allows it). With it, one side can see a line that "
        "another does not.",
        (
            "chunks: LF at the end", "chunks: a trailer with LF", "coding in X: y\\nTransfer-Encoding",
            "first line: GET / HTTP/1.1\\nX: y", "header: X-A: b\\n", "line end: \\n",
            "line first: X: y\\nContent-Length: 3", "refused: bare LFs",
        ),
    ),
    Difference(
        _BOTH,
        "Both allow control characters other than CR, LF and NUL.",
        (
            "chunks: NUL in an extension", "header: X-A: \\x01\\r\\n", "header: X-A: \\x02\\r\\n",
            "header: X-A: \\x1b[2J\\r\\n", "header: X-A: \\x7f\\r\\n", "line first: X: a\\x01b",
            "line first: X: a\\x7fb", "line: X: a\\x01b", "line: X: a\\x7fb",
            "refused: a control character",
        ),
    ),
    Difference(
        _BOTH,
        "Both allow more in Host than a name, an address and a port.",
        (
            "host: \\xe4\\xbd\\xa0", "host: \\xff", "host: a@b", "host: xn--\\xff",
            "refused: a host with an at sign",
        ),
    ),
    Difference(
        _BOTH,
        "Both ignore an unknown expectation; RFC 9110 10.1.1 allows 417.",
        (
            "header: Expect: \\xff\\r\\n", "line first: Expect: x", "line: Expect: x",
            "refused: an unknown expectation",
        ),
    ),
    Difference(
        _BOTH,
        "Both serve any HTTP/1.x as HTTP/1.1; we know no other than 1.0 and 1.1.",
        (
            "first line: GET / HTTP/1.2", "refused: HTTP/1.2",
        ),
    ),
    Difference(
        _BOTH,
        "Both leave the method to the application; an unknown one, or that of another protocol, is 501 here.",
        (
            "first line: FOO / HTTP/1.1", "refused: an unknown method", "refused: a method of Icecast",
        ),
    ),
    Difference(
        _BOTH,
        "A trailer with a length or a coding, or a folded one, is dropped by both; we refuse it.",
        (
            "chunks: a coding as a trailer", "chunks: a folded trailer", "chunks: a length as a trailer",
        ),
    ),
    Difference(
        _BOTH,
        "Both skip white space and empty extensions behind a chunk size, which no client sends.",
        (
            "chunks: a space behind the semicolon", "chunks: a space behind the size",
            "chunks: a tab behind the size", "chunks: an empty extension",
            "refused: a chunk size with a space",
        ),
    ),
    Difference(
        _BOTH,
        "Both serve a bad WebSocket handshake as an ordinary request; we answer 400 or 426.",
        (
            "refused: a WebSocket without a key", "refused: an old WebSocket",
        ),
    ),
    Difference(
        _BOTH,
        "Neither limits a long trailer behind a large body; we do, because our parser copies it repeatedly.",
        (
            "refused: an endless trailer behind a large body",
        ),
    ),
    Difference(
        _BOTH,
        "Neither counts header lines; we allow 200.",
        (
            "refused: too many headers",
        ),
    ),
    Difference(
        _H11,
        "A body without a length is the next request for all; h11 alone takes `abcGET` for a method.",
        (
            "a body and no length",
        ),
    ),
    Difference(
        _OURS_AND_NGINX,
        "h11 limits the digits of a length and of a chunk size; leading zeros change nothing.",
        (
            "chunks: many leading zeros", "length: 00000000000000000000003",
        ),
    ),
    Difference(
        _OURS_AND_NGINX,
        "h11 wants exactly one space; RFC 9112 3 allows more.",
        (
            "first line: GET  / HTTP/1.1", "first line: GET /  HTTP/1.1",
        ),
    ),
    Difference(
        _OURS_AND_NGINX,
        "h11 skips no empty lines in front of a request; RFC 9112 2.2 recommends to skip one.",
        (
            "in front: \\n", "in front: \\r", "in front: \\r\\n", "in front: \\r\\n\\r\\n",
            "served: an empty line in front",
        ),
    ),
    Difference(
        _OURS_AND_NGINX,
        "h11 closes every HTTP/1.0 connection.",
        (
            "served: HTTP/1.0 with keep-alive", "served: HTTP/1.0 with RTSP in a header",
        ),
    ),
    Difference(
        _OURS_AND_H11,
        "nginx allows no tab around a length or a coding; RFC 9110 5.5 does.",
        (
            "coding: \\tchunked", "length: 3\\t", "length: \\t3",
        ),
    ),
    Difference(
        _OURS_AND_H11,
        "nginx refuses CONNECT and TRACE itself; our application does.",
        (
            "first line: CONNECT / HTTP/1.1", "first line: CONNECT x:80 HTTP/1.1",
            "first line: TRACE / HTTP/1.1",
        ),
    ),
    Difference(
        _OURS_AND_H11,
        "nginx refuses hosts that are no names; our application does not use the host.",
        (
            "host: ", "host: .", "host: ..", "host: :", "host: :80", "host: ::1", "host: a..b",
        ),
    ),
    Difference(
        _OURS_AND_H11,
        "nginx allows lines of 8 KiB by default; we allow heads of 64 KiB.",
        (
            "header: X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...(10007)",
            "target: /v1/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/...(10004)",
            "target: /v1/models?&&&&&&&&&&&&&&&&&&&&&&&&&&&&&...(10011)",
        ),
    ),
    Difference(
        _OURS_AND_H11,
        "nginx decodes and resolves the path, and refuses what it cannot; our application checks "
        "paths itself.",
        (
            "first line: GET * HTTP/1.1", "first line: GET /% HTTP/1.1", "first line: GET /%00 HTTP/1.1",
            "first line: GET /%zz HTTP/1.1", "first line: OPTIONS * HTTP/1.1", "target: *", "target: /%",
            "target: /%zz", "target: /..", "target: /v1/%00", "target: http://", "target: http://[",
            "target: http://[::1",
        ),
    ),
)  # fmt: skip

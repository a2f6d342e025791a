"""Requests on which HTTP parsers may differ: malformed ones, attempts to smuggle, and valid oddities."""

from collections.abc import Iterator
from typing import Final

from tests.integration.test_malformed_requests import HEADERS, HOSTS, TARGETS
from tests.server.test_request_reader import REFUSED, SERVED

AFTER: Final = b"GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Follows each case. A parser that reads it inside a body, or only a part of it, has lost the boundary."""
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CODINGS: Final = (
    b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"chunked ", b"\tchunked", b"chunked\t",
    b"chunked;q=1", b"chunked,", b",chunked", b"chunked, chunked", b"chunked,identity",
    b"identity, chunked", b"x, chunked", b'"chunked"', b"chunked\x0b", b"\x0cchunked", b"chunked\x00",
    b"chunked\xa0", b"chunke", b"chunkedd", b"cow", b"", b"identity", b"gzip", b"deflate, chunked",
    b"chun\tked",
)  # fmt: skip
_CODING_NAMES: Final = (
    b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer-Encoding\t", b"Transfer_Encoding",
    b"Transfer Encoding", b"Transfer-Encoding\x00", b"\x00Transfer-Encoding", b"Transfer-\xc5ncoding",
    b"transfer-encoding", b"TRANSFER-ENCODING", b"X: y\rTransfer-Encoding", b"X: y\nTransfer-Encoding",
    b"X: y\r\n Transfer-Encoding", b"X: y\r\n\tTransfer-Encoding",
)  # fmt: skip
_LENGTHS: Final = (
    b"3", b"03", b"003", b" 3", b"3 ", b"\t3", b"3\t", b"+3", b"-3", b"-0", b"3.0", b"3e0", b"0x3", b"0b11",
    b"3,3", b"3, 3", b"3,4", b"3;3", b"3 3", b"", b",3", b"3,", b'"3"', b"\x0b3", b"3\x00", b"\xb3",
    b"three", b"3_0", b"00000000000000000000003", b"18446744073709551619", b"9" * 40, b"1" * 400,
    b"\xd9\xa3",
)  # fmt: skip
_CHUNKS: Final = {
    "lower case hexadecimal": b"a\r\n0123456789\r\n0\r\n\r\n",
    "upper case hexadecimal": b"A\r\n0123456789\r\n0\r\n\r\n",
    "leading zeros": b"0003\r\nabc\r\n0\r\n\r\n",
    "many leading zeros": b"0" * 40 + b"3\r\nabc\r\n0\r\n\r\n",
    "a last chunk of many zeros": b"3\r\nabc\r\n00000\r\n\r\n",
    "an extension": b"3;a\r\nabc\r\n0\r\n\r\n",
    "an extension with a value": b"3;a=b\r\nabc\r\n0\r\n\r\n",
    "a quoted extension": b'3;a="b"\r\nabc\r\n0\r\n\r\n',
    "a quoted line break": b'3;a="b\r\nc"\r\nabc\r\n0\r\n\r\n',
    "a space before the extension": b"3 ;a\r\nabc\r\n0\r\n\r\n",
    "a space behind the semicolon": b"3; a\r\nabc\r\n0\r\n\r\n",
    "an empty extension": b"3;\r\nabc\r\n0\r\n\r\n",
    "an extension of the last chunk": b"3\r\nabc\r\n0;a\r\n\r\n",
    "LF in an extension": b"3;a\nabc\r\n0\r\n\r\n",
    "CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "NUL in an extension": b"3;a\x00\r\nabc\r\n0\r\n\r\n",
    "a trailer": b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "two trailers": b"3\r\nabc\r\n0\r\nX: y\r\nZ: y\r\n\r\n",
    "a length as a trailer": b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a coding as a trailer": b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a host as a trailer": b"3\r\nabc\r\n0\r\nHost: y\r\n\r\n",
    "a trailer without a colon": b"3\r\nabc\r\n0\r\nX\r\n\r\n",
    "a folded trailer": b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a trailer with LF": b"3\r\nabc\r\n0\r\nX: y\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a space behind the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a tab behind the size": b"3\t\r\nabc\r\n0\r\n\r\n",
    "a minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "a plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "a comma": b"3,3\r\nabc\r\n0\r\n\r\n",
    "a letter": b"g\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "only an extension": b";a\r\nabc\r\n0\r\n\r\n",
    "16 digits": b"fffffffffffffff0\r\nabc\r\n0\r\n\r\n",
    "17 digits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "CR behind the size": b"3\rabc\r\n0\r\n\r\n",
    "CR CR LF behind the size": b"3\r\r\nabc\r\n0\r\n\r\n",
    "LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "CR behind the data": b"3\r\nabc\r0\r\n\r\n",
    "nothing behind the data": b"3\r\nabc0\r\n\r\n",
    "two other bytes behind the data": b"3\r\nabcXX0\r\n\r\n",
    "data longer than the size": b"2\r\nabc\r\n0\r\n\r\n",
    "data shorter than the size": b"4\r\nabc\r\n0\r\n\r\n",
    "LF behind the last chunk": b"3\r\nabc\r\n0\n\n",
    "LF at the end": b"3\r\nabc\r\n0\r\n\n",
    "no last chunk": b"3\r\nabc\r\n",
    "an early last chunk": b"0\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}
_LINES: Final = (
    b"X: y", b"X:y", b"X:", b"X: ", b"X:\t y \t", b"X : y", b" X: y", b"\tX: y", b"X\t: y", b": y", b"X",
    b"", b"X: y\r\n z", b"X: y\r\n\tz", b"X: y\r\n z: w", b"X: a\rb", b"X: a\nb", b"X: a\r", b"\rX: y",
    b"X: a\x00b", b"X: a\x01b", b"X: a\x7fb", b"X: a\xffb", b"X\xff: y", b"X\x01: y", b"X(): y", b'"X": y',
    b"X@: y", b"X/Y: y", b"X_Y: y", b"!#$%&'*+-.^_`|~: y", b"X: y\nContent-Length: 3",
    b"X: y\rContent-Length: 3", b"Content_Length: 3", b"Content-Length : 3", b"Content-Length\t: 3",
    b"Content-Length\x00: 3", b"Host : y", b"Connection: close, x", b"Connection: keep-alive",
    b"Connection: Content-Length", b"Connection: ,", b"Expect: 100-continue", b"Expect: 100-Continue",
    b"Expect: x", b"Upgrade: h2c", b"Upgrade: x\r\nConnection: upgrade", b"TE: trailers", b"Trailer: X",
    b"Keep-Alive: timeout=5", b"Cookie: " + b"a=b; " * 500,
)  # fmt: skip
_FIRST_LINES: Final = (
    b"GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
    b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1", b"GET\x0b/ HTTP/1.1", b"GET /a b HTTP/1.1", b"GET / HTTP/1.0",
    b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.10", b"GET / HTTP/01.1",
    b"GET / HTTP/1", b"GET / HTTP/ 1.1", b"GET / HTTP/1,1", b"GET / HTTPS/1.1", b"GET / http/1.1",
    b"GET / XTTP/1.1", b"GET /", b"GET", b"", b"/ HTTP/1.1", b"GET HTTP/1.1", b"GET / HTTP/1.1 HTTP/1.1",
    b"GET http://x/ HTTP/1.1", b"GET http://y/ HTTP/1.1", b"GET https://x/ HTTP/1.1", b"GET //x/ HTTP/1.1",
    b"GET x HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT x:80 HTTP/1.1",
    b"CONNECT / HTTP/1.1", b"TRACE / HTTP/1.1", b"HEAD / HTTP/1.1", b"PUT / HTTP/1.1", b"DELETE / HTTP/1.1",
    b"PATCH / HTTP/1.1", b"FOO / HTTP/1.1", b"get / HTTP/1.1", b"G\x00T / HTTP/1.1", b"G\xffT / HTTP/1.1",
    b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /#a HTTP/1.1",
    b"GET /%00 HTTP/1.1", b"GET /% HTTP/1.1", b"GET /%zz HTTP/1.1", b"GET /\\ HTTP/1.1",
    b"GET /a\rb HTTP/1.1", b"GET /a\nb HTTP/1.1", b"GET / HTTP/1.1\rX: y", b"GET / HTTP/1.1\nX: y",
)  # fmt: skip


def _requests() -> Iterator[tuple[str, bytes]]:
    post = b"POST /case HTTP/1.1\r\nHost: x\r\n"
    chunks = b"3\r\nabc\r\n0\r\n\r\n"
    for what, (data, _) in REFUSED.items():
        yield f"refused: {what}", data
    for what, (data, _) in SERVED.items():
        yield f"served: {what}", data
    for coding in _CODINGS:
        line = b"Transfer-Encoding: " + coding + b"\r\n"
        yield f"coding: {_shown(coding)}", post + line + b"\r\n" + chunks
        yield f"coding and length: {_shown(coding)}", post + line + b"Content-Length: 13\r\n\r\n" + chunks
    for name in _CODING_NAMES:
        line = name + b": chunked\r\n"
        yield f"coding in {_shown(name)}", post + line + b"\r\n" + chunks
        yield (
            f"length and coding in {_shown(name)}",
            post + b"Content-Length: 13\r\n" + line + b"\r\n" + chunks,
        )
    for length in _LENGTHS:
        yield f"length: {_shown(length)}", post + b"Content-Length: " + length + b"\r\n\r\nabc"
        yield (
            f"length twice: {_shown(length)}",
            (post + b"Content-Length: 3\r\nContent-Length: " + length + b"\r\n\r\nabc"),
        )
    for what, body in _CHUNKS.items():
        yield f"chunks: {what}", post + CHUNKED + b"\r\n" + body
    for line in _LINES:
        yield f"line: {_shown(line)}", post + line + b"\r\nContent-Length: 3\r\n\r\nabc"
        yield f"line first: {_shown(line)}", b"GET /case HTTP/1.1\r\n" + line + b"\r\nHost: x\r\n\r\n"
    for line in _FIRST_LINES:
        yield f"first line: {_shown(line)}", line + b"\r\nHost: x\r\n\r\n"
    for target in TARGETS:
        yield f"target: {_shown(target)}", b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for host in HOSTS:
        yield f"host: {_shown(host)}", b"GET /case HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    for header in HEADERS:
        yield f"header: {_shown(header)}", post + header + b"Content-Length: 2\r\n\r\n{}"
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\n"):
        yield f"line end: {_shown(end)}", end.join([b"GET /case HTTP/1.1", b"Host: x", b"", b""])
    for front in (b"\r\n", b"\n", b"\r\n\r\n", b"\r", b" ", b"\x00", b"\xef\xbb\xbf"):
        yield f"in front: {_shown(front)}", front + post + b"Content-Length: 3\r\n\r\nabc"
    yield "HTTP/1.0 with a body and no length", b"POST /case HTTP/1.0\r\nHost: x\r\n\r\nabc"
    yield "GET with a body", b"GET /case HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    yield "a body and no length", post + b"\r\nabc"


def _shown(data: bytes) -> str:
    text = repr(data)[2:-1]
    return text if len(text) <= 60 else f"{text[:40]}...({len(data)})"


CORPUS: Final = dict(_requests())

"""Random exchanges: a request of OpenAI's API as clients write it, and a possible response."""

import json
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

Pairs = list[tuple[bytes, bytes]]

ENDPOINTS: Final = (
    b"chat/completions", b"completions", b"embeddings", b"models", b"models/BAAI%2Fbge-m3", b"rerank",
    b"moderations", b"audio/speech", b"audio/transcriptions", b"audio/translations", b"images/generations",
    b"images/edits", b"images/variations", b"files", b"files/file-1", b"files/file-1/content", b"batches",
    b"batches/b-1/cancel", b"responses", b"responses/r-1/input_items", b"fine_tuning/jobs",
    b"fine_tuning/jobs/ft-1/events", b"vector_stores", b"vector_stores/vs-1/files", b"uploads/u-1/parts",
    b"not/yet%20invented:v2",
)  # fmt: skip
MOUNTS: Final = (b"/v1/", b"/agent/api/llm_proxy/v1/")
METHODS: Final = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
BODILESS: Final = frozenset({204, 304})
# Redirects are refused, and a 401 is repaired: neither is relayed.
STATUSES: Final = (
    200, 200, 200, 200, 201, 202, 203, 204, 206, 207, 300, 304, 400, 402, 403, 404, 405, 409, 413, 415, 418,
    422, 429, 451, 500, 501, 502, 503, 504, 520, 529, 599,
)  # fmt: skip
UP_NAMES: Final = (
    b"accept", b"accept-language", b"user-agent", b"x-custom", b"x-custom", b"openai-beta", b"traceparent",
    b"x-stainless-lang", b"idempotency-key", b"if-none-match", b"range", b"x-title", b"anthropic-version",
)  # fmt: skip
DOWN_NAMES: Final = (
    b"etag", b"x-vendor", b"x-vendor", b"openai-version", b"openai-processing-ms", b"retry-after", b"vary",
    b"x-ratelimit-remaining-tokens", b"content-disposition", b"www-authenticate", b"last-modified", b"x-link",
    b"content-range", b"cross-origin-resource-policy",
)  # fmt: skip
EVENTS: Final = b"text/event-stream"


@dataclass(frozen=True)
class Asked:
    """A request, and the framing of its body: a length, or chunks."""

    method: str
    mount: bytes
    endpoint: bytes
    query: bytes
    headers: Pairs
    body: bytes
    chunks: list[bytes] | None = None

    @property
    def target(self) -> bytes:
        """The endpoint with its query, which both sides see."""
        return self.endpoint + (b"?" + self.query if self.query else b"")

    def written(self, key: str) -> bytes:
        """The bytes of the request."""
        own = [
            (b"Host", b"proxy.localhost"),
            (b"Authorization", b"Bearer " + key.encode()),
            (b"Connection", b"close"),
        ]
        if self.chunks is not None:
            own.append((b"Transfer-Encoding", b"chunked"))
        elif self.body:
            own.append((b"Content-Length", b"%d" % len(self.body)))
        line = b"%s %s%s HTTP/1.1" % (self.method.encode(), self.mount, self.target)
        return head(line, [*own, *self.headers]) + (
            self.body if self.chunks is None else chunked(self.chunks) + b"0\r\n\r\n"
        )


@dataclass(frozen=True)
class Told:
    """A response; its body in the pieces in which it is written."""

    status: int
    headers: Pairs
    pieces: list[bytes]
    framing: str = "length"
    """`length`, `chunked`, or `close`, if it ends with the connection."""

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)

    @property
    def is_events(self) -> bool:
        """Whether its content type is an event stream."""
        return (b"content-type", EVENTS) in self.headers

    @property
    def head(self) -> bytes:
        """The bytes of the head."""
        framing = {
            "length": [(b"Content-Length", b"%d" % len(self.body))],
            "chunked": [(b"Transfer-Encoding", b"chunked")],
            "close": [(b"Connection", b"close")],
        }[self.framing]
        return head(
            b"HTTP/1.1 %d Said" % self.status, [*([] if self.status in BODILESS else framing), *self.headers]
        )


def head(line: bytes, pairs: Pairs) -> bytes:
    """Return the head of a message."""
    return b"\r\n".join([line, *(name + b": " + value for name, value in pairs), b"", b""])


def chunked(pieces: list[bytes]) -> bytes:
    """Return a body as chunks, without the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@st.composite
def cut(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """Draw non-empty pieces of the same bytes."""
    ends = sorted(set(draw(st.lists(st.integers(1, max(1, len(body) - 1)), max_size=5)))) if body else []
    pieces = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
    return [piece for piece in pieces if piece]


def headers(names: tuple[bytes, ...], *odd: bytes) -> st.SearchStrategy[Pairs]:
    """Draw some of these headers, perhaps repeated, with any text or an odd value."""
    letters = st.characters(min_codepoint=0x20, max_codepoint=0x9FFF, exclude_categories=["C", "Z"])
    value = st.text(letters | st.just(" "), max_size=16).map(lambda text: text.strip(" ").encode())
    values = st.one_of(value, *map(st.just, odd))
    return st.lists(st.tuples(st.sampled_from(names), values), max_size=5)


SPACE: Final = st.sampled_from(["", "", " ", "\n", "\r\n\t"])
NUMBERS: Final = st.sampled_from(
    [
        "0",
        "-0",
        "1.10",
        "1E5",
        "1e+05",
        "-0.0E-00",
        "1e400",
        "10000000000000000000000",
        "0.1000000000000000055511",
    ]
)
STRINGS: Final = st.text(max_size=8).map(
    lambda text: json.dumps(text.encode("utf-8", "ignore").decode(), ensure_ascii=False)
) | st.sampled_from(['"\\u00e9"', '"\\ud83d\\uDE00"', '"\\/\\u0000"', '"\\u005Cn"'])
KEYS: Final = STRINGS | st.sampled_from(['"model"', '"stream"', '"messages"', '"z"', '"a"', '"m\\u006fdel"'])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw arrays with odd spaces."""
    return st.tuples(SPACE, st.lists(inner, max_size=3)).map(
        lambda parts: "[" + f"{parts[0]},".join(parts[1]) + "]"
    )


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw objects with odd spaces, and keys in any order, some of them twice."""
    pair = st.tuples(KEYS, SPACE, inner).map(lambda parts: f"{parts[0]}{parts[1]}:{parts[1]}{parts[2]}")
    return st.tuples(SPACE, st.lists(pair, max_size=4)).map(
        lambda parts: "{" + f"{parts[0]},".join(parts[1]) + "}"
    )


VALUES: Final = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"]),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=8,
)
JSON: Final = st.tuples(SPACE, VALUES).map(lambda parts: f"{parts[0]}{parts[1]}{parts[0]}".encode())
JSON_REQUESTS: Final = st.tuples(SPACE, objects(VALUES)).map(
    lambda parts: f"{parts[0]}{parts[1]}{parts[0]}".encode()
)

LINES: Final = st.sampled_from(
    [
        b": a comment", b'data:{"n":1.10}', b"data: \xe4\xbd\xa0", b"data: \xff\x00", b"data", b"event: x",
        b"id: 7", b"retry: 3",
    ]
)  # fmt: skip
LINE_ENDS: Final = st.sampled_from([b"\n", b"\r\n", b"\r"])
EVENT: Final = st.tuples(st.lists(LINES, max_size=3), LINE_ENDS).map(
    lambda parts: parts[1].join([*parts[0], b"", b""])
)
LAST: Final = st.sampled_from(
    [
        b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]\r\r", b"data: [DONE]\n",
        b"data: [DONE]\n\n: after\r\n\r\n",
    ]
)  # fmt: skip
QUERY: Final = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=12
).map(str.encode)
STREAMS: Final = st.tuples(st.lists(EVENT, max_size=5).map(b"".join), LAST).map(b"".join)


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """Draw any request that is relayed."""
    kind = draw(
        st.sampled_from(
            [None, b"application/octet-stream", b"multipart/form-data; boundary=b", b"application/json"]
        )
    )
    is_json = kind == b"application/json"
    body = draw(JSON_REQUESTS | st.just(b"") if is_json else st.binary(max_size=400))
    others = draw(headers(UP_NAMES))
    return Asked(
        method=draw(st.sampled_from(METHODS)),
        mount=draw(st.sampled_from(MOUNTS)),
        endpoint=draw(st.sampled_from(ENDPOINTS)),
        query=draw(QUERY),
        headers=others if kind is None else [(b"content-type", kind), *others],
        body=body,
        chunks=draw(st.none() | cut(body)),
    )


@st.composite
def answers(draw: st.DrawFn) -> Told:
    """Draw any response that is relayed."""
    status = draw(st.sampled_from(STATUSES))
    kind = draw(st.sampled_from([None, b"application/json", b"audio/mpeg", EVENTS, EVENTS]))
    body = draw(STREAMS if kind == EVENTS else JSON | st.binary(max_size=400))
    others = draw(headers(DOWN_NAMES, b"\xe9t\xe9", b"\xff"))  # Latin-1, which is not UTF-8
    return Told(
        status=status,
        headers=others if kind is None else [(b"content-type", kind), *others],
        pieces=[] if status in BODILESS else draw(cut(body)),
        framing=draw(st.sampled_from(["length", "chunked", "chunked", "close"])),
    )

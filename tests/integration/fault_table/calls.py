"""The requests of RAGFlow's classes and of Dify's plugin, with their parsers and the expected results."""

import base64
import json
import struct
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from tests.integration.fault_table import readers
from tests.integration.fault_table.replies import DONE, Json, Reply, as_json, as_stream

TEXT: Final = "Hello there."
USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
TOOL_CALLS: Final[list[Json]] = [
    {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
VECTORS: Final = [[0.5, 0.25], [0.125, -1.0], [1.5, 2.0]]
SCORES: Final = [0.25, 0.75, 0.5]
SOUND: Final = b"ID3\x04" + bytes(range(256)) * 40
TOOLS: Final = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("f", "g")
]
HISTORY: Final = [
    {"role": "user", "content": "Hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"index": None, "id": "call_0", "function": {"name": "f", "arguments": "{}"}, "type": "function"}
        ],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "4"},
]
PICTURE: Final = [
    {"type": "text", "text": "描述图片"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
]


@dataclass(frozen=True)
class ClientCall:
    """One kind of request of a client.

    Args:
        name: For the table.
        kind: Of the answer: chat, stream, embeddings, rerank, speech or transcription.
        path: Where it is sent.
        request: Its body.
        read: What the client makes of a response.
        expected: What the user should get.
    """

    name: str
    kind: str
    path: str
    request: Json
    read: readers.Reader
    expected: Any

    @property
    def client(self) -> str:
        """The client; its set of repairs has the same name."""
        return self.name.partition(" ")[0]

    @property
    def tools(self) -> bool:
        """Whether the answer consists of tool calls."""
        return bool(self.request.get("tools"))

    @property
    def usage_requested(self) -> bool:
        """Whether a stream ends with usage."""
        return bool(self.request.get("stream_options"))

    def answer(self) -> Json:
        """The correct response as JSON."""
        if self.kind == "embeddings":
            items = [
                {"object": "embedding", "index": place, "embedding": vector}
                for place, vector in enumerate(VECTORS)
            ]
            usage = {"prompt_tokens": 5, "total_tokens": 5}
            return {"object": "list", "data": items, "model": "m", "usage": usage}
        if self.kind == "rerank":
            ranks = [{"index": place, "relevance_score": score} for place, score in enumerate(SCORES)]
            return {
                "id": "r",
                "model": "m",
                "results": sorted(ranks, key=lambda rank: -rank["relevance_score"]),
            }
        if self.kind == "transcription":
            return {"text": TEXT}
        message: Json = {"role": "assistant", "content": TEXT}
        if self.tools:
            message = {"role": "assistant", "content": None, "tool_calls": deepcopy(TOOL_CALLS)}
            if self.read is readers.ragflow_tools_before_v0_25:
                message["tool_calls"] = [{"index": n, **each} for n, each in enumerate(message["tool_calls"])]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.tools else "stop"}
        head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m"}
        return {**head, "choices": [choice], "usage": USAGE}

    def deltas(self) -> list[Json]:
        """The deltas of the correct stream."""
        if not self.tools:
            return [{"role": "assistant", "content": ""}, {"content": "Hello"}, {"content": " there."}]
        first, second = (each["function"]["name"] for each in TOOL_CALLS)
        return [
            {"role": "assistant", "content": None},
            {"tool_calls": [part(0, "call_a", first, "")]},
            {"tool_calls": [part(0, None, None, '{"a":')]},
            {"tool_calls": [part(0, None, None, " 1}")]},
            {"tool_calls": [part(1, "call_b", second, "{}")]},
        ]

    def chunks(self) -> list[Json]:
        """The chunks of the correct stream."""
        found = [chunk(delta) for delta in self.deltas()]
        found.append(chunk({}, "tool_calls" if self.tools else "stop"))
        if self.usage_requested:
            found.append({**chunk({}), "choices": [], "usage": USAGE})
        return found

    def right(self) -> Reply:
        """The correct response."""
        if self.kind == "speech":
            return Reply([SOUND[:5000], SOUND[5000:]], content_type="audio/mpeg")
        if self.kind == "stream":
            return as_stream(*self.chunks(), DONE)
        return as_json(self.answer())


def chunk(delta: Any, finish: str | None = None) -> Json:
    """Return a chunk with one choice."""
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def part(index: int, identity: str | None, name: str | None, arguments: str) -> Json:
    """Return a part of a tool call as OpenAI sends it, with id, type and name only once."""
    first = {"id": identity, "type": "function"} if identity else {}
    named = {"name": name} if name else {}
    return {"index": index, **first, "function": {**named, "arguments": arguments}}


def in_base64(vector: list[float]) -> str:
    """Return a vector as OpenAI writes it in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _call(name: str, kind: str, path: str, read: readers.Reader, expected: Any, **request: Any) -> ClientCall:
    return ClientCall(name, kind, path, {"model": "m", **request}, read, expected)


_CHAT: Final = "/v1/chat/completions"
_HI: Final = [{"role": "user", "content": "Hi"}]
_MADE: Final = [("f", {"a": 1}), ("g", {})]
_TEXTS: Final = ["one", "two", "three"]
_SEEN: Final = [{"role": "user", "content": PICTURE}]
_FLOAT: Final = {"input": _TEXTS, "encoding_format": "float", "drop_params": True}
_RANKED: Final = {"query": "q", "documents": _TEXTS, "top_n": 3}
_SPOKEN: Final = {"voice": "alloy", "input": "Hi"}
_USAGE_ASKED: Final = {"stream": True, "stream_options": {"include_usage": True}}
_DIFY_TOOLS: Final = {"messages": _HI, "tools": TOOLS, "tool_choice": "auto"}

CALLS: Final = (
    _call("ragflow chat", "chat", _CHAT, readers.ragflow_chat, TEXT, messages=_HI, temperature=0.9),
    _call(
        "ragflow chat, no tools bound",
        "chat",
        _CHAT,
        readers.ragflow_chat,
        TEXT,
        messages=_HI,
        tools=[],
        tool_choice="auto",
    ),
    _call(
        "ragflow stream",
        "stream",
        _CHAT,
        readers.ragflow_chat_stream,
        (TEXT, True),
        messages=_HI,
        stream=True,
    ),
    _call(
        "ragflow tools",
        "chat",
        _CHAT,
        readers.ragflow_tools,
        _MADE,
        messages=HISTORY,
        tools=TOOLS,
        tool_choice="auto",
    ),
    _call(
        "ragflow tools, v0.24",
        "chat",
        _CHAT,
        readers.ragflow_tools_before_v0_25,
        _MADE,
        messages=HISTORY,
        tools=TOOLS,
        tool_choice="auto",
    ),
    _call(
        "ragflow tools, stream",
        "stream",
        _CHAT,
        readers.ragflow_tools_stream,
        _MADE,
        messages=HISTORY,
        tools=TOOLS,
        tool_choice="auto",
        stream=True,
    ),
    _call(
        "ragflow embeddings", "embeddings", "/v1/embeddings", readers.ragflow_embeddings, VECTORS, **_FLOAT
    ),
    _call(
        "ragflow embeddings, v0.25",
        "embeddings",
        "/v1/embeddings",
        readers.ragflow_embeddings_before_v0_26,
        VECTORS,
        **_FLOAT,
    ),
    _call("ragflow rerank", "rerank", "/v1/rerank", readers.ragflow_rerank, SCORES, **_RANKED),
    _call("ragflow vision", "chat", _CHAT, readers.ragflow_vision, TEXT, messages=_SEEN),
    _call(
        "ragflow vision, stream",
        "stream",
        _CHAT,
        readers.ragflow_vision_stream,
        TEXT,
        messages=_SEEN,
        stream=True,
    ),
    _call("ragflow speech", "speech", "/v1/audio/speech", readers.ragflow_speech, SOUND, **_SPOKEN),
    _call(
        "ragflow transcription",
        "transcription",
        "/v1/audio/transcriptions",
        readers.ragflow_transcription,
        TEXT,
    ),
    _call("dify validation", "chat", _CHAT, readers.dify_validation, "saved", messages=_HI, max_tokens=5),
    _call("dify chat", "chat", _CHAT, readers.dify_chat, TEXT, messages=_HI, stream=False),
    _call("dify stream", "stream", _CHAT, readers.dify_stream, TEXT, messages=_HI, **_USAGE_ASKED),
    _call("dify tools", "chat", _CHAT, readers.dify_chat, _MADE, **_DIFY_TOOLS, stream=False),
    _call("dify tools, stream", "stream", _CHAT, readers.dify_stream, _MADE, **_DIFY_TOOLS, **_USAGE_ASKED),
    _call(
        "dify embeddings",
        "embeddings",
        "/v1/embeddings",
        readers.dify_embeddings,
        VECTORS,
        input=_TEXTS,
        encoding_format="float",
    ),
    _call(
        "dify rerank",
        "rerank",
        "/v1/rerank",
        readers.dify_rerank,
        [0.0, 1.0, 0.5],
        query="q",
        documents=_TEXTS,
        top_n=None,
        return_documents=True,
    ),
    _call("dify speech", "speech", "/v1/audio/speech", readers.dify_speech, SOUND, **_SPOKEN),
    _call(
        "dify transcription",
        "transcription",
        "/v1/audio/transcriptions",
        readers.dify_transcription,
        TEXT,
    ),
)


def written(call: ClientCall) -> tuple[str, bytes]:
    """Return the Content-Type and the body of a request."""
    if call.kind != "transcription":
        return "application/json", json.dumps(call.request, ensure_ascii=False).encode()
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n',
    ]
    return "multipart/form-data; boundary=b", b"".join(parts)

"""The bytes that both ends know: the requests, the responses, and the events of a stream."""

import json
import re
from typing import Final

TOKEN: Final = "bench-token"
DONE: Final = b"data: [DONE]\n\n"
CHUNKED_END: Final = b"0\r\n\r\n"
STREAM_EVENTS: Final = 100
VECTORS: Final = 16
DIMENSIONS: Final = 1024
LARGE_BYTES: Final = 8 * 1024 * 1024

_EVENT_HEAD: Final = '"object":"chat.completion.chunk","created":1767225600,"model":"bench-model"'
_EVENT_TAIL: Final = '"logprobs":null,"finish_reason":null'
_QUESTION: Final = "Which documents does a supplier need for the annual audit, and by what date are they due?"
_PROMPT: Final = "You are an intelligent assistant. Answer from the knowledge base; if it holds none, say so."
_REPLY: Final = (
    "A supplier hands in three documents: the signed self-assessment, the certificate of the quality "
    "system, and the list of subcontractors of the past year. All three must be in by 31 March; a late "
    "set moves the audit to the second half of the year. [ID:0] [ID:2]"
)


def request_body(model: str, *, stream: bool, question: str = _QUESTION) -> bytes:
    """Return a chat request as RAGFlow's model layer writes it."""
    body = {
        "model": model,
        "messages": [{"role": "system", "content": _PROMPT}, {"role": "user", "content": question}],
        "temperature": 0.1,
        "top_p": 0.3,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.7,
        "stream": stream,
    }
    return json.dumps(body).encode()


def chat_answer() -> bytes:
    """The only plain answer."""
    answer = {
        "id": "chatcmpl-7d1c0a52f8e94b3f",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "bench-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _REPLY, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 64, "completion_tokens": 71, "total_tokens": 135},
    }
    return json.dumps(answer).encode()


def embeddings_request() -> bytes:
    """A request for the vectors of some paragraphs."""
    body = {"model": "bench-embed", "input": [_REPLY] * VECTORS, "encoding_format": "float"}
    return json.dumps(body).encode()


def embeddings_answer() -> bytes:
    """Return vectors whose numbers have as many digits as those of a model."""
    vector = [round(0.123456789 * (-1) ** place / (1 + place % 97), 12) for place in range(DIMENSIONS)]
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(VECTORS)],
        "model": "bench-embed",
        "usage": {"prompt_tokens": 1136, "total_tokens": 1136},
    }
    return json.dumps(answer).encode()


def event(stream: str, content: str) -> bytes:
    """One event of a streamed chat."""
    choice = f'{{"index":0,"delta":{{"content":"{content}"}},{_EVENT_TAIL}}}'
    return f'data: {{"id":"chatcmpl-{stream}",{_EVENT_HEAD},"choices":[{choice}]}}\n\n'.encode()


def stream_events() -> list[bytes]:
    """The events of the stream that is sent without pause, its end marker last."""
    return [event("fast", f"word {number:03d}") for number in range(STREAM_EVENTS)] + [DONE]


def paced_event(nonce: str, sequence: int, sent_ns: int) -> bytes:
    """Return an event with its nonce, its number and the time at which it was sent."""
    return event("paced", f"{nonce} {sequence} {sent_ns}")


def paced_pattern() -> re.Pattern[bytes]:
    """Match exactly one paced event without its blank line: nonce, sequence, time sent."""
    sample = re.escape(event("paced", "NONCE SEQUENCE SENT").rstrip(b"\n"))
    for word, group in ((b"NONCE", rb"(\w*)"), (b"SEQUENCE", rb"(\d+)"), (b"SENT", rb"(\d+)")):
        sample = sample.replace(word, group)
    return re.compile(sample)


def rewritten_pattern() -> re.Pattern[bytes]:
    """Match a paced event that a proxy parsed and wrote again: nonce, sequence, time sent."""
    return re.compile(rb'.*"content": ?"(\w*) (\d+) (\d+)".*', re.DOTALL)


def text_of(body: bytes) -> str:
    """Return the model's text in a response, or in the events of a stream."""
    if body.lstrip().startswith(b"{"):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    said = ""
    for line in body.decode().splitlines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            said += "".join(choice["delta"].get("content") or "" for choice in json.loads(data)["choices"])
    return said


def chunk(content: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)

"""An answer as JSON, whole or as an event stream that is paced, counted, and cut where the options say so."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple
from uuid import uuid4

import msgspec
from quart import Response

from proxy.gateway.state import DemoGateway, GatewayOptions, GatewayStats

FINGERPRINT = "fp_b705f0c291"
DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

JsonObject = dict[str, object]


class StreamCut(Exception):
    """Aborts the response that is being sent: no final chunk, the connection closes, nothing is logged."""


class EventStream(NamedTuple):
    """Encoded events, and the indexes of those that carry a piece of text."""

    events: Iterator[bytes]
    pieces: range


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(ABC):
    """The content of an answer; subclasses define its JSON.

    Args:
        model: The requested model.
        pieces: The text in pieces.
        thoughts: How many of the first pieces are reasoning; only chat answers have any.
        truncated: Whether `max_tokens` cut the text short.
        prompt_tokens: Number of pieces in the question.
    """

    model: str
    pieces: list[str]
    thoughts: int = 0
    truncated: bool
    prompt_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))  # epoch seconds
    suffix: str = field(default_factory=lambda: uuid4().hex)

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    @property
    def finish_reason(self) -> str:
        """OpenAI's reason why the text ends."""
        return "length" if self.truncated else "stop"

    @property
    def usage(self) -> JsonObject:
        """OpenAI's token counts; a piece counts as a token."""
        completion = len(self.pieces)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    def whole(self) -> JsonObject:
        """Return the answer as one object."""
        choice = _choice(self._whole_part(), self.finish_reason)
        return {**self._head(self.kind), "choices": [choice], "usage": self.usage}

    def stream(self, *, include_usage: bool) -> EventStream:
        """Return the answer as events, each encoded just before it is sent.

        Args:
            include_usage: OpenAI's `stream_options.include_usage`: `"usage": null` in every event, then one
                more event with the counts and no choices.
        """
        opening = len(self._opening_parts())
        return EventStream(
            self._events(include_usage=include_usage), range(opening, opening + len(self.pieces))
        )

    def _events(self, *, include_usage: bool) -> Iterator[bytes]:
        head = self._head(self.chunk_kind) | ({"usage": None} if include_usage else {})
        for part in self._opening_parts():
            yield _event({**head, "choices": [_choice(part)]})
        for part in self._piece_parts():
            yield _event({**head, "choices": [_choice(part)]})
        yield _event({**head, "choices": [_choice(self._closing_part(), self.finish_reason)]})
        if include_usage:
            yield _event({**head, "choices": [], "usage": self.usage})
        yield DONE

    def _head(self, kind: str) -> JsonObject:
        return {
            "id": f"{self.prefix}-{self.suffix}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }

    @abstractmethod
    def _whole_part(self) -> JsonObject: ...

    @abstractmethod
    def _opening_parts(self) -> list[JsonObject]: ...

    @abstractmethod
    def _piece_parts(self) -> list[JsonObject]: ...

    @abstractmethod
    def _closing_part(self) -> JsonObject: ...


class ChatAnswer(Answer):
    """https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming.

    Reasoning is in `reasoning_content`, as with DeepSeek and Spark.
    """

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def _whole_part(self) -> JsonObject:
        text = "".join(self.pieces[self.thoughts :])
        message: JsonObject = {"role": "assistant", "content": text, "refusal": None}
        if self.thoughts:
            message["reasoning_content"] = "".join(self.pieces[: self.thoughts])
        return {"message": message}

    def _opening_parts(self) -> list[JsonObject]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    def _piece_parts(self) -> list[JsonObject]:
        kinds = ["reasoning_content"] * self.thoughts + ["content"] * (len(self.pieces) - self.thoughts)
        return [{"delta": {kind: piece}} for kind, piece in zip(kinds, self.pieces, strict=True)]

    def _closing_part(self) -> JsonObject:
        return {"delta": {}}


class TextAnswer(Answer):
    """https://platform.openai.com/docs/api-reference/completions/object; streams use the same object type."""

    prefix = "cmpl"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def _whole_part(self) -> JsonObject:
        return {"text": "".join(self.pieces)}

    def _opening_parts(self) -> list[JsonObject]:
        return []

    def _piece_parts(self) -> list[JsonObject]:
        return [{"text": piece} for piece in self.pieces]

    def _closing_part(self) -> JsonObject:
        return {"text": ""}


def _choice(part: JsonObject, finish_reason: str | None = None) -> JsonObject:
    return {"index": 0, **part, "logprobs": None, "finish_reason": finish_reason}


def _event(chunk: JsonObject) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def stream_response(gateway: DemoGateway, stream: EventStream) -> Response:
    """Return a response that sends the events one by one."""
    body = _paced(gateway.stats, stream, gateway.options)
    response = Response(body, headers=STREAM_HEADERS, content_type="text/event-stream")
    response.timeout = None
    return response


async def _paced(stats: GatewayStats, stream: EventStream, options: GatewayOptions) -> AsyncIterator[bytes]:
    """Yield the events with a pause between pieces, and count callers that disconnect early."""
    pauses = stream.pieces[1:]
    sent = 0
    stats.streams_open += 1
    try:
        for event in stream.events:
            await _break_off(options, sent)
            if sent in pauses:
                await asyncio.sleep(options.word_delay)  # even if 0, so that other tasks run
            yield event
            sent += 1
        await _break_off(options, sent)
    except (asyncio.CancelledError, GeneratorExit):
        stats.streams_closed_early += 1
        raise
    finally:
        stats.streams_open -= 1


async def _break_off(options: GatewayOptions, sent: int) -> None:
    if sent == options.cut_after:
        raise StreamCut
    if sent == options.stall_after:
        await asyncio.Event().wait()  # until the caller disconnects and the task is cancelled

"""An answer as JSON: whole, or as the events of a stream, for chat and for plain completions."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple
from uuid import uuid4

import msgspec

FINGERPRINT = "fp_b705f0c291"
DONE = b"data: [DONE]\n\n"

JsonObject = dict[str, object]


class EventStream(NamedTuple):
    """Encoded events, and the numbers of those that carry a piece of text."""

    events: Iterator[bytes]
    pieces: range


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(ABC):
    """What is answered, before it has a shape.

    Args:
        model: The model asked for.
        pieces: The text, cut.
        truncated: Whether `max_tokens` cut it short.
        prompt_tokens: Pieces of the question.
    """

    model: str
    pieces: list[str]
    truncated: bool
    prompt_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))  # epoch seconds
    suffix: str = field(default_factory=lambda: uuid4().hex)

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    @property
    def finish_reason(self) -> str:
        """Why the text ends."""
        return "length" if self.truncated else "stop"

    @property
    def usage(self) -> JsonObject:
        """OpenAI's token counts, a piece being a token."""
        completion = len(self.pieces)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    def whole(self) -> JsonObject:
        """The answer in one object."""
        choice = _choice(self._whole_part("".join(self.pieces)), self.finish_reason)
        return {**self._head(self.kind), "choices": [choice], "usage": self.usage}

    def stream(self, *, include_usage: bool) -> EventStream:
        """The answer as events, each encoded when its turn comes.

        Args:
            include_usage: OpenAI's `stream_options.include_usage`: `"usage": null` everywhere, then one
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
    def _whole_part(self, text: str) -> JsonObject: ...

    @abstractmethod
    def _opening_parts(self) -> list[JsonObject]: ...

    @abstractmethod
    def _piece_parts(self) -> list[JsonObject]: ...

    @abstractmethod
    def _closing_part(self) -> JsonObject: ...


class ChatAnswer(Answer):
    """https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def _whole_part(self, text: str) -> JsonObject:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _opening_parts(self) -> list[JsonObject]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    def _piece_parts(self) -> list[JsonObject]:
        return [{"delta": {"content": piece}} for piece in self.pieces]

    def _closing_part(self) -> JsonObject:
        return {"delta": {}}


class TextAnswer(Answer):
    """https://platform.openai.com/docs/api-reference/completions/object; a stream has the same kind."""

    prefix = "cmpl"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def _whole_part(self, text: str) -> JsonObject:
        return {"text": text}

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

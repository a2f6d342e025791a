"""Repairs for a stream sent instead of a whole response, and the other way round."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from proxy.errors import BadResponse, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import BOM
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.chat import open_choices
from proxy.wire.repairs.framing import read_payload, rewrite, split_events
from proxy.wire.repairs.repair import CLIENTS, Repair
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    TooManyItems,
    is_empty,
    open_list,
    open_object,
    read_value,
    to_json,
    write,
)
from proxy.wire.repairs.vendor_errors import EmbeddedError, read_openai_error

DONE: Final = b"data: [DONE]\n\n"
_STREAMING: Final = frozenset({Shape.CHAT, Shape.COMPLETION})
_TEXTS: Final = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
_OF_PARTS: Final = frozenset({"index", "function"})

ANSWER_TO_STREAM: Final = Repair(
    "answer_to_stream",
    "Converts a whole response, or lines of JSON, into a stream if the client asked for a stream.",
    clients=("RAGFlow, which reads it as an empty response", "Dify", "all that ask for a stream"),
    sets=CLIENTS,
    stages=("response",),
)
STREAM_TO_ANSWER: Final = Repair(
    "stream_to_answer",
    "Joins a stream into a whole response if the client did not ask for a stream.",
    clients=("all",),
    sets=CLIENTS,
    stages=("response",),
)
LABEL_ANSWER: Final = Repair(
    "label_answer",
    "Corrects the Content-Type of a stream or of JSON that the upstream labels as something else.",
    clients=("Open WebUI 0.12.4, which recognises a stream by it", "all others that do"),
    sets=CLIENTS,
    stages=("response", "stream"),
)


def is_chat(call: Call) -> bool:
    """Whether the response to a request can be a stream of chunks."""
    return call.shape in _STREAMING


# --- from a whole response to a stream


def answer_to_stream(response: bytes, call: Call) -> bytes | None:
    """Convert a whole response into chunks: the content, the finish_reason, and the usage if asked for.

    Returns:
        The stream; None if the body has no choices.
    """
    whole = open_object(response) or {}
    try:
        choices = open_choices(whole)
        deltas = [{**_delta(choice, call), "finish_reason": NULL} for choice in choices]
    except TooManyItems:
        return None
    if not choices:
        return None
    head = {name: value for name, value in whole.items() if name not in {"choices", "usage", "object"}}
    head["object"] = write("chat.completion.chunk" if call.shape == Shape.CHAT else "text_completion")
    chunks = [
        {**head, "choices": write(deltas)},
        {**head, "choices": write([_end(choice, call) for choice in choices])},
    ]
    if call.usage_requested and open_object(whole.get("usage")) is not None:
        chunks.append({**head, "choices": write([]), "usage": whole["usage"]})
    # Line breaks between members would split the data of an event.
    written = [msgspec.json.format(to_json(chunk), indent=-1) for chunk in chunks]
    return rewrite(b"", written) + DONE


def _delta(choice: Members, call: Call) -> Members:
    if call.shape != Shape.CHAT:
        return choice
    delta = open_object(choice.get("message")) or {}
    calls = open_list(delta.get("tool_calls"))
    if calls is not None:
        opened = [open_object(each) for each in calls]
        indexed = [
            written if each is None else {**each, "index": place}
            for place, (written, each) in enumerate(zip(calls, opened, strict=True))
        ]
        delta = {**delta, "tool_calls": write(indexed)}
    return {"delta": write(delta), **{name: value for name, value in choice.items() if name != "message"}}


def _end(choice: Members, call: Call) -> Members:
    reason = choice.get("finish_reason")
    content = {"delta": write({})} if call.shape == Shape.CHAT else {"text": write("")}
    return {
        "index": choice.get("index", write(0)),
        **content,
        "finish_reason": write("stop") if reason is None or is_empty(reason) else reason,
    }


def lines_to_stream(body: bytes) -> bytes | None:
    """Convert lines of JSON, each a chunk, into events; None if the body is something else.

    A single line is a whole response, which most gateways write without line breaks.
    """
    lines = [line for line in body.removeprefix(BOM).splitlines() if line.strip()]
    if len(lines) < 2 or not all(
        "choices" in (open_object(line) or {}) or line.strip() == b"[DONE]" for line in lines
    ):
        return None
    events = b"".join(b"data: " + line.strip() + b"\n\n" for line in lines)
    return events if lines[-1].strip() == b"[DONE]" else events + DONE


# --- from a stream to a whole response


@dataclass
class _JoinedToolCall:
    """A tool call that is joined from its parts."""

    members: dict[str, object] = field(default_factory=dict)
    function: dict[str, object] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    def add(self, part: dict[str, object]) -> None:
        """Append a part."""
        self.members.update({name: value for name, value in part.items() if value and name not in _OF_PARTS})
        function = part.get("function")
        for name, value in function.items() if isinstance(function, dict) else ():
            if name == "arguments":
                self.arguments.append(value if isinstance(value, str) else "")
            elif value:
                self.function[name] = value

    def close(self) -> dict[str, object]:
        """Return the whole call."""
        return {**self.members, "function": {**self.function, "arguments": "".join(self.arguments)}}


@dataclass
class _JoinedChoice:
    """A choice that is joined from its parts. Strings are joined at the end, since each join copies them."""

    members: dict[str, object] = field(default_factory=lambda: {"finish_reason": None})
    message: dict[str, object] | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, _JoinedToolCall] = field(default_factory=dict)

    def add(self, part: dict[str, object]) -> None:
        """Append the choice of a chunk."""
        for name, value in part.items():
            known = self.members.get(name)
            if name == "delta" and isinstance(value, dict):
                self._add_delta(value)
            elif name == "text" and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            elif name == "logprobs" and isinstance(value, dict) and isinstance(known, dict):
                _extend(known, value)
            elif value is not None:
                self.members[name] = value

    def _add_delta(self, delta: dict[str, object]) -> None:
        self.message = self.message or {"role": "assistant"}
        for name, value in delta.items():
            if name in _TEXTS and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            elif name == "tool_calls" and isinstance(value, list):
                for place, part in enumerate(value):
                    if isinstance(part, dict):
                        index = part.get("index")
                        key = index if isinstance(index, int) else place
                        self.calls.setdefault(key, _JoinedToolCall()).add(part)
            elif value is not None:
                self.message[name] = value

    def close(self) -> dict[str, object]:
        """Return the whole choice."""
        texts = {name: "".join(pieces) for name, pieces in self.texts.items()}
        closed = dict(self.members)
        if self.message is None:
            return {**closed, **texts}
        calls = [call.close() for _, call in sorted(self.calls.items())]
        message = {**self.message, "content": None if calls else "", **texts}
        if calls:
            message["tool_calls"] = calls
        closed["finish_reason"] = closed["finish_reason"] or ("tool_calls" if calls else "stop")
        return {**closed, "message": message}


class AnswerJoiner:
    """Joins the chunks of a stream into a whole response, part by part."""

    def __init__(self, call: Call) -> None:
        self._shape = call.shape
        self._whole: dict[str, object] = {}
        self._choices: dict[int, _JoinedChoice] = {}
        self._marked = False

    def add(self, whole_events: bytes) -> EmbeddedError | None:
        """Add events; return the error that they contain, if there is one."""
        self._marked = self._marked or DONE.strip() in whole_events
        for chunk in _chunks(whole_events):
            if isinstance(chunk, EmbeddedError):
                return chunk
            self._whole.update({name: value for name, value in chunk.items() if value is not None})
            listed = chunk.get("choices")
            for part in listed if isinstance(listed, list) else ():
                if isinstance(part, dict):
                    index = part.get("index")
                    key = index if isinstance(index, int) else 0
                    self._choices.setdefault(key, _JoinedChoice()).add(part)
        return None

    def close(self) -> bytes:
        """Return the response.

        Raises:
            InvalidResponse: The stream contains no chunk.
            BadResponse: The stream was cut off.
        """
        choices = self._choices
        if not choices:
            raise InvalidResponse("an event stream without an answer")
        if not self._marked and not all(each.members["finish_reason"] for each in choices.values()):
            raise BadResponse(reason="an event stream that ended early, where the caller wanted none")
        self._whole["object"] = "chat.completion" if self._shape == Shape.CHAT else "text_completion"
        closed = [{**choice.close(), "index": index} for index, choice in sorted(choices.items())]
        whole = {**self._whole, "choices": closed}
        try:
            return to_json(whole)
        except UnicodeEncodeError:  # A character was split between two chunks; escaped, its halves join.
            return json.dumps(whole).encode()


def _chunks(events: bytes) -> Iterator[dict[str, object] | EmbeddedError]:
    for block in split_events(events):
        payload = read_payload(block)
        error = read_openai_error(open_object(payload) or {})
        chunk = _read_chunk(payload)
        if error is not None:
            yield error
            return
        if isinstance(chunk, dict):
            yield chunk


def _read_chunk(payload: bytes | None) -> object:
    """Read a chunk, also with what only Python accepts: NaN as null, and half of an escaped character."""
    chunk = read_value(payload)
    if chunk is None and payload is not None:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(payload, parse_constant=lambda _: None)
    return chunk


def _extend(whole: dict[str, object], part: dict[str, object]) -> None:
    """Append the lists of a part, such as logprobs, to the lists of the same name."""
    for name, value in part.items():
        known = whole.get(name)
        if isinstance(value, list) and isinstance(known, list):
            known.extend(value)
        elif value is not None:
            whole[name] = value


REPAIRS: Final = (ANSWER_TO_STREAM, STREAM_TO_ANSWER, LABEL_ANSWER)

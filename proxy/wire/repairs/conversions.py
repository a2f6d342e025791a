"""Repairs for a stream sent instead of a whole response, and the other way round."""

from typing import Final

import msgspec

from proxy.errors import BadResponse, InvalidResponse
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import BOM, END_MARKER
from proxy.wire.repairs.call import Call
from proxy.wire.repairs.chat import open_choices
from proxy.wire.repairs.deltas import BUILT_MAX, ValueJoiner, Values
from proxy.wire.repairs.framing import has_too_many_lines, read_payload, rewrite, split_events
from proxy.wire.repairs.lenient_json import mark_halves, restore_halves, without_nan
from proxy.wire.repairs.repair import CLIENTS, Repair
from proxy.wire.repairs.responses import is_lenient
from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    TooManyItems,
    first_byte,
    is_empty,
    is_json,
    is_null,
    is_text,
    open_list,
    open_object,
    to_json,
    write,
)
from proxy.wire.repairs.tool_calls import ToolCalls, read_index
from proxy.wire.repairs.vendor_errors import EmbeddedError, read_openai_error

_LINES_MAX: Final = 200_000
"""A body of more lines is not taken for a stream of JSON lines."""
_LENIENT_BYTES_MAX: Final = 1 << 20
"""A longer event is read only if it is strict JSON, because each string in it takes a step."""
DONE: Final = b"data: [DONE]\n\n"
_STREAMING: Final = frozenset({Shape.CHAT, Shape.COMPLETION})
_CHOICES_MAX: Final = 1_000
"""A stream of more choices is not joined."""
_CONTINUED: Final = frozenset({"logprobs", "text", "token_ids"})
"""The members of a choice, beside its delta, that continue from chunk to chunk. vLLM has `token_ids`."""
_ONLY_IN_STREAMS: Final = frozenset({"choices", "obfuscation", "object"})
_CALLS: Final = ("tool_calls", "function_call")
"""The members that call functions. Each has a finish_reason of the same name."""
_WITHOUT_CONTENT: Final = (*_CALLS, "refusal", "audio")
"""A message with one of these has no content."""

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
    try:
        whole = open_object(response) or {}
        choices = _with_indexes(open_choices(whole))
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


def _with_indexes(choices: list[Members]) -> list[Members]:
    """Give each choice without an index its position."""
    return [
        choice if read_index(choice) is not None else {**choice, "index": write(place)}
        for place, choice in enumerate(choices)
    ]


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
        "index": choice["index"],
        **content,
        "finish_reason": write("stop") if reason is None or is_empty(reason) else reason,
    }


def lines_to_stream(body: bytes) -> bytes | None:
    """Convert lines of JSON, each a chunk, into events; None if the body is something else.

    A single line is a whole response, which most gateways write without line breaks.
    """
    if body.count(b"\n") + body.count(b"\r") > _LINES_MAX:
        return None
    lines = [line for line in body.removeprefix(BOM).splitlines() if line.strip()]
    if len(lines) < 2 or not all(map(_is_line_of_stream, lines)):
        return None
    events = b"".join(b"data: " + line.strip() + b"\n\n" for line in lines)
    return events if lines[-1].strip() == b"[DONE]" else events + DONE


def _is_line_of_stream(line: bytes) -> bool:
    try:
        return "choices" in (open_object(line) or {}) or line.strip() == b"[DONE]"
    except TooManyItems:
        return False


# --- from a stream to a whole response


class _JoinedChoice(msgspec.Struct):
    """A choice that is joined from its parts. Nothing is joined before the end, since each join copies."""

    _joiner: ValueJoiner
    members: Members = msgspec.field(default_factory=lambda: {"finish_reason": NULL})
    _continued: Values = msgspec.field(default_factory=dict)
    """The values of members that continue from chunk to chunk, such as `logprobs`."""
    _message: Values | None = None
    """The values of the members of all deltas; None if no chunk had a delta."""
    _found: ToolCalls = msgspec.field(default_factory=ToolCalls)
    _calls: list[tuple[int, Values]] = msgspec.field(default_factory=list)
    """The index of each tool call, and the values of its members."""
    _latest: dict[int, Values] = msgspec.field(default_factory=dict)
    """The values of the latest tool call of each index."""

    def add(self, part: Members) -> None:
        """Append the choice of a chunk."""
        for name, value in part.items():
            delta = open_object(value) if name == "delta" else None
            if delta is not None:
                self._add_delta(delta)
            elif name in _CONTINUED:
                self._joiner.gather(self._continued, {name: value})
            else:
                _update(self.members, name, value, self._joiner)

    def _add_delta(self, delta: Members) -> None:
        self._message = {} if self._message is None else self._message
        calls = delta.pop("tool_calls", None)
        self._joiner.gather(self._message, delta)
        parts = open_list(calls) if open_object(calls) is None else [calls]
        for part in filter(None, map(open_object, parts or ())):
            self._add_call(part)

    def _add_call(self, part: Members) -> None:
        call, begins = self._found.find(part)
        if begins:
            self._joiner.count()
            self._latest[call.index] = {}
            self._calls.append((call.index, self._latest[call.index]))
        part.pop("index", None)
        self._joiner.gather(self._latest[call.index], part)

    def close(self) -> Members:
        """Return the whole choice."""
        closed = {**self.members, **self._joiner.join_members(self._continued)}
        if self._message is None:
            return closed
        message = self._joiner.join_members({**self._message, **self._flatten_content(self._message)})
        if self._calls:
            ordered = sorted(self._calls, key=lambda each: each[0])
            message["tool_calls"] = write([self._joiner.join_members(values) for _, values in ordered])
        if is_empty(closed["finish_reason"]):
            ends = (name for name in _CALLS if not is_empty(message.get(name)))
            closed["finish_reason"] = write(next(ends, "stop"))
        if is_null(message.get("content")):
            has_other = any(not is_empty(message.get(name)) for name in _WITHOUT_CONTENT)
            message["content"] = NULL if has_other else write("")
        role = message["role"] if is_text(message.get("role")) else write("assistant")
        return {**closed, "message": write({**message, "role": role})}

    def _flatten_content(self, message: Values) -> Values:
        """Return the content as texts if it is a text in some chunks and a list in others.

        Mistral's models stream their thinking as lists, and then the rest as texts. Clients expect one text.
        If a list holds something else, such as an image, the content becomes one list.
        """
        content = [each for each in message.get("content", ()) if not is_empty(each)]
        if len({first_byte(each) == b'"' for each in content}) < 2:
            return {}
        flat: Values = {}
        if not all(self._joiner.gather_texts(flat, each) for each in content):
            return {"content": [_as_list(each) for each in content]}
        own = {
            name for name, values in message.items() if name != "content" and not all(map(is_empty, values))
        }
        return {name: texts for name, texts in flat.items() if name not in own}


def _as_list(content: bytes) -> bytes:
    """Write content as a list of parts."""
    kind = first_byte(content)
    if kind == b"[":
        return content
    return b'[{"type":"text","text":%b}]' % content if kind == b'"' else b"[%b]" % content


class AnswerJoiner:
    """Joins the chunks of a stream into a whole response, part by part. All values keep their spelling.

    Args:
        call: What the caller asked for.
        limit: How many objects may be built.
    """

    def __init__(self, call: Call, limit: int = BUILT_MAX) -> None:
        self._shape = call.shape
        self._whole: Members = {}
        self._joiner = ValueJoiner(limit)
        self._choices: dict[int, _JoinedChoice] = {}
        self._marked = False

    def add(self, whole_events: bytes) -> EmbeddedError | None:
        """Add events; return the error that they contain, if there is one.

        Raises:
            InvalidResponse: An event cannot be read, or the events have too many choices, tool calls or
                members.
        """
        for block in split_events(whole_events):
            try:
                chunk = self._read_chunk(block)
                error = read_openai_error(chunk)
                if error is not None:
                    return error
                self._add_chunk(chunk)
            except TooManyItems as too_many:
                raise InvalidResponse("events with too many choices, tool calls or members") from too_many
        return None

    def _read_chunk(self, block: bytes) -> Members:
        """Return the members of a chunk; none if the event has no data, or only an end marker or a ping.

        What follows the end of every choice, such as the beginning of a cut end marker, may be unreadable.
        """
        payload = read_payload(block)
        if payload is None:
            if has_too_many_lines(block) and not self._ended:
                raise InvalidResponse("an event with too many lines")
            return {}
        self._marked = self._marked or payload == END_MARKER
        chunk = _open_chunk(payload)
        if chunk is None and not self._ended and not _is_ping(payload):
            raise InvalidResponse("an event that is not a JSON object")
        return chunk or {}

    @property
    def _ended(self) -> bool:
        """Whether an end marker or a finish_reason has ended every choice."""
        choices = self._choices.values()
        return self._marked or (
            bool(choices) and not any(is_empty(each.members["finish_reason"]) for each in choices)
        )

    def _add_chunk(self, chunk: Members) -> None:
        for name, value in chunk.items():
            if name not in _ONLY_IN_STREAMS and not (name == "usage" and is_null(value)):
                _update(self._whole, name, value, self._joiner)
        for part in _with_indexes(_read_choices(chunk)):
            self._find_choice(read_index(part) or 0).add(part)

    def _find_choice(self, index: int) -> _JoinedChoice:
        if index not in self._choices:
            if len(self._choices) >= _CHOICES_MAX:
                raise TooManyItems
            self._choices[index] = _JoinedChoice(self._joiner)
        return self._choices[index]

    def close(self) -> bytes:
        """Return the response.

        Raises:
            InvalidResponse: The stream contains no chunk.
            BadResponse: The stream was cut off.
            TooManyItems: Its values hold too much to be joined.
        """
        choices = self._choices
        if not choices:
            raise InvalidResponse("an event stream without an answer")
        if not self._ended:
            raise BadResponse(reason="an event stream that ended early, where the caller wanted none")
        self._whole["object"] = write("chat.completion" if self._shape == Shape.CHAT else "text_completion")
        usages = [choice.members.get("usage", NULL) for choice in choices.values()]
        written = [usage for usage in usages if not is_empty(usage)]
        if written and is_empty(
            self._whole.get("usage")
        ):  # Moonshot writes it into the last part of a choice.
            self._whole["usage"] = written[-1]
        closed = [{**choice.close(), "index": write(index)} for index, choice in sorted(choices.items())]
        return restore_halves(to_json({**self._whole, "choices": write(closed)}))


def _open_chunk(payload: bytes) -> Members | None:
    """Return the members of a chunk, also of one that only Python reads; None if it is not an object."""
    chunk = open_object(payload)
    if chunk is None and len(payload) <= _LENIENT_BYTES_MAX and is_lenient(payload):
        chunk = open_object(mark_halves(without_nan(payload)))
    return chunk


def _is_ping(payload: bytes) -> bool:
    """Whether an event holds no part of a response: nothing, an end marker, or JSON that holds no object."""
    written = payload.strip()
    return written in {b"", b"[]", END_MARKER} or (written[:1] not in b"{[" and is_json(written))


def _read_choices(chunk: Members) -> list[Members]:
    written = chunk.get("choices")
    if is_empty(written):
        return []
    items = open_list(written) or ()
    choices = [choice for item in items if (choice := open_object(item)) is not None]
    if not choices or len(choices) < len(items):
        raise InvalidResponse("choices that are not objects")
    return choices


def _update(members: Members, name: str, value: msgspec.Raw, joiner: ValueJoiner) -> None:
    """Replace a member, unless the new value is empty."""
    if name not in members:
        joiner.count()
    if name not in members or not is_empty(value):
        members[name] = value


REPAIRS: Final = (ANSWER_TO_STREAM, STREAM_TO_ANSWER, LABEL_ANSWER)

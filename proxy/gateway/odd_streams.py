"""What odd gateways do to the events of a stream: each takes them as they should be.

Seen at Azure, vLLM, one-api, Spark and others, and in reports of clients that stumbled over it.
"""

from collections.abc import Callable, Iterator
from itertools import count

import msgspec

from proxy.gateway.answers import DONE, JsonObject

Change = Callable[[Iterator[bytes]], Iterator[bytes]]

USAGE: JsonObject = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def azure_first_chunk(events: Iterator[bytes]) -> Iterator[bytes]:
    """Begin with a chunk that judges the prompt and has no choices."""
    judged = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    first = {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [],
        "prompt_filter_results": [judged],
    }
    yield write_event(first)
    yield from events


def usage_everywhere(events: Iterator[bytes]) -> Iterator[bytes]:
    """Tell usage on every chunk."""
    yield from changed(events, lambda chunk: {**chunk, "usage": USAGE})


def usage_unasked(events: Iterator[bytes]) -> Iterator[bytes]:
    """Tell usage in a chunk of its own, whether it was asked for or not."""
    last: JsonObject = {}
    for event in events:
        if event == DONE and last.get("choices"):
            yield write_event({**last, "choices": [], "usage": USAGE})
        last = read_event(event) or last
        yield event


def null_delta(events: Iterator[bytes]) -> Iterator[bytes]:
    """Begin with a delta that is null."""
    first = next(events)
    yield from changed(iter([first]), lambda chunk: with_choice(chunk, delta=None))
    yield from events


def finish_with_content(events: Iterator[bytes]) -> Iterator[bytes]:
    """Say the last words and the reason to end in one chunk."""
    held = next(events)
    for event in events:
        chunk, before = read_event(event), read_event(held)
        reason = choice_of(chunk).get("finish_reason")
        if before is not None and reason is not None:
            held = write_event(with_choice(before, finish_reason=reason))
            continue
        yield held
        held = event
    yield held


def no_end_marker(events: Iterator[bytes]) -> Iterator[bytes]:
    """Leave `[DONE]` out."""
    yield from (event for event in events if event != DONE)


def crlf(events: Iterator[bytes]) -> Iterator[bytes]:
    """End lines with CRLF."""
    yield from (event.replace(b"\n", b"\r\n") for event in events)


def event_lines(events: Iterator[bytes]) -> Iterator[bytes]:
    """Number the events and give them a type."""
    yield from (b"event: message\nid: %d\n%b" % pair for pair in zip(count(), events, strict=False))


def keep_alives(events: Iterator[bytes]) -> Iterator[bytes]:
    """Say between the events that there is still somebody."""
    for event in events:
        yield b": keep-alive\n\n"
        yield event


def error_midway(events: Iterator[bytes]) -> Iterator[bytes]:
    """Fail after some words, with an error event."""
    yield from without_opening(events, pieces=2)
    error = {"message": "the model has gone away", "type": "server_error", "param": None, "code": None}
    yield write_event({"error": error})


def vendor_error_midway(events: Iterator[bytes]) -> Iterator[bytes]:
    """Fail after some words, in the flat shape that Spark has."""
    yield from without_opening(events, pieces=2)
    yield write_event({"code": 10013, "message": "audit (sid: cha000)", "sid": "cha000"})


def no_opening(events: Iterator[bytes]) -> Iterator[bytes]:
    """Begin with words, without the chunk that names the role."""
    yield from without_opening(events)


# --- chunks


def without_opening(events: Iterator[bytes], pieces: int | None = None) -> Iterator[bytes]:
    """The events that carry text and what follows; so many alone where it is said."""
    left = pieces
    for event in events:
        chunk = read_event(event)
        if left == 0:
            return
        delta = choice_of(chunk).get("delta")
        if isinstance(delta, dict) and delta.get("role"):
            continue
        left = None if left is None else left - 1
        yield event


def changed(events: Iterator[bytes], change: Callable[[JsonObject], JsonObject]) -> Iterator[bytes]:
    """Every chunk changed; the end marker stays."""
    for event in events:
        chunk = read_event(event)
        yield event if chunk is None else write_event(change(chunk))


def with_choice(chunk: JsonObject, **fields: object) -> JsonObject:
    """A chunk whose only choice has other fields; one without a choice stays."""
    choice = choice_of(chunk)
    return {**chunk, "choices": [{**choice, **fields}]} if choice else chunk


def choice_of(chunk: JsonObject | None) -> JsonObject:
    """The only choice; nothing where there is none."""
    choices = (chunk or {}).get("choices")
    return choices[0] if isinstance(choices, list) and choices else {}


def read_event(event: bytes) -> JsonObject | None:
    """The chunk of an event; None for the end marker."""
    if event == DONE:
        return None
    read: JsonObject = msgspec.json.decode(event.removeprefix(b"data: "))
    return read


def write_event(chunk: JsonObject) -> bytes:
    """A chunk as an event."""
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

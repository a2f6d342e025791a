"""The demonstration gateway with peculiarities of real gateways, one per model name: `odd:NAME`.

They were seen at Azure, vLLM, one-api, Spark and others, or in bug reports of clients that could not cope.
`odd:status_N` answers with status N, and `odd:flaky` fails once with 500.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Final

import msgspec
from quart import Quart, Response, current_app, g, request
from quart.wrappers.response import IterableBody

from proxy.gateway import GatewayOptions, create_gateway
from proxy.gateway.answers import DONE, JsonObject, StreamCut
from proxy.gateway.http import GatewayError

PREFIX: Final = "odd:"
STATUS: Final = "status_"
FLAKY: Final = "flaky"
ODD_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"})
USAGE: Final[JsonObject] = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

Events = AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """One oddity; without arguments, none.

    Args:
        events: Changes the events of a stream.
        whole: Changes a whole answer.
        instead: Body and content type of a 200 that replaces the answer.
    """

    events: Callable[[AsyncIterator[bytes]], Events] | None = None
    whole: Callable[[JsonObject], JsonObject] | None = None
    instead: tuple[bytes, str] | None = None


class _Asked(msgspec.Struct):
    model: str = ""


def create_odd_gateway(options: GatewayOptions) -> Quart:
    """Build a gateway; `app.extensions["oddities_played"]` counts the requests for each oddity."""
    app = create_gateway(options)
    app.extensions["oddities_played"] = Counter()
    app.before_request(_choose_oddity)
    app.after_request(_apply_oddity)
    return app


def is_known(name: str) -> bool:
    """Return whether an oddity has this name."""
    status = name.removeprefix(STATUS)
    valid = name.startswith(STATUS) and status.isascii() and status.isdigit() and 400 <= int(status) <= 599
    return valid or name in ODDITIES


async def _choose_oddity() -> None:
    """Look up the oddity that the model names.

    Raises:
        GatewayError: The name is unknown (404), or means an error.
    """
    if request.path not in ODD_PATHS:
        return
    try:
        model = msgspec.json.decode(await request.get_data(), type=_Asked).model
    except (ValueError, RecursionError):
        return  # the view rejects it
    if not model.startswith(PREFIX):
        return
    name = model.removeprefix(PREFIX)
    if not is_known(name):
        raise GatewayError(404, f"no oddity is called '{name}'", param="model", code="model_not_found")
    played: Counter[str] = current_app.extensions["oddities_played"]
    played[name] += 1
    if name.startswith(STATUS):
        status = int(name.removeprefix(STATUS))
        raise GatewayError(status, f"told to answer {status}")
    if name == FLAKY and played[name] == 1:
        raise GatewayError(500, "told to fail the first time")
    g.oddity = ODDITIES[name]


async def _apply_oddity(response: Response) -> Response:
    """Change a response as the oddity of its request demands."""
    oddity = g.get("oddity")
    if oddity is None or response.status_code != 200:
        return response
    if oddity.instead is not None:
        body, content_type = oddity.instead
        return Response(body, content_type=content_type)
    if response.mimetype == "text/event-stream":
        if oddity.events is not None:
            assert isinstance(response.response, IterableBody)
            response.response = IterableBody(_changed_stream(oddity.events, response.response))
    elif oddity.whole is not None:
        answer = msgspec.json.decode(await response.get_data(as_text=False), type=dict[str, object])
        response.set_data(msgspec.json.encode(oddity.whole(answer)))
    return response


async def _changed_stream(change: Callable[[AsyncIterator[bytes]], Events], body: IterableBody) -> Events:
    async with body as events, aclosing(change(aiter(events))) as changed:
        async for event in changed:
            yield event


# --- streams


async def azure_first_chunk(events: AsyncIterator[bytes]) -> Events:
    """Begin with a chunk that has the prompt's filter results and no choices."""
    results = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    first = {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [],
        "prompt_filter_results": [results],
    }
    yield write_event(first)
    async for event in events:
        yield event


async def usage_everywhere(events: AsyncIterator[bytes]) -> Events:
    """Put usage into every chunk."""
    async for event in events:
        chunk = read_event(event)
        yield event if chunk is None else write_event({**chunk, "usage": USAGE})


async def usage_unasked(events: AsyncIterator[bytes]) -> Events:
    """Send usage in an extra chunk, even if the caller did not ask for it."""
    last: JsonObject = {}
    async for event in events:
        if event == DONE and last.get("choices"):
            yield write_event({**last, "choices": [], "usage": USAGE})
        last = read_event(event) or last
        yield event


async def null_delta(events: AsyncIterator[bytes]) -> Events:
    """Begin with a delta that is null."""
    first = read_event(await anext(events))
    assert first is not None
    yield write_event(with_choice(first, delta=None))
    async for event in events:
        yield event


async def finish_with_content(events: AsyncIterator[bytes]) -> Events:
    """Send the last text and `finish_reason` in one chunk."""
    held = await anext(events)
    async for event in events:
        chunk, before = read_event(event), read_event(held)
        reason = choice_of(chunk).get("finish_reason")
        if before is not None and reason is not None:
            held = write_event(with_choice(before, finish_reason=reason))
            continue
        yield held
        held = event
    yield held


async def no_end_marker(events: AsyncIterator[bytes]) -> Events:
    """Omit `[DONE]`."""
    async for event in events:
        if event != DONE:
            yield event


async def crlf(events: AsyncIterator[bytes]) -> Events:
    """End lines with CRLF."""
    async for event in events:
        yield event.replace(b"\n", b"\r\n")


async def event_lines(events: AsyncIterator[bytes]) -> Events:
    """Add `event:` and `id:` lines."""
    numbers = count()
    async for event in events:
        yield b"event: message\nid: %d\n%b" % (next(numbers), event)


async def keep_alives(events: AsyncIterator[bytes]) -> Events:
    """Send a comment before each event."""
    async for event in events:
        yield b": keep-alive\n\n"
        yield event


async def error_midway(events: AsyncIterator[bytes]) -> Events:
    """Send an error event after two words."""
    async for event in words(events, most=2):
        yield event
    error = {"message": "the model has gone away", "type": "server_error", "param": None, "code": None}
    yield write_event({"error": error})


async def vendor_error_midway(events: AsyncIterator[bytes]) -> Events:
    """Send an error after two words, in Spark's flat format."""
    async for event in words(events, most=2):
        yield event
    yield write_event({"code": 10013, "message": "audit (sid: cha000)", "sid": "cha000"})


async def cut(events: AsyncIterator[bytes]) -> Events:
    """Close the connection after two words."""
    async for event in words(events, most=2):
        yield event
    raise StreamCut


async def held(events: AsyncIterator[bytes]) -> Events:
    """Send two words, then nothing until the caller disconnects."""
    sent = 0
    async for event in words(events):
        yield event
        sent += 1
        if sent == 2:
            await asyncio.Event().wait()


async def words(events: AsyncIterator[bytes], most: int | None = None) -> Events:
    """Yield the events without the first, which only names the role; at most so many, skipping the rest."""
    numbers = count()
    async for event in events:
        delta = choice_of(read_event(event)).get("delta")
        if isinstance(delta, dict) and delta.get("role"):
            continue
        if most is None or next(numbers) < most:
            yield event


# --- whole answers


def no_usage(answer: JsonObject) -> JsonObject:
    """Omit usage."""
    return {key: value for key, value in answer.items() if key != "usage"}


def null_content(answer: JsonObject) -> JsonObject:
    """Replace the content by null."""
    message = choice_of(answer).get("message")
    return with_choice(answer, message={**message, "content": None}) if isinstance(message, dict) else answer


def reverse_data(answer: JsonObject) -> JsonObject:
    """Send embeddings in reverse order."""
    data = answer.get("data")
    return {**answer, "data": data[::-1]} if isinstance(data, list) else answer


def no_index(answer: JsonObject) -> JsonObject:
    """Omit the index of embeddings."""
    data = answer.get("data")
    if not isinstance(data, list):
        return answer
    return {**answer, "data": [{key: item[key] for key in item if key != "index"} for item in data]}


# --- chunks


def with_choice(chunk: JsonObject, **fields: object) -> JsonObject:
    """Replace fields of the only choice; a chunk without choices stays as it is."""
    choice = choice_of(chunk)
    return {**chunk, "choices": [{**choice, **fields}]} if choice else chunk


def choice_of(chunk: JsonObject | None) -> JsonObject:
    """Return the only choice, or an empty object."""
    choices = (chunk or {}).get("choices")
    return choices[0] if isinstance(choices, list) and choices else {}


def read_event(event: bytes) -> JsonObject | None:
    """Return the chunk of an event, or None for the end marker."""
    if event == DONE:
        return None
    read: JsonObject = msgspec.json.decode(event.removeprefix(b"data: "))
    return read


def write_event(chunk: JsonObject) -> bytes:
    """Encode a chunk as an event."""
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


_ERROR: Final = (
    b'{"error":{"message":"told to fail inside a 200","type":"server_error","param":null,"code":503}}'
)
_JSON: Final = "application/json"

ODDITIES: Final[Mapping[str, Oddity]] = MappingProxyType(
    {
        "azure_first_chunk": Oddity(events=azure_first_chunk),
        "usage_everywhere": Oddity(events=usage_everywhere),
        "usage_unasked": Oddity(events=usage_unasked),
        "null_delta": Oddity(events=null_delta),
        "finish_with_content": Oddity(events=finish_with_content),
        "no_end_marker": Oddity(events=no_end_marker),
        "crlf": Oddity(events=crlf),
        "event_lines": Oddity(events=event_lines),
        "keep_alives": Oddity(events=keep_alives),
        "error_midway": Oddity(events=error_midway),
        "vendor_error_midway": Oddity(events=vendor_error_midway),
        "cut": Oddity(events=cut),
        "held": Oddity(events=held),
        "no_usage": Oddity(whole=no_usage),
        "null_content": Oddity(whole=null_content),
        "reversed": Oddity(whole=reverse_data),
        "no_index": Oddity(whole=no_index),
        "error_in_200": Oddity(instead=(_ERROR, _JSON)),
        "html_in_200": Oddity(instead=(b"<html>log in</html>", "text/html")),
        "empty_200": Oddity(instead=(b"", _JSON)),
        FLAKY: Oddity(),
    }
)

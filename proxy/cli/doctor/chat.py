"""Send chats, whole and streamed, and judge the answers."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from proxy.cli.doctor.api import Api, CheckFailed, ReadOutcome, TimedResponse, error_in, first_object
from proxy.cli.doctor.arrivals import Timing, buffering_cause
from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.models import unusable_response
from proxy.wire.endpoints import CHAT_COMPLETIONS
from proxy.wire.event_stream import END_MARKER, EVENT_END, begins_like_events
from proxy.wire.headers import content_coding

PATH: Final = "/chat/completions"
RAGFLOW_SECONDS: Final = 10.0
"""RAGFlow's default time limit for each check of a model, the fetch of a token included."""
RAGFLOW_PROMPT: Final = "Hi"
WHOLE_PROMPT: Final = "Hello! How are you doing!"
"""The question that RAGFlow before 0.26 asks."""
LONG_PROMPT: Final = "Count from one to twenty in words: one, two, three and so on."
"""Its answer has enough events to judge their arrival times, whether a model follows it or repeats it."""
TEMPERATURE: Final = 0.9
_WHATEVER_THE_MODEL: Final = frozenset({"path_unknown", "key_rejected", "token_rejected", "answered_html"})
STREAM_SECONDS: Final = 4.0
"""A stream with text is read for this long at most, and not to its end: models may think for minutes."""


def _body(model: str, prompt: object, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


async def check_first_piece(api: Api, model: str, prompt: object = RAGFLOW_PROMPT) -> Finding:
    """Check a chat as RAGFlow does: stream, accept the first piece of text, and disconnect."""
    body = _body(model, prompt, stream=True, temperature=TEMPERATURE)
    try:
        response = await api.ask(
            PATH, body, enough=_TextSeeker().has_text, endpoint=CHAT_COMPLETIONS, model=model
        )
    except CheckFailed as error:
        return error.finding
    fault = _fault_of(api, response, model)
    if fault is not None:
        return fault
    events = response.events()
    failed = next((event for _, event in events if error_in(_parsed(event))), None)
    if failed is not None:
        return api.found("stream_error", error_in(_parsed(failed)))
    if not any(_text(_parsed(event)) for _, event in events) and response.json() is None:
        return api.found("stream_empty") if response.end is ReadOutcome.WHOLE else _cut(api, response)
    if response.seconds > RAGFLOW_SECONDS:
        return api.found("slow_for_ragflow", seconds=_rounded(response.seconds))
    return api.found("first_piece", seconds=_rounded(response.seconds), model=model)


async def check_path(api: Api) -> Finding:
    """Check without a model whether there is a chat at all."""
    try:
        response = await api.ask(PATH, _body("model", RAGFLOW_PROMPT), endpoint=CHAT_COMPLETIONS)
    except CheckFailed as error:
        return error.finding
    fault = _fault_of(api, response, "model")
    return fault if fault is not None and fault.id in _WHATEVER_THE_MODEL else api.found("no_chat_model")


async def check_whole(api: Api, model: str) -> list[Finding]:
    """Check a chat without streaming."""
    try:
        response = await api.ask(
            PATH, _body(model, WHOLE_PROMPT, temperature=TEMPERATURE), endpoint=CHAT_COMPLETIONS, model=model
        )
    except CheckFailed as error:
        return [error.finding]
    fault = _fault_of(api, response, model) or unusable_response(api, response)
    if fault is not None:
        return [fault]
    if response.end is not ReadOutcome.WHOLE:
        return [_cut(api, response)]
    parsed = response.json_object()
    message = first_object(parsed, "choices").get("message")
    if not isinstance(message, dict) or not message.get("content"):
        return [api.found("answer_empty")]
    found = [api.found("chat_works", seconds=_rounded(response.seconds), model=model)]
    if not isinstance(parsed.get("usage"), dict):
        found.append(api.found("usage_missing"))
    return found


async def check_stream(api: Api, model: str, *, for_clients: bool) -> list[Finding]:
    """Check a streamed chat: its shape, its end, and when its events arrive.

    Args:
        for_clients: Whether to report what RAGFlow cannot read. Behind our repairs that is not a fault.
    """
    body = _body(model, LONG_PROMPT, stream=True)
    clock, seeker = asyncio.get_running_loop().time, _TextSeeker()
    began = clock()
    try:
        response = await api.ask(
            PATH,
            body,
            enough=lambda seen: clock() > began + STREAM_SECONDS and seeker.has_text(seen),
            endpoint=CHAT_COMPLETIONS,
            model=model,
        )
    except CheckFailed as error:
        return [error.finding]
    fault = _fault_of(api, response, model)
    if fault is not None:
        return [fault]
    looks_like_events = begins_like_events(response.body) is True
    if not response.is_event_stream and not looks_like_events:
        fault = unusable_response(api, response)
        return [fault or api.found("not_streamed")]
    fault = _fault_of_events(api, response)
    if fault is not None:
        return [fault]
    return [*_remarks(api, response, for_clients=for_clients)]


def _fault_of(api: Api, response: TimedResponse, model: str) -> Finding | None:
    """Return the finding for a response that is none to a chat: an error status, or an unreadable body."""
    fault = api.rejected(response, model)
    if fault is not None:
        return fault
    if response.end is ReadOutcome.UNREADABLE:
        return api.found("coding_unreadable", coding=content_coding(response.headers).decode("latin-1"))
    return api.found("answered_html") if response.is_html else None


def _fault_of_events(api: Api, response: TimedResponse) -> Finding | None:
    """Return the finding for a stream that is broken."""
    events = response.events()
    parsed = [_parsed(event) for _, event in events]
    failed = next((error for event in parsed if (error := error_in(event))), "")
    if failed:
        return api.found("stream_error", failed)
    if response.end in {ReadOutcome.TIMEOUT, ReadOutcome.BROKEN, ReadOutcome.TOO_LARGE}:
        return _cut(api, response)
    if not any(_text(event) for event in parsed):
        return api.found("stream_empty")
    if response.end is ReadOutcome.ENOUGH:
        return None
    marked = any(event == END_MARKER for _, event in events)
    if not marked and not any(first_object(event, "choices").get("finish_reason") for event in parsed):
        return api.found("stream_unfinished")
    return None


def _cut(api: Api, response: TimedResponse) -> Finding:
    if response.end is ReadOutcome.TIMEOUT:
        identity = "stream_stalled" if response.pieces else "no_response"
        return api.found(identity, seconds=_rounded(response.seconds))
    return api.found("response_too_large" if response.end is ReadOutcome.TOO_LARGE else "stream_broken")


def _remarks(api: Api, response: TimedResponse, *, for_clients: bool) -> Iterator[Finding]:
    """Yield the findings about a complete stream."""
    events = response.events()
    timing = Timing([moment for moment, event in events if _text(_parsed(event))])
    seconds: dict[str, object] = {
        "first": _rounded(timing.moments[0]),
        "last": _rounded(timing.last),
        "events": len(events),
    }
    if timing.buffered:
        yield api.found(buffering_cause(response.headers, response.version), "", **seconds)
    elif not timing.can_be_judged:
        yield api.found("stream_too_quick", "", **seconds)
    else:
        yield api.found("stream_works", "", **seconds)
        if content_coding(response.headers):
            yield api.found("stream_compressed")
        if response.version == "1.0":
            yield api.found("http_1_0")
    if not response.is_event_stream:
        yield api.found("stream_wrong_type")
    if response.end is ReadOutcome.WHOLE and not any(event == END_MARKER for _, event in events):
        yield api.found("stream_without_done")
    if for_clients:
        yield from _trouble_for_clients(api, [event for _, event in events])


def _trouble_for_clients(api: Api, events: Sequence[bytes]) -> Iterator[Finding]:
    parsed = [event for event in map(_parsed, events) if isinstance(event, dict)]
    if any(
        "delta" in (choice := first_object(event, "choices")) and choice["delta"] is None for event in parsed
    ):
        yield api.found("delta_null")
    if any(event.get("choices") == [] for event in parsed):
        yield api.found("choices_empty")
    with_usage = sum(isinstance(event.get("usage"), dict) for event in parsed)
    if with_usage > 1:
        yield api.found("usage_repeated", count=with_usage)


def _parsed(event: bytes) -> object:
    try:
        return json.loads(event)
    except (ValueError, RecursionError):
        return None


def _text(event: object) -> str:
    """Return the text of a chunk: the model's answer or its thoughts."""
    delta = first_object(event, "choices").get("delta")
    if not isinstance(delta, dict):
        return ""
    return str(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or "")


class _TextSeeker:
    """Finds the first text in a stream that is still arriving; each event is read once."""

    def __init__(self) -> None:
        self._read = 0
        self._found = False

    def has_text(self, seen: bytearray) -> bool:
        """Whether the body received so far contains text."""
        last = None if self._found else _last_end(seen, self._read)
        if last is not None:
            pieces = [(0.0, last - self._read)]
            response = TimedResponse(HTTPStatus.OK, [], "1.1", bytes(seen[self._read : last]), pieces)
            self._found = any(_text(_parsed(event)) for _, event in response.events())
            self._read = last
        return self._found


def _last_end(seen: bytearray, start: int) -> int | None:
    """Return where the last whole event ends; None if there is none after `start`."""
    ends = [match.end() for match in EVENT_END.finditer(seen, start)]
    return ends[-1] if ends else None


def _rounded(seconds: float) -> str:
    return f"{seconds:.2f}"

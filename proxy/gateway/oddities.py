"""The oddities of other gateways, by name: what a client or a proxy must live with, played on demand.

The gateway plays one for all requests (`GatewayOptions.oddity`), or for one: by a model named `odd:NAME`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from quart import Response

from proxy.gateway import odd_streams
from proxy.gateway.answers import EventStream, JsonObject
from proxy.gateway.errors import GatewayError, json_response
from proxy.gateway.odd_streams import choice_of, with_choice
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway

PREFIX: Final = "odd:"
"""A model's name that begins so names an oddity."""
STATUS: Final = "status_"
"""`status_429` and the like: that status, whatever was asked."""
FLAKY: Final = "flaky"
"""The first request fails with 500, later ones do not."""
_WORDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """One way to be odd; without arguments, none.

    Args:
        says: What it does, for people.
        events: Changes the events of a stream.
        whole: Changes a whole answer.
        instead: Body and content type of a 200 that is no answer.
        cut: Break streams off after two words.
        held: Fall silent after two words, until the caller leaves.
    """

    says: str = ""
    events: odd_streams.Change | None = None
    whole: Callable[[JsonObject], JsonObject] | None = None
    instead: tuple[bytes, str] | None = None
    cut: bool = False
    held: bool = False

    def streamed(self, stream: EventStream) -> EventStream:
        """A stream as this oddity has it."""
        return stream if self.events is None else EventStream(self.events(stream.events), stream.pieces)

    def respond(self, answer: JsonObject) -> Response:
        """A whole answer as this oddity has it."""
        if self.instead is not None:
            body, content_type = self.instead
            return Response(body, content_type=content_type)
        return json_response(answer if self.whole is None else self.whole(answer))

    def options(self, options: GatewayOptions) -> GatewayOptions:
        """Where a stream breaks off."""
        if self.cut:
            return replace(options, cut_after=_WORDS)
        return replace(options, stall_after=_WORDS) if self.held else options


def choose(gateway: Gateway, model: str) -> Oddity:
    """The oddity that a request calls for, counted.

    Raises:
        GatewayError: a name that is none (404), or one that stands for an error.
    """
    name = model.removeprefix(PREFIX) if model.startswith(PREFIX) else gateway.options.oddity
    if name is None:
        return NONE
    if not is_known(name):
        raise GatewayError(404, f"no oddity is called '{name}'", param="model", code="model_not_found")
    played = gateway.stats.oddities_played
    played[name] = played.get(name, 0) + 1
    if name.startswith(STATUS):
        status = int(name.removeprefix(STATUS))
        raise GatewayError(status, f"told to answer {status}")
    if name == FLAKY and played[name] == 1:
        raise GatewayError(500, "told to fail the first time")
    return ODDITIES.get(name, NONE)


def is_known(name: str) -> bool:
    """Whether there is such an oddity."""
    status = name.removeprefix(STATUS)
    told = name.startswith(STATUS) and status.isascii() and status.isdigit() and 400 <= int(status) <= 599
    return told or name in ODDITIES


# --- whole answers


def _no_usage(answer: JsonObject) -> JsonObject:
    return {key: value for key, value in answer.items() if key != "usage"}


def _null_content(answer: JsonObject) -> JsonObject:
    message = choice_of(answer).get("message")
    return with_choice(answer, message={**message, "content": None}) if isinstance(message, dict) else answer


def _reversed(answer: JsonObject) -> JsonObject:
    data = answer.get("data")
    return {**answer, "data": data[::-1]} if isinstance(data, list) else answer


def _no_index(answer: JsonObject) -> JsonObject:
    data = answer.get("data")
    if not isinstance(data, list):
        return answer
    return {**answer, "data": [{key: item[key] for key in item if key != "index"} for item in data]}


_ERROR: Final = (
    b'{"error":{"message":"told to fail inside a 200","type":"server_error","param":null,"code":503}}'
)
_JSON: Final = "application/json"
_stream = odd_streams

NONE: Final = Oddity()
ODDITIES: Final[Mapping[str, Oddity]] = MappingProxyType(
    {
        "azure_first_chunk": Oddity(says="a first chunk without choices", events=_stream.azure_first_chunk),
        "usage_everywhere": Oddity(says="usage on every chunk", events=_stream.usage_everywhere),
        "usage_unasked": Oddity(says="a usage chunk that nobody asked for", events=_stream.usage_unasked),
        "null_delta": Oddity(says="a first delta that is null", events=_stream.null_delta),
        "finish_with_content": Oddity(says="text and its end in one", events=_stream.finish_with_content),
        "no_end_marker": Oddity(says="no [DONE]", events=_stream.no_end_marker),
        "crlf": Oddity(says="lines that end with CRLF", events=_stream.crlf),
        "event_lines": Oddity(says="event: and id: lines", events=_stream.event_lines),
        "keep_alives": Oddity(says="comments between the events", events=_stream.keep_alives),
        "error_midway": Oddity(says="an error after two words", events=_stream.error_midway),
        "vendor_error_midway": Oddity(says="Spark's after two words", events=_stream.vendor_error_midway),
        "cut": Oddity(says="broken off after two words", events=_stream.no_opening, cut=True),
        "held": Oddity(says="silence after two words", events=_stream.no_opening, held=True),
        "no_usage": Oddity(says="whole answers without usage", whole=_no_usage),
        "null_content": Oddity(says="whole answers with null content", whole=_null_content),
        "reversed": Oddity(says="embeddings from the last to the first", whole=_reversed),
        "no_index": Oddity(says="embeddings without an index", whole=_no_index),
        "error_in_200": Oddity(says="a 200 with an error", instead=(_ERROR, _JSON)),
        "html_in_200": Oddity(says="a 200 with a web page", instead=(b"<html>log in</html>", "text/html")),
        "empty_200": Oddity(says="a 200 with nothing", instead=(b"", _JSON)),
        FLAKY: Oddity(says="500 to the first request, an answer to later ones"),
    }
)
"""By name; `status_N` beside them."""

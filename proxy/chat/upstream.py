"""The chat's way to its model: the same upstreams, credentials, limits, clocks and log line as everybody's.

All that the chat knows of the relay is known here.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

import msgspec

from proxy.access import Caller
from proxy.errors import ProxyError
from proxy.lifecycle import ExchangeScope, admit_caller, admit_request
from proxy.secret import Secret
from proxy.services import Services
from proxy.settings import Chat, Json
from proxy.telemetry import ExchangeRecord
from proxy.upstream.relay import Answer
from proxy.upstream.requests import IncomingRequest
from proxy.wire.endpoints import CHAT_COMPLETIONS
from proxy.wire.event_stream import EVENT_STREAM
from proxy.wire.headers import Headers, find_header, media_type
from proxy.wire.request_json import read_fields

CALLER: Final = "chat"
"""Who asks, in logs and limits; `[[access.keys]]` may give this name a rate, streams and repairs."""
PATH: Final = "/chat/dialogue"
SILENCE_SECONDS: Final = 0.3
"""After so much of it a sentence that has ended is shown without a look at what follows."""

_HEADERS: Final[Headers] = [(b"content-type", b"application/json"), (b"accept", EVENT_STREAM)]


class Message(TypedDict):
    """One message of the dialogue, as the model is told it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What the model says.

    Args:
        status: HTTP's; anything but 200 comes with an error in the body.
        streamed: Whether the body is an event stream, else it is one JSON object.
        body: Bytes as they come. It raises a `ProxyError` where it breaks off.
        record: Of this exchange; whoever reads an error in the body notes it as the outcome.
    """

    status: int
    streamed: bool
    body: AsyncGenerator[bytes]
    record: ExchangeRecord


class ChatUpstream:
    """Asks the model.

    Args:
        chat: The `[chat]` section.
        current: Returns the services of the current configuration.
    """

    def __init__(self, chat: Chat, current: Callable[[], Services]) -> None:
        self._chat = chat
        self._current = current

    @contextlib.asynccontextmanager
    async def ask(self, messages: Sequence[Message], request_id: str) -> AsyncIterator[ModelAnswer]:
        """Send the messages; the answer is read inside, and its exchange is logged at the end.

        Raises:
            ProxyError: there is no answer; inside, the answer broke off.
        """
        record = ExchangeRecord(request_id, "POST", PATH)
        failure: Exception | None = None
        async with ExchangeScope(record, self._current, interrupted="stopped") as exchange:
            answer = await self._open(messages, exchange)
            try:
                yield answer
            except ProxyError:
                raise
            except Exception as error:  # The dialogue failed, not the exchange.
                record.end("stopped")
                failure = error
        if failure is not None:
            raise failure

    async def _open(self, messages: Sequence[Message], exchange: ExchangeScope) -> ModelAnswer:
        services, record, model = exchange.services, exchange.record, self._chat.model
        caller = services.access.named(CALLER)
        request = self._request(messages, caller, record.request_id)
        await admit_caller(exchange, caller)
        admit_request(exchange, request)
        plan = services.routing.plan(CHAT_COMPLETIONS, model, caller, at=self._chat.upstream)
        answer = await services.attempts.open(
            request, plan, record, exchange.closing, heartbeat=SILENCE_SECONDS
        )
        record.status = answer.status
        return _model_answer(answer, record)

    def _request(self, messages: Sequence[Message], caller: Caller, request_id: str) -> IncomingRequest:
        chat = self._chat
        fields: dict[str, object] = {"model": chat.model}
        if chat.user is not None:
            fields["user"] = str(chat.user)
        fields |= {"messages": messages, "stream": True}
        if chat.tools:
            fields["tools"] = plain(chat.tools)
        fields |= {name: plain(value) for name, value in chat.options.items()}
        body = msgspec.json.encode(fields)
        return IncomingRequest(
            request_id=request_id,
            method="POST",
            path=f"/{CHAT_COMPLETIONS.name}".encode(),
            headers=_HEADERS,
            body=body,
            fields=read_fields(body),
            caller=caller,
            endpoint=CHAT_COMPLETIONS,
            model=chat.model,
        )


def plain(value: Json) -> object:
    """A JSON value of the settings as an encoder takes it, its secrets told."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.reveal() if isinstance(value, Secret) else value


def _model_answer(answer: Answer, record: ExchangeRecord) -> ModelAnswer:
    streamed = media_type(find_header(answer.headers, b"content-type")) == EVENT_STREAM
    body = _pieces([answer.body]) if isinstance(answer.body, bytes) else answer.body
    return ModelAnswer(answer.status, streamed, body, record)


async def _pieces(pieces: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece

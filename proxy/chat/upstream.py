"""Send the chat's questions to its model, with the same upstreams, limits, timeouts and log line as the API.

This is the only module of the chat that uses the relay.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, TypedDict

import msgspec

from proxy.access import Caller
from proxy.errors import ProxyError
from proxy.lifecycle import ExchangeScope, admit_caller, admit_request
from proxy.secret import Secret
from proxy.services import Services
from proxy.settings import Chat, Json
from proxy.telemetry import ExchangeRecord
from proxy.upstream.relay import RelayedResponse
from proxy.upstream.requests import CallerRequest
from proxy.wire.endpoints import CHAT_COMPLETIONS
from proxy.wire.event_stream import EVENT_STREAM, is_event_stream
from proxy.wire.headers import Headers
from proxy.wire.request_json import RequestFields

CALLER: Final = "chat"
"""The caller in logs and limits; `[[access.keys]]` may give this name a rate, streams and repairs."""
PATH: Final = "/chat/dialogue"
SILENCE_SECONDS: Final = 0.3
"""After this much silence, a complete sentence is shown without waiting for what follows."""

_HEADERS: Final[Headers] = [(b"content-type", b"application/json"), (b"accept", EVENT_STREAM)]


class Message(TypedDict):
    """One message of the dialogue, as the model receives it."""

    role: str
    content: str


class ModelAnswer(msgspec.Struct, frozen=True):
    """The model's answer.

    Args:
        status: The HTTP status; with any other than 200, the body is an error.
        streamed: Whether the body is an event stream instead of one JSON object.
        body: The bytes as they arrive. It raises a `ProxyError` if it breaks off.
        record: The record of the exchange.
        redact: Masks the secrets that were sent to the upstream.
    """

    status: int
    streamed: bool
    body: AsyncGenerator[bytes]
    record: ExchangeRecord
    redact: Callable[[bytes], bytes] = bytes

    def note_error(self, code: str | None) -> None:
        """Record an error in the body, by its code, which may quote the request."""
        masked = None if code is None else self.redact(code.encode(errors="replace")).decode()
        self.record.end("error_inside", masked)


class ChatUpstream:
    """Sends questions to the model.

    Args:
        chat: The `[chat]` section.
        current: Returns the services of the current configuration.
    """

    def __init__(self, chat: Chat, current: Callable[[], Services]) -> None:
        self._chat = chat
        self._current = current

    @contextlib.asynccontextmanager
    async def ask(
        self, messages: Sequence[Message], request_id: str, model: str
    ) -> AsyncIterator[ModelAnswer]:
        """Send the messages; the answer is read inside the block, and the exchange is logged at its end.

        Raises:
            ProxyError: There is no answer, or, inside the block, the answer broke off.
        """
        record = ExchangeRecord(request_id, "POST", PATH)
        failure: Exception | None = None
        async with ExchangeScope(record, self._current, interrupted="stopped") as exchange:
            answer = await self._open(messages, model, exchange)
            try:
                yield answer
            except ProxyError:
                raise
            except Exception as error:  # The dialogue failed, not the exchange.
                record.end("stopped")
                failure = error
        if failure is not None:
            raise failure

    async def _open(self, messages: Sequence[Message], model: str, exchange: ExchangeScope) -> ModelAnswer:
        services, record = exchange.services, exchange.record
        caller = services.access.caller_by_name(CALLER)
        request = self._request(messages, model, caller, record.request_id)
        await admit_caller(exchange, caller)
        await admit_request(exchange, request)
        plan = services.routing.plan(CHAT_COMPLETIONS, model, caller, at=self._chat.upstream)
        answer = await services.attempts.open(
            request, plan, record, exchange.closing, heartbeat=SILENCE_SECONDS
        )
        record.status = answer.status
        return _model_answer(answer, record)

    def _request(
        self, messages: Sequence[Message], model: str, caller: Caller, request_id: str
    ) -> CallerRequest:
        chat = self._chat
        fields: dict[str, object] = {"model": model}
        if chat.user is not None:
            fields["user"] = str(chat.user)
        fields |= {"messages": messages, "stream": True}
        if chat.tools:
            fields["tools"] = plain(chat.tools)
        fields |= {name: plain(value) for name, value in chat.options.items()}
        return CallerRequest(
            request_id=request_id,
            method="POST",
            path=f"/{CHAT_COMPLETIONS.name}".encode(),
            headers=_HEADERS,
            body=msgspec.json.encode(fields),
            # Not read from the body: the operator's own options cannot hide a model.
            fields=RequestFields(model=model, stream=True, streams=True),
            caller=caller,
            endpoint=CHAT_COMPLETIONS,
            model=model,
        )


def plain(value: Json) -> object:
    """Return a JSON value of the settings for an encoder, with its secrets revealed."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.reveal() if isinstance(value, Secret) else value


def _model_answer(answer: RelayedResponse, record: ExchangeRecord) -> ModelAnswer:
    body = _pieces([answer.body]) if isinstance(answer.body, bytes) else answer.body
    return ModelAnswer(answer.status, is_event_stream(answer.headers), body, record, answer.redact)


async def _pieces(pieces: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece

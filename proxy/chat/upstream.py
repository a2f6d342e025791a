"""The chat's way to its model: the same upstreams, credentials, limits, clocks and log line as everybody's.

All that the chat knows of the relay is known here.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypedDict

import msgspec

from proxy.access import Caller
from proxy.caller_limits import CallerLimits
from proxy.drain import Drain
from proxy.errors import ProxyError
from proxy.secret import Secret
from proxy.settings import Chat, Json, Logs, Settings
from proxy.telemetry import BodyLog, ExchangeRecord, UsageTotals, get_logger, request_context
from proxy.upstream.attempts import Attempts
from proxy.upstream.client import UpstreamRequest
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.relay import Answer, Exchange
from proxy.upstream.repaired import AnswerRepairs
from proxy.upstream.routing import Route, Routing
from proxy.wire.endpoints import CHAT_COMPLETIONS
from proxy.wire.event_stream import EVENT_STREAM
from proxy.wire.headers import Headers, find_header, media_type
from proxy.wire.repairs import Call, repair_request

CALLER: Final = Caller("chat")
"""Who asks, in logs and limits; `[[access.keys]]` may give this name a rate, streams and repairs."""
PATH: Final = "/chat/dialogue"
SILENCE_SECONDS: Final = 0.3
"""After so much of it a sentence that has ended is shown without a look at what follows."""

_log: Final = get_logger("exchange")


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


class Users(Protocol):
    """Who works with them."""

    def one(self) -> contextlib.AbstractContextManager[None]: ...


class Serving(Protocol):
    """What exchanges are served with at the moment: see `proxy.services.Services`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def routing(self) -> Routing: ...
    @property
    def limits(self) -> CallerLimits: ...
    @property
    def usage(self) -> UsageTotals: ...
    @property
    def users(self) -> Users: ...


class ChatUpstream:
    """Asks the model.

    Args:
        chat: The `[chat]` section.
        current: What exchanges that begin now are served with.
        drain: Told of what runs.
    """

    def __init__(self, chat: Chat, current: Callable[[], Serving], drain: Drain) -> None:
        self._chat = chat
        self._current = current
        self._drain = drain

    @contextlib.asynccontextmanager
    async def ask(self, messages: Sequence[Message], request_id: str) -> AsyncIterator[ModelAnswer]:
        """Send the messages; the answer is read inside, and its exchange is logged at the end.

        Raises:
            ProxyError: there is no answer; inside, the answer broke off.
        """
        record = ExchangeRecord(request_id, "POST", PATH)
        record.caller, record.endpoint, record.model = CALLER.name, CHAT_COMPLETIONS.name, self._chat.model
        own = self._current()
        with request_context(request_id), own.users.one():
            try:
                async with contextlib.AsyncExitStack() as closing:
                    yield await self._open(own, messages, record, closing)
                record.outcome = record.outcome or "ok"
            except ProxyError as error:
                record.fail(error)
                raise
            finally:
                try:
                    await _count_usage(own, record)
                finally:
                    record.outcome = record.outcome or "stopped"
                    _log.info("exchange", **record.fields())

    async def _open(
        self,
        own: Serving,
        messages: Sequence[Message],
        record: ExchangeRecord,
        closing: contextlib.AsyncExitStack,
    ) -> ModelAnswer:
        model = self._chat.model
        own.limits.check_endpoint(CALLER, CHAT_COMPLETIONS)
        own.limits.check_model(CALLER, model)
        await own.limits.count_request(CALLER)
        closing.enter_context(own.limits.stream(CALLER))
        plan = own.routing.plan(CHAT_COMPLETIONS, model, CALLER.name, at=self._chat.upstream)
        _log_bodies(own.settings.logs, record, self._body(messages, plan[0]), closing)

        since = asyncio.get_running_loop().time()

        def prepare(route: Route, closing: contextlib.AsyncExitStack) -> Exchange:
            clock = ExchangeClock(route.timeouts, since)
            closing.enter_context(self._drain.watch(clock))
            request = UpstreamRequest(
                method="POST",
                path=f"/{CHAT_COMPLETIONS.name}".encode(),
                query=b"",
                headers=_headers(record.request_id),
                body=self._body(messages, route),
                clock=clock,
                endpoint=route.endpoint,
                model=model,
            )
            repairs = AnswerRepairs(route.repairs, Call(route.endpoint.shape, streams=True))
            limits = own.settings.limits
            return Exchange(request, route, clock, record, limits, repairs, heartbeat=SILENCE_SECONDS)

        answer = await Attempts(plan, prepare, record, again=True).open(closing)
        record.status = answer.status
        return _model_answer(answer, record)

    def _body(self, messages: Sequence[Message], route: Route) -> bytes:
        chat = self._chat
        fields: dict[str, object] = {"model": route.rename or chat.model}
        if chat.user is not None:
            fields["user"] = str(chat.user)
        fields |= {"messages": messages, "stream": True}
        if chat.tools:
            fields["tools"] = plain(chat.tools)
        fields |= {name: plain(value) for name, value in chat.options.items()}
        return repair_request(route.repairs, route.endpoint.shape, msgspec.json.encode(fields))


def _log_bodies(logs: Logs, record: ExchangeRecord, body: bytes, closing: contextlib.AsyncExitStack) -> None:
    record.bytes_up = len(body)
    if logs.bodies:
        record.bodies = BodyLog(logs.body_bytes)
        record.bodies.request(body, whole=True)
        closing.callback(record.bodies.close)


async def _count_usage(own: Serving, record: ExchangeRecord) -> None:
    if record.prompt_tokens is not None:
        prompt, completion = record.prompt_tokens, record.completion_tokens or 0
        own.usage.add(CALLER.name, record.model or "", record.upstream or "", prompt, completion)
    await own.limits.count_usage(CALLER, record, CHAT_COMPLETIONS)


def plain(value: Json) -> object:
    """A JSON value of the settings as an encoder takes it, its secrets told."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value.reveal() if isinstance(value, Secret) else value


def _headers(request_id: str) -> Headers:
    return [
        (b"content-type", b"application/json"),
        (b"accept", EVENT_STREAM),
        (b"accept-encoding", b"identity"),
        (b"x-request-id", request_id.encode()),
    ]


def _model_answer(answer: Answer, record: ExchangeRecord) -> ModelAnswer:
    streamed = media_type(find_header(answer.headers, b"content-type")) == EVENT_STREAM
    body = _pieces([answer.body]) if isinstance(answer.body, bytes) else answer.body
    return ModelAnswer(answer.status, streamed, body, record)


async def _pieces(pieces: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece

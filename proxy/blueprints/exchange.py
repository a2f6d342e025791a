"""Between Quart and the relay: read the request as it arrived, answer with what comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from quart import Response, current_app, request
from quart.wrappers.response import IterableBody
from werkzeug.datastructures import Headers

from proxy.asgi import ProxyRequest
from proxy.caller_limits import CallerLimits
from proxy.errors import UpstreamError
from proxy.generations import Generations
from proxy.services import Services
from proxy.telemetry import BodyLog, ExchangeRecord
from proxy.upstream.attempts import Attempts
from proxy.upstream.client import UpstreamRequest
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.heartbeat import Heartbeat
from proxy.upstream.model_list import ModelList
from proxy.upstream.relay import Answer, Exchange
from proxy.upstream.repaired import AnswerRepairs
from proxy.upstream.routing import Route
from proxy.wire.endpoints import Endpoint, ModelPlace
from proxy.wire.form_body import MULTIPART_FORM, read_form, replace_form_model
from proxy.wire.headers import find_header, is_preflight, media_type, request_headers
from proxy.wire.model_list import listing, single
from proxy.wire.paths import Target, find_target
from proxy.wire.repairs import read_call, repair_request
from proxy.wire.request_json import NO_FIELDS, RequestFields, check_first_byte, read_fields, replace_model

_JSON: Final = b"application/json"


def services() -> Services:
    """The services that this request is served with: to its end those that it began with."""
    request = arrived()
    if request.services is None:
        generations: Generations = current_app.extensions["proxy"]
        request.services = generations.current
        request.closing.enter_context(request.services.users.one())
    return request.services


def arrived() -> ProxyRequest:
    """The request of this context."""
    return cast(ProxyRequest, request._get_current_object())  # type: ignore[attr-defined]


async def relay_exchange() -> Response:
    """Relay the current request to its upstream."""
    incoming, own = arrived(), services()
    record, limits = incoming.record, own.settings.limits
    target = find_target(incoming.method, incoming.raw_path)
    record.endpoint = target.endpoint.name
    if is_preflight(incoming.method, incoming.raw_headers):
        # Only [cors] decides which pages may call, never an upstream.
        return Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    if own.models.answers(incoming.method, target):
        return await _answer_models(own.models, target, record)
    held, fields = await _hold_body(incoming, limits.held_body_bytes)
    _check_limits(incoming, own.limits, fields, held, target.endpoint)
    if own.settings.logs.bodies:
        _log_bodies(incoming, held, own.settings.logs.body_bytes)
    incoming.closing.push_async_callback(_count_usage, incoming, own)
    plan = own.routing.plan(target.endpoint, record.model, record.caller)
    preparation = _Preparation(incoming, own, target.path, held, fields, asyncio.get_running_loop().time())
    attempts = Attempts(plan, preparation.exchange, record, again=incoming.body.finished)
    beats = plan[0].heartbeat if fields.stream and target.endpoint.heartbeats else 0.0
    try:
        opening = attempts.open(incoming.closing)
        if beats:
            heartbeat = Heartbeat(beats, target.endpoint, record)
            answer = await heartbeat.open(opening, incoming.group, incoming.closing)
        else:
            answer = await opening
    except UpstreamError as error:
        if incoming.body.failure is not None:  # the upload broke, and that broke the request up there
            raise incoming.body.failure from error
        raise
    return to_response(answer)


@dataclass(frozen=True, slots=True)
class _Preparation:
    """Makes the exchange with an upstream, out of what arrived."""

    incoming: ProxyRequest
    own: Services
    path: bytes
    held: bytes
    fields: RequestFields
    since: float

    def exchange(self, route: Route, closing: contextlib.AsyncExitStack) -> Exchange:
        """The exchange with that one; `closing` ends its clock."""
        incoming, record = self.incoming, self.incoming.record
        body = _as_upstream_takes_it(incoming, self.held, route, self.fields)
        clock = ExchangeClock(route.timeouts, self.since)
        closing.enter_context(self.own.drain.watch(clock))
        outgoing = UpstreamRequest(
            method=incoming.method,
            path=self.path,
            query=incoming.query_string,
            headers=request_headers(incoming.raw_headers, request_id=record.request_id),
            body=body if incoming.body.finished else _upload(body, incoming, clock),
            content_length=_length_up(incoming, len(body) - len(self.held)),
            clock=clock,
            endpoint=route.endpoint,
            model=record.model,
        )
        call = read_call(route.endpoint.shape, self.held if route.repairs else b"")
        repairs = AnswerRepairs(route.repairs, call)
        return Exchange(
            outgoing, route, clock, record, self.own.settings.limits, repairs, heartbeat=route.heartbeat
        )


async def _answer_models(models: ModelList, target: Target, record: ExchangeRecord) -> Response:
    """Answer with the list of models, or with one of them."""
    if target.model is None:
        body = listing(await models.entries(record.request_id))
    else:
        body = single(await models.entry(target.model, record.request_id))
    record.went_down(body)
    return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _check_limits(
    incoming: ProxyRequest, limits: CallerLimits, fields: RequestFields, held: bytes, endpoint: Endpoint
) -> None:
    if incoming.caller is None:
        return
    if limits.has_models(incoming.caller):
        hidden = _may_hide_model(incoming, held, endpoint)
        limits.check_model(incoming.caller, incoming.record.model, hidden=hidden)
    if fields.streams:
        incoming.closing.enter_context(limits.stream(incoming.caller))


def _may_hide_model(incoming: ProxyRequest, held: bytes, endpoint: Endpoint) -> bool:
    """Whether a body may name a model that was not found: late in a form, or in another kind of body.

    Or it leaves the choice to the upstream, where the endpoint is one of models.
    """
    if incoming.record.model is not None or not held or endpoint.model is ModelPlace.NONE:
        return False
    kind = _media_type(incoming)
    if kind == MULTIPART_FORM and incoming.body.finished:
        return not read_form(_content_type(incoming), held).is_plain
    return kind != _JSON or endpoint.model is ModelPlace.BODY


async def _count_usage(incoming: ProxyRequest, own: Services) -> None:
    record = incoming.record
    if record.prompt_tokens is not None:
        names = (record.caller or "", record.model or "", record.upstream or "")
        prompt, completion = record.prompt_tokens, record.completion_tokens or 0
        own.usage.add(*names, prompt, completion)
        if incoming.caller is not None:
            await own.limits.count_tokens(incoming.caller, prompt + completion)


async def _hold_body(incoming: ProxyRequest, held_bytes: int) -> tuple[bytes, RequestFields]:
    """Read what may have to be sent again: JSON whatever its size, anything else while it is small."""
    kind = _media_type(incoming)
    if kind == _JSON:
        check_first_byte(await incoming.body.peek())
    held = await incoming.body.read(incoming.body.limit if kind == _JSON else held_bytes)
    incoming.record.bytes_up = len(held)
    fields = NO_FIELDS
    if kind == _JSON and held:
        fields = read_fields(held)
    elif kind == MULTIPART_FORM:
        fields = RequestFields(read_form(_content_type(incoming), held).model)
    incoming.record.model = fields.model
    return held, fields


def _content_type(incoming: ProxyRequest) -> bytes:
    return find_header(incoming.raw_headers, b"content-type") or b""


def _media_type(incoming: ProxyRequest) -> bytes:
    return media_type(_content_type(incoming))


def _length_up(incoming: ProxyRequest, grown: int) -> int | None:
    if incoming.body.finished or incoming.content_length is None:
        return None
    return incoming.content_length + grown


def _as_upstream_takes_it(incoming: ProxyRequest, held: bytes, route: Route, fields: RequestFields) -> bytes:
    """The body with the model's name up there, and with what the upstream would stumble over taken out."""
    if route.rename is not None and _media_type(incoming) == MULTIPART_FORM:
        return replace_form_model(_content_type(incoming), held, route.rename)
    if fields is NO_FIELDS or not incoming.body.finished:  # not JSON
        return held
    if route.rename is not None:
        held = replace_model(held, route.rename)
    read_ids = services().token_texts.reader(incoming.record.model)
    return repair_request(route.repairs, route.endpoint.shape, held, read_ids)


def _log_bodies(incoming: ProxyRequest, held: bytes, limit: int) -> None:
    bodies = BodyLog(limit)
    bodies.request(held, whole=incoming.body.finished)
    incoming.record.bodies = bodies
    incoming.closing.callback(bodies.close)


async def _upload(head: bytes, incoming: ProxyRequest, clock: ExchangeClock) -> AsyncIterator[bytes]:
    """What was read already, then what still comes; the first-byte clock waits for its end."""
    yield head
    async for chunk in incoming.body:
        incoming.record.bytes_up += len(chunk)
        clock.sent()
        yield chunk


def to_response(answer: Answer) -> Response:
    """The answer as Quart sends it: no header of its own making, no clock on the body."""
    body = answer.body if isinstance(answer.body, bytes) else IterableBody(answer.body)
    response = Response(body, status=answer.status)
    response.headers = Headers(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    )
    response.timeout = None
    return response

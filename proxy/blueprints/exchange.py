"""Between Quart and the relay: read the request as it arrived, answer with what comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import cast

from quart import Response, current_app, request
from quart.wrappers.response import IterableBody
from werkzeug.datastructures import Headers

from proxy.asgi import ProxyRequest
from proxy.caller_limits import CallerLimits
from proxy.errors import ModelForbidden, UpstreamError
from proxy.generations import Generations
from proxy.services import Services
from proxy.telemetry import BodyLog
from proxy.telemetry.readings import OTHER_MODEL
from proxy.upstream.attempts import Attempts
from proxy.upstream.client import UpstreamRequest
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.heartbeat import Heartbeat
from proxy.upstream.model_list import filter_answer
from proxy.upstream.relay import Answer, Exchange
from proxy.upstream.repaired import AnswerRepairs
from proxy.upstream.routing import Route
from proxy.wire.endpoints import Endpoint, Shape
from proxy.wire.event_stream import EVENT_STREAM
from proxy.wire.form_body import MULTIPART_FORM, NO_FORM, read_form, replace_form_model
from proxy.wire.headers import find_header, is_preflight, media_type, request_headers
from proxy.wire.model_list import listing, single
from proxy.wire.paths import Target, find_target
from proxy.wire.repairs import read_call, repair_request
from proxy.wire.request_json import (
    JSON,
    NO_FIELDS,
    RequestFields,
    check_first_byte,
    read_fields,
    replace_model,
)
from proxy.wire.request_model import SeenRequest, check_unambiguous


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
    record = incoming.record
    target = find_target(incoming.method, incoming.raw_path)
    record.endpoint = target.endpoint.name
    if is_preflight(incoming.method, incoming.raw_headers):
        # Only [cors] decides which pages may call, never an upstream.
        return Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    if incoming.caller is not None:
        own.limits.check_endpoint(incoming.caller, target.endpoint)
    if own.models.answers(incoming.method, target):
        return await _answer_models(incoming, own, target)
    seen = await _see(incoming, own, target)
    held, fields = seen.body, seen.fields
    _check_limits(incoming, own.limits, seen)
    if own.settings.logs.bodies:
        _log_bodies(incoming, held, own.settings.logs.body_bytes)
    incoming.closing.push_async_callback(_count_usage, incoming, own, target.endpoint)
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
    if not isinstance(answer.body, bytes) and _is_event_stream(answer):
        _count_stream(incoming, own.limits)  # also one that was not seen to be asked for
    if target.endpoint.shape is Shape.MODELS and _is_limited(incoming, own):
        answer = await filter_answer(answer, partial(_may_use, incoming, own))
    return to_response(answer)


def _is_event_stream(answer: Answer) -> bool:
    return media_type(find_header(answer.headers, b"content-type")) == EVENT_STREAM


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


async def _answer_models(incoming: ProxyRequest, own: Services, target: Target) -> Response:
    """Answer with the list of the models that the caller may use, or with one of them."""
    record = incoming.record
    if target.model is None:
        entries = await own.models.entries(record.request_id)
        body = listing(entry for entry in entries if _may_use(incoming, own, entry.id))
    elif _may_use(incoming, own, target.model):
        body = single(await own.models.entry(target.model, record.request_id))
    else:
        raise ModelForbidden
    record.went_down(body)
    return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _may_use(incoming: ProxyRequest, own: Services, model: str) -> bool:
    return incoming.caller is None or own.limits.may_use(incoming.caller, model)


def _is_limited(incoming: ProxyRequest, own: Services) -> bool:
    return incoming.caller is not None and own.limits.is_limited(incoming.caller)


def _check_limits(incoming: ProxyRequest, limits: CallerLimits, seen: SeenRequest) -> None:
    if incoming.caller is not None:
        limits.check_models(incoming.caller, seen)
    check_unambiguous(seen)
    if _may_stream(seen):
        _count_stream(incoming, limits)


def _may_stream(seen: SeenRequest) -> bool:
    """Whether an event stream may be asked for; a body that is not JSON can ask in a way that is not seen."""
    if seen.fields.streams or seen.fields.is_ambiguous("stream"):
        return True
    if seen.fields is not NO_FIELDS or seen.endpoint.stream is None:
        return False
    return b"stream" in seen.body if seen.endpoint.form else bool(seen.body)


def _count_stream(incoming: ProxyRequest, limits: CallerLimits) -> None:
    if incoming.caller is not None and not incoming.is_counted_stream:
        incoming.closing.enter_context(limits.stream(incoming.caller))
        incoming.is_counted_stream = True


async def _count_usage(incoming: ProxyRequest, own: Services, endpoint: Endpoint) -> None:
    record = incoming.record
    if record.prompt_tokens is not None:
        # Only a model that the upstream answered for becomes a label of the metrics.
        model = (record.model or "") if record.status == HTTPStatus.OK else OTHER_MODEL
        names = (record.caller or "", model, record.upstream or "")
        own.usage.add(*names, record.prompt_tokens, record.completion_tokens or 0)
    if incoming.caller is not None:
        await own.limits.count_usage(incoming.caller, record, endpoint)


async def _see(incoming: ProxyRequest, own: Services, target: Target) -> SeenRequest:
    """Read what may have to be sent again: JSON whatever its size, anything else while it is small.

    The form of a key that is limited to models is read to its end, because its last part may name a model.
    """
    kind, body, record = _media_type(incoming), incoming.body, incoming.record
    is_read = kind == JSON or (kind == MULTIPART_FORM and target.endpoint.form and _is_limited(incoming, own))
    if kind == JSON:
        check_first_byte(await body.peek())
    caller = "" if incoming.caller is None else incoming.caller.name
    hold = incoming.closing.enter_context(own.held.holding(caller, own.settings.limits))
    held = await body.read(body.limit if is_read else own.settings.limits.held_body_bytes, hold)
    record.bytes_up = len(held)
    fields = read_fields(held) if kind == JSON and held else NO_FIELDS
    form = read_form(_content_type(incoming), held) if kind == MULTIPART_FORM else NO_FORM
    record.model = fields.model if form.model is None else form.model
    return SeenRequest(
        endpoint=target.endpoint,
        outer_model=target.model,
        query=incoming.query_string,
        headers=incoming.raw_headers,
        body=held,
        is_whole=body.finished,
        fields=fields,
        form=form,
    )


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

"""Between Quart and the relay: read the request as it arrived, answer with the upstream's response."""

from typing import cast

from quart import request

from proxy.access import Caller
from proxy.asgi import HttpRequest, QuartRequest, http_request
from proxy.blueprints.models import answer_models
from proxy.errors import InternalError
from proxy.lifecycle import admit_request
from proxy.services import Services
from proxy.task_groups import task_group
from proxy.upstream.heartbeat import Heartbeat
from proxy.upstream.model_list import filter_models
from proxy.upstream.relay import RelayedResponse
from proxy.upstream.requests import CallerRequest
from proxy.wire.endpoints import Shape
from proxy.wire.event_stream import is_event_stream
from proxy.wire.form_body import MULTIPART_FORM, NO_FORM, read_form
from proxy.wire.headers import content_coding, find_header, is_preflight, media_type
from proxy.wire.paths import Target, find_target
from proxy.wire.request_json import JSON, NO_FIELDS, check_first_byte, read_fields
from proxy.wire.statuses import NO_CONTENT


def current_request() -> QuartRequest:
    """Return the request of this context."""
    return cast(QuartRequest, request._get_current_object())  # type: ignore[attr-defined]  # of LocalProxy


def current_services() -> Services:
    """Return the services that the current request uses from beginning to end."""
    return current_request().exchange.services


async def relay_exchange() -> RelayedResponse:
    """Relay the current request to its upstream."""
    http = http_request()
    exchange, services = http.exchange, http.exchange.services
    record, caller = exchange.record, exchange.caller
    target = find_target(http.method, http.raw_path)
    record.endpoint = target.endpoint.name
    if is_preflight(http.method, http.raw_headers):
        # Only [cors] decides which pages may call, never an upstream.
        return RelayedResponse(NO_CONTENT, [(b"cache-control", b"no-store")], b"")
    if caller is None:
        raise InternalError(reason="a relayed route is marked public")
    caller.check_endpoint(target.endpoint)
    if services.models.answers(http.method, target):
        return await answer_models(services.models, target, caller, record)
    incoming = await _read_request(http, caller, target)
    await admit_request(exchange, incoming)
    plan = services.routing.plan(incoming.endpoint, incoming.model, caller)
    opening = services.attempts.open(incoming, plan, record, exchange.closing)
    if incoming.is_stream and target.endpoint.heartbeats and plan[0].heartbeat:
        heartbeat = Heartbeat(plan[0].heartbeat, target.endpoint, record)
        group = await exchange.closing.enter_async_context(task_group())
        response = await heartbeat.open(opening, group, exchange.closing)
    else:
        response = await opening
    if not isinstance(response.body, bytes) and is_event_stream(response.headers):
        await exchange.count_stream(caller)  # also a stream that the request did not ask for
    if target.endpoint.shape is Shape.MODELS and caller.is_limited:
        response = await filter_models(response, caller.may_use)
    return response


async def _read_request(http: HttpRequest, caller: Caller, target: Target) -> CallerRequest:
    """Read what may have to be sent again: JSON of any size, any other body while it is small.

    The form of a key that is limited to models is read to its end, because its last part may name a model.
    """
    exchange, services, body = http.exchange, http.exchange.services, http.body
    content_type = find_header(http.raw_headers, b"content-type") or b""
    kind, limits = media_type(content_type), services.settings.limits
    body.watch_wait = services.worker.drain.watch_wait
    is_json = kind == JSON and not content_coding(http.raw_headers)  # Compressed, it cannot be read.
    is_read = is_json or (kind == MULTIPART_FORM and target.endpoint.form and caller.is_limited)
    if is_json:
        check_first_byte(await body.peek())
    held_max = body.limit if is_read else limits.held_body_bytes
    held = await body.read(held_max, exchange.hold_bytes(caller).add)
    exchange.record.bytes_up = len(held)
    fields = read_fields(held) if is_json and held else NO_FIELDS
    form = read_form(content_type, held) if kind == MULTIPART_FORM else NO_FORM
    is_whole = body.finished
    return CallerRequest(
        request_id=exchange.record.request_id,
        method=http.method,
        path=target.path,
        query=http.query_string,
        headers=http.raw_headers,
        caller=caller,
        endpoint=target.endpoint,
        model=fields.model if form.model is None else form.model,
        outer_model=target.model,
        body=held,
        is_whole=is_whole,
        rest=None if is_whole else body,
        content_length=None if is_whole else http.content_length,
        fields=fields,
        form=form,
    )

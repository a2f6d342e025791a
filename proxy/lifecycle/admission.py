"""Checks before a request is sent to an upstream: rates, permissions, streams."""

from typing import Final

from proxy.access import Caller
from proxy.errors import InvalidRequest
from proxy.lifecycle.exchange import ExchangeScope
from proxy.upstream.requests import CallerRequest
from proxy.wire.endpoints import Charge
from proxy.wire.form_body import MULTIPART_FORM
from proxy.wire.headers import media_type
from proxy.wire.request_json import JSON, NO_FIELDS
from proxy.wire.request_model import check_model_length, check_unambiguous, content_types

_COMPRESSED: Final = (
    "the request body has a Content-Encoding, but the proxy has to read the body; "
    "send it uncompressed, without that header"
)
_IN_BACKGROUND: Final = (
    "this key has a token budget, and the tokens of a response in the background cannot be counted; "
    "leave `background` out"
)
_UNREAD: Final = (
    "this key has a token budget, so the proxy has to read the request; send JSON with "
    "Content-Type: application/json"
)


async def admit_caller(exchange: ExchangeScope, caller: Caller) -> None:
    """Note who is calling, and count the request.

    Raises:
        RateLimited: The caller has used up its requests or tokens.
        ServerOverloaded: The process is overloaded, and the caller already uses its share.
    """
    exchange.caller = caller
    exchange.record.caller = caller.name
    exchange.count_load(caller)
    await exchange.services.worker.limits.count_request(caller)


async def admit_request(exchange: ExchangeScope, request: CallerRequest) -> None:
    """Check that the caller may send this request, and have it counted and logged.

    Raises:
        EndpointForbidden, ModelForbidden: The caller may not use the endpoint or the model.
        InvalidRequest: Two servers could read two models in the request, its model has too long a name, it is
            compressed and has to be read, or its tokens count, but it may run in the background.
        RateLimited: The caller has too many streams.
    """
    caller, record = request.caller, exchange.record
    check_model_length(request)
    record.endpoint, record.model, record.bytes_up = request.endpoint.name, request.model, len(request.body)
    caller.check_endpoint(request.endpoint)
    await caller.check_models(request)
    check_unambiguous(request)
    if request.is_compressed and _has_to_be_read(exchange, request):
        raise InvalidRequest(_COMPRESSED)
    if caller.budget is not None and request.endpoint.background:
        _check_foreground(request)
    if request.endpoint.websocket or _may_stream(request):
        await exchange.count_stream(caller)
    if not request.endpoint.websocket:
        exchange.log_bodies(request.body, whole=request.is_whole)
    exchange.count_usage(caller, request.endpoint)


def _has_to_be_read(exchange: ExchangeScope, request: CallerRequest) -> bool:
    """Whether the body decides what the request costs, where it goes, or what changes on the way."""
    caller, endpoint = request.caller, request.endpoint
    if caller.budget is not None and endpoint.charge is not Charge.NOTHING:
        return True  # Its estimate would be that of the compressed bytes.
    is_readable = any(media_type(kind) in {JSON, MULTIPART_FORM} for kind in content_types(request.headers))
    return is_readable and exchange.services.routing.depends_on_body(endpoint, caller)


def _check_foreground(request: CallerRequest) -> None:
    """Reject a request whose usage would be reported by later requests, which cost nothing."""
    if request.fields is NO_FIELDS:
        if request.body or not request.is_whole:
            raise InvalidRequest(_UNREAD)
    elif request.fields.background or request.fields.is_ambiguous("background"):
        raise InvalidRequest(_IN_BACKGROUND, param="background")


def _may_stream(request: CallerRequest) -> bool:
    """Whether the request may ask for an event stream; a body that is not JSON may, too."""
    if request.fields.streams or request.fields.is_ambiguous("stream"):
        return True
    if request.fields is not NO_FIELDS or request.endpoint.stream is None:
        return False
    return b"stream" in request.body if request.endpoint.form else bool(request.body)

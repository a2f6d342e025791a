"""Admission: the checks of every exchange, and its counts until it ends."""

from types import SimpleNamespace
from typing import Final, cast

import pytest
from limits import parse
from msgspec.structs import replace

from proxy.access import Caller, CallerLimits
from proxy.access.load import Load
from proxy.errors import EndpointForbidden, InvalidRequest, ModelForbidden, RateLimited
from proxy.lifecycle import ExchangeScope, admit_caller, admit_request
from proxy.services import RefCount, Services
from proxy.settings import Limits, Logs
from proxy.telemetry import ExchangeRecord, ExchangeTotals, UsageTotals
from proxy.telemetry.loop_lag import LoopLag
from proxy.telemetry.readings import OTHER_MODEL, UsageKey
from proxy.upstream.requests import CallerRequest
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS, REALTIME, Endpoint
from proxy.wire.request_json import MODEL_CHARACTERS_MAX, read_fields

JSON: Final = (b"content-type", b"application/json")


@pytest.fixture
def services() -> Services:
    """Return the services that an admission needs."""
    return cast(
        Services,
        SimpleNamespace(
            worker=SimpleNamespace(
                limits=CallerLimits(),
                usage=UsageTotals(),
                exchanges=ExchangeTotals(),
                traces=None,
                load=Load(LoopLag()),
            ),
            traffic=None,
            settings=SimpleNamespace(limits=Limits(), logs=Logs()),
            users=RefCount(),
        ),
    )


def scope(services: Services) -> ExchangeScope:
    """Return the scope of a new exchange."""
    return ExchangeScope(ExchangeRecord("id", "POST", "/"), lambda: services)


def request_of(
    caller: Caller, body: bytes = b'{"model": "m"}', endpoint: Endpoint = CHAT_COMPLETIONS
) -> CallerRequest:
    """Return a request with a JSON body."""
    fields = read_fields(body)
    return CallerRequest(
        request_id="id",
        method="POST",
        path=f"/{endpoint.name}".encode(),
        headers=[JSON],
        body=body,
        fields=fields,
        caller=caller,
        endpoint=endpoint,
        model=fields.model,
    )


async def test_the_record_names_caller_endpoint_and_model(services: Services) -> None:
    caller = Caller("alice")
    async with scope(services) as exchange:
        await admit_caller(exchange, caller)
        await admit_request(exchange, request_of(caller))
    record = exchange.record
    assert exchange.caller is caller
    assert (record.caller, record.endpoint, record.model) == ("alice", "chat/completions", "m")
    assert record.bytes_up == len(b'{"model": "m"}')


@pytest.mark.parametrize(
    ("caller", "body", "error"),
    [
        (Caller("a", endpoints=("embeddings",)), b'{"model": "m"}', EndpointForbidden),
        (Caller("a", models=("other",)), b'{"model": "m"}', ModelForbidden),
        (Caller("a", models=("m",)), b'{"model": "m", "Model": "n"}', ModelForbidden),
        (Caller("a"), b'{"model": "m", "model": "n"}', InvalidRequest),
        (Caller("a", max_streams=0), b'{"model": "m", "stream": true}', RateLimited),
    ],
)
async def test_forbidden_requests_are_rejected(
    services: Services, caller: Caller, body: bytes, error: type[Exception]
) -> None:
    async with scope(services) as exchange:
        with pytest.raises(error):
            await admit_request(exchange, request_of(caller, body))


async def test_a_model_with_a_long_name_is_rejected_before_it_is_recorded(services: Services) -> None:
    """A WebSocket names it in its query."""
    name = "m" * (MODEL_CHARACTERS_MAX + 1)
    request = replace(request_of(Caller("a"), b"{}", REALTIME), model=name, outer_model=name)
    async with scope(services) as exchange:
        with pytest.raises(InvalidRequest, match="more than 1000 characters"):
            await admit_request(exchange, request)
    assert exchange.record.model is None


async def test_a_rate_counts_requests_of_all_scopes(services: Services) -> None:
    caller = Caller("a", rate=parse("2/hour"))
    for _ in range(2):
        async with scope(services) as exchange:
            await admit_caller(exchange, caller)
    async with scope(services) as exchange:
        with pytest.raises(RateLimited):
            await admit_caller(exchange, caller)


@pytest.mark.parametrize(
    ("endpoint", "body"), [(CHAT_COMPLETIONS, b'{"model": "m", "stream": true}'), (REALTIME, b"{}")]
)
async def test_a_stream_counts_once_and_until_the_end_of_its_scope(
    services: Services, endpoint: Endpoint, body: bytes
) -> None:
    caller = Caller("a", max_streams=1)
    async with scope(services) as exchange:
        await admit_request(exchange, request_of(caller, body, endpoint))
        await exchange.count_stream(caller)
        async with scope(services) as other:
            with pytest.raises(RateLimited):
                await admit_request(other, request_of(caller, body, endpoint))
    async with scope(services) as exchange:
        await admit_request(exchange, request_of(caller, body, endpoint))


@pytest.mark.parametrize(("status", "label"), [(200, "m"), (101, "m"), (400, OTHER_MODEL)])
async def test_tokens_are_counted_at_the_end_under_known_model_names(
    services: Services, status: int, label: str
) -> None:
    caller = Caller("a", budget=parse("10/hour"))
    async with scope(services) as exchange:
        await admit_caller(exchange, caller)
        await admit_request(exchange, request_of(caller, endpoint=EMBEDDINGS))
        exchange.record.upstream, exchange.record.status = "u", status
        exchange.record.add_usage(8, 2)
        assert [*services.worker.usage] == []
    assert [*services.worker.usage] == [(UsageKey("a", label, "u"), (8, 2))]
    async with scope(services) as exchange:
        with pytest.raises(RateLimited, match="token quota"):
            await admit_caller(exchange, caller)

"""`GET /v1/models` and one model of it, where the list is not relayed. `exchange.py` calls this."""

from http import HTTPStatus

from proxy.access import Caller
from proxy.errors import ModelForbidden
from proxy.telemetry import ExchangeRecord
from proxy.upstream.model_list import ModelList
from proxy.upstream.relay import RelayedResponse
from proxy.wire.model_list import listing, single
from proxy.wire.paths import Target


async def answer_models(
    models: ModelList, target: Target, caller: Caller, record: ExchangeRecord
) -> RelayedResponse:
    """Answer with the list of the models that the caller may use, or with one of them.

    Raises:
        ModelForbidden: The caller may not use the model that the path names.
        ProxyError: There is no such model, or no upstream returns its list.
    """
    if target.model is None:
        entries = await models.entries()
        body = listing(entry for entry in entries if caller.may_use(entry.id))
    elif caller.may_use(target.model):
        body = single(await models.entry(target.model))
    else:
        raise ModelForbidden
    record.count_bytes_sent(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    return RelayedResponse(HTTPStatus.OK, headers, body)

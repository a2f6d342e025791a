"""The list of models: those of the configuration, and those that the upstreams list."""

import asyncio
import contextlib
import contextvars
import copy
import functools
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from proxy.errors import (
    Aborted,
    BadResponse,
    InternalError,
    InvalidResponse,
    NotFound,
    Overloaded,
    ProxyError,
    UpstreamTimeout,
)
from proxy.settings import Settings
from proxy.shared_tasks import OwnedTasks, Waiters
from proxy.telemetry import ExchangeRecord, bind_context, get_logger
from proxy.upstream.client import UpstreamClient
from proxy.upstream.relay import RelayedResponse
from proxy.upstream.requests import UpstreamRequest
from proxy.wire.endpoints import MODELS, ModelPlace, Shape
from proxy.wire.headers import choose_request_id
from proxy.wire.model_list import ModelEntry, filter_listing, merge, read_entries
from proxy.wire.paths import Target

FETCH_SECONDS: Final = 5.0
"""The timeout for the list of one upstream; RAGFlow waits ten seconds for the whole list."""
KEEP_SECONDS: Final = 10.0
"""How long a merged list is reused: clients ask for one model after the other."""
WAIT_SECONDS: Final = 2 * FETCH_SECONDS
"""How long a caller waits for the merged list. The timeouts of the upstreams end before it."""
WAITERS_MAX: Final = 10_000
BYTES_MAX: Final = 4 << 20


class ModelList:
    """Answers requests for the list of models itself, if `[models]` says so.

    Args:
        settings: The whole configuration.
        clients: One client for each upstream, by name.
    """

    def __init__(self, settings: Settings, clients: Mapping[str, UpstreamClient]) -> None:
        self._source = settings.models.list
        self._clients = clients
        self._known = [
            ModelEntry(model.id, owned_by=model.owned_by, context_length=model.context_length)
            for model in settings.models.known
        ]
        self._renamed = {route.rename: route.match for route in settings.routes.models if route.rename}
        self._kept: tuple[float, list[ModelEntry]] = (-1.0, [])
        self._tasks = OwnedTasks()
        self._flight: asyncio.Task[list[ModelEntry]] | None = None
        self._waiters = Waiters[list[ModelEntry]](WAITERS_MAX, _reject)
        self._log = get_logger("models")

    def answers(self, method: str, target: Target) -> bool:
        """Whether the proxy itself answers a request."""
        is_list = target.endpoint.shape is Shape.MODELS or target.endpoint.model is ModelPlace.PATH
        return self._source != "relayed" and method == "GET" and is_list

    async def entries(self) -> list[ModelEntry]:
        """Return all models of the upstreams that answer, in a list that callers share.

        Raises:
            ProxyError: No upstream answers, and the configuration lists no model.
        """
        if self._source == "configured":
            return self._known
        until, kept = self._kept
        return kept if time.monotonic() < until else await self._fetch_shared()

    async def _fetch_shared(self) -> list[ModelEntry]:
        """Join the fetch in progress, or start one. The last caller that leaves cancels it."""
        if self._flight is None:
            # The fetch must not belong to the request that starts it, so it has its own context and id.
            context = contextvars.Context()
            fetching = self._fetch_all(choose_request_id(()))
            self._flight = self._tasks.start(fetching, name="model-list", context=context)
            self._flight.add_done_callback(self._end_flight, context=context)
        flight = self._flight
        try:
            return await self._waiters.join(WAIT_SECONDS)
        finally:
            if self._flight is flight and not self._waiters:
                self._flight = None
                await self._tasks.close()

    def _end_flight(self, flight: asyncio.Task[list[ModelEntry]]) -> None:
        if flight is not self._flight:  # Nobody waits for it.
            return
        self._flight = None
        if flight.cancelled():  # because the event loop ends
            self._waiters.fail(lambda: InternalError(reason="the fetch of the list was cancelled"))
            return
        error = flight.exception()
        if error is None:
            kept = flight.result()
            self._kept = time.monotonic() + KEEP_SECONDS, kept
            self._waiters.publish(kept)
        elif isinstance(error, ProxyError):
            self._waiters.fail(functools.partial(copy.copy, error))
        else:
            self._log.error("defect", exc_info=error)
            self._waiters.fail(functools.partial(InternalError, reason=type(error).__name__))

    async def _fetch_all(self, request_id: str) -> list[ModelEntry]:
        bind_context(request_id=request_id)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._try(name, request_id)) for name in self._clients]
        results = [task.result() for task in tasks]
        lists = [result for result in results if not isinstance(result, ProxyError)]
        failures = [result for result in results if isinstance(result, ProxyError)]
        if failures and not lists and not self._known:
            raise failures[0]
        return merge([self._known, *lists])

    async def entry(self, name: str) -> ModelEntry:
        """Return one model.

        Raises:
            NotFound: There is no model of that name.
        """
        for entry in await self.entries():
            if entry.id == name:
                return entry
        raise NotFound("the model does not exist", param="model")

    async def _try(self, name: str, request_id: str) -> list[ModelEntry] | ProxyError:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                entries = read_entries(await self._fetch(name, request_id))
        except TimeoutError:
            error: ProxyError = UpstreamTimeout(reason="no list of models in time")
        except ValueError:
            error = BadResponse(reason="no list of models")
        except ProxyError as failed:
            error = failed
        else:
            # A renamed model is listed by the name that callers use.
            return [self._as_callers_know(entry) for entry in entries]
        self._log.warning("model_list_failed", upstream=name, reason=error.reason, code=error.code)
        return error

    async def _fetch(self, name: str, request_id: str) -> bytes:
        headers = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
        request = UpstreamRequest(
            method="GET",
            path=f"/{MODELS.name}".encode(),
            query=b"",
            headers=[*headers, (b"x-request-id", request_id.encode())],
            body=b"",
            endpoint=MODELS,
        )
        response = await self._clients[name].open(request, ExchangeRecord(request_id, "GET", "/models"))
        try:
            if response.status != HTTPStatus.OK:
                raise BadResponse(reason=f"the list of models was answered {response.status}")
            body = bytearray()
            while len(body) <= BYTES_MAX and (chunk := await response.read()):
                body += chunk
            return bytes(body)
        finally:
            await response.aclose()

    def _as_callers_know(self, entry: ModelEntry) -> ModelEntry:
        name = self._renamed.get(entry.id, entry.id)
        return ModelEntry(name, entry.created, entry.owned_by, entry.context_length)


def _reject(reason: str) -> ProxyError:
    return Overloaded(reason=f"{reason} for the list of models")


async def filter_models(response: RelayedResponse, may_use: Callable[[str], bool]) -> RelayedResponse:
    """Drop the models that a caller may not use from the list of an upstream.

    Raises:
        BadResponse: The response broke off, or is not a list that can be filtered.
    """
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        return response
    body = await _read_whole(response)
    if not body:  # of a HEAD request
        return response
    try:
        body = filter_listing(body, may_use)
    except ValueError as error:
        raise InvalidResponse("a list of models that cannot be read") from error
    headers = [pair for pair in response.headers if pair[0] != b"content-length"]
    return RelayedResponse(response.status, [*headers, (b"content-length", str(len(body)).encode())], body)


async def _read_whole(response: RelayedResponse) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    body = bytearray()
    try:
        async with contextlib.aclosing(response.body) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > BYTES_MAX:
                    raise InvalidResponse("a list of models that is too long")
    except Aborted as error:
        raise BadResponse(reason=error.reason) from error
    return bytes(body)

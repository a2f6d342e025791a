"""The long-lived objects of one worker, built in one place and closed in reverse."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from proxy.access import AccessControl, CallerLimits
from proxy.access.counting import Counting
from proxy.access.load import Load
from proxy.access.streams import StreamCounts
from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import CredentialRegistry, build_credentials, tls_files
from proxy.credentials.sharing.fleet import Fleet
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.redis_connection import RedisConnection
from proxy.request_body import HeldBytes
from proxy.settings import Settings
from proxy.telemetry import ExchangeTotals, Metrics, Traffic, UsageTotals, WorkerReading
from proxy.telemetry.loop_lag import LoopLag
from proxy.telemetry.readings import HttpServerReading
from proxy.tls_contexts import TlsContexts
from proxy.token_ids import open_token_texts
from proxy.upstream.attempts import Attempts
from proxy.upstream.client import RunningRequests, UpstreamClient, tls_files_of
from proxy.upstream.model_list import ModelList
from proxy.upstream.repair_threads import RepairThreads
from proxy.upstream.routing import Routing

if TYPE_CHECKING:
    from proxy.telemetry.traces import ExchangeTracer


class RefCount:
    """Reference count for an object that must not be closed while in use."""

    def __init__(self) -> None:
        self._count = 0
        self._is_retired = False
        self._unused = asyncio.Event()

    def acquire(self) -> None:
        """Begin to use the object; `release` must follow."""
        self._count += 1

    def release(self) -> None:
        """End one use of the object."""
        self._count -= 1
        self._check()

    def retire(self) -> None:
        """Allow the object to be closed as soon as its last user has released it."""
        self._is_retired = True
        self._check()

    def close_now(self) -> None:
        """Allow the object to be closed although it may be in use."""
        self._unused.set()

    @property
    def is_used(self) -> bool:
        """Whether anything uses the object."""
        return self._count > 0

    @property
    def may_close(self) -> bool:
        """Whether the object may be closed."""
        return self._unused.is_set()

    async def wait_until_unused(self) -> None:
        """Wait until the object may be closed."""
        await self._unused.wait()

    def _check(self) -> None:
        if self._is_retired and not self._count:
            self._unused.set()


class WorkerState(msgspec.Struct, frozen=True):
    """What one worker keeps for its whole life, across all configurations."""

    store: MemoryTokenStore
    redis: RedisConnection | None
    """The one connection to the Redis of `[shared]`, where there is one."""
    fleet: Fleet | None
    limits: CallerLimits
    usage: UsageTotals
    drain: Drain
    lag: LoopLag
    load: Load
    http_rejections: Mapping[int, int]
    """The number of requests that the server has rejected by itself, by status."""
    token_folder: TokenFolder | None = None
    """The folder where the workers of the service share tokens, if there are several."""
    held: HeldBytes = msgspec.field(default_factory=HeldBytes)
    repair_threads: RepairThreads = msgspec.field(default_factory=RepairThreads)
    upstream_requests: RunningRequests = msgspec.field(default_factory=RunningRequests)
    """The running requests of each upstream, which its `max_connections` limits."""
    tls: TlsContexts = msgspec.field(default_factory=TlsContexts)
    exchanges: ExchangeTotals = msgspec.field(default_factory=ExchangeTotals)
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    traces: "ExchangeTracer | None" = None
    """The tracer; None without `[traces]`."""

    def forget_callers(self, names: Collection[str]) -> None:
        """Remove callers from the metrics."""
        for counts in (self.exchanges, self.usage, self.limits):
            counts.forget(names)


class Services(msgspec.Struct, frozen=True):
    """The objects that serve requests, built from one snapshot of the configuration."""

    settings: Settings
    worker: WorkerState
    """What the snapshots of all configurations share."""
    access: AccessControl
    credentials: CredentialRegistry
    routing: Routing
    attempts: Attempts
    models: ModelList
    metrics: Metrics
    users: RefCount = msgspec.field(default_factory=RefCount)

    @property
    def traffic(self) -> Traffic | None:
        """The counters of the status page; None if there is no such page."""
        return None if self.settings.status is None else self.worker.traffic

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: not draining, the default credential not known broken."""
        if self.worker.drain.announced:
            return False
        default = self.settings.routes.default
        names = [default] if isinstance(default, str) else [*default]
        return any(self._is_able(self.settings.upstreams[name].credential) for name in names)

    def _is_able(self, credential: str | None) -> bool:
        return credential is None or self.credentials[credential].source.healthy


@contextlib.asynccontextmanager
async def open_worker_state(
    settings: Settings,
    drain: Drain,
    token_folder: TokenFolder | None = None,
    server: HttpServerReading | None = None,
) -> AsyncIterator[WorkerState]:
    """Build what one worker has once, on the running event loop."""
    async with contextlib.AsyncExitStack() as stack:
        store = MemoryTokenStore()
        stack.push_async_callback(store.close)
        redis = fleet = None
        if settings.shared is not None:
            redis = RedisConnection(settings.shared)
            stack.push_async_callback(redis.close)
            fleet = Fleet(settings.shared, redis)
            stack.push_async_callback(fleet.close)
        counts_in = redis if settings.access.sharing == "redis" else None
        limits = CallerLimits(Counting(counts_in), StreamCounts(counts_in))
        server = server or HttpServerReading()
        lag = LoopLag(server.listeners)
        traces = None
        if settings.traces is not None:
            from proxy.telemetry.traces import ExchangeTracer  # of the extra `opentelemetry`

            traces = ExchangeTracer(settings.traces)
            stack.push_async_callback(traces.close)
        load, usage = Load(lag), UsageTotals()
        yield WorkerState(
            store, redis, fleet, limits, usage, drain, lag, load,
            server.rejections, token_folder, traces=traces,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, state: WorkerState, previous: Services | None = None
) -> AsyncIterator[Services]:
    """Build the services of one configuration.

    Args:
        settings: The configuration.
        state: What the worker keeps across configurations.
        previous: The services of the configuration before; credentials that are the same are taken over.
    """
    async with contextlib.AsyncExitStack() as stack:
        known = None if previous is None else previous.credentials
        credentials = CredentialRegistry()
        stack.push_async_callback(credentials.close)
        contexts = {
            files: await state.tls.get(files)
            for section in settings.credentials.values()
            for files in tls_files(section)
        }
        build_credentials(
            settings.credentials, state.store, state.fleet, known, credentials, state.token_folder, contexts
        )
        clients: dict[str, UpstreamClient] = {}
        for name, upstream in settings.upstreams.items():
            credential = None if upstream.credential is None else credentials[upstream.credential]
            files = tls_files_of(upstream)
            tls = None if files is None else await state.tls.get(files)
            client = UpstreamClient(name, upstream, credential, state.upstream_requests, tls)
            clients[name] = await stack.enter_async_context(client)
        credentials.prefetch()
        token_texts = await open_token_texts(settings)
        routing = Routing(settings, clients, None if previous is None else previous.routing)
        services = Services(
            settings=settings,
            worker=state,
            access=AccessControl(settings.access, () if settings.cors is None else settings.cors.origins),
            credentials=credentials,
            routing=routing,
            attempts=Attempts(settings.limits, state.drain, token_texts, state.repair_threads),
            models=ModelList(settings, clients),
            metrics=Metrics(
                credentials.readings,
                state.usage,
                routing.readings,
                state.lag,
                state.exchanges,
                functools.partial(_read_worker, settings, state),
            ),
        )
        previous = known = None  # This frame lives as long as the services, and they may be freed before.
        yield services


def _read_worker(settings: Settings, state: WorkerState) -> WorkerReading:
    return WorkerReading(
        attempts_running=state.drain.running,
        held_bytes=state.held.total,
        held_bytes_max=settings.limits.total_held_bytes,
        callers=state.limits.readings(settings.access.keys),
        http_rejections=state.http_rejections,
    )

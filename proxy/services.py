"""The long-lived objects of one worker, built in one place and closed in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from proxy.access import AccessControl
from proxy.caller_limits import Accounts, CallerLimits
from proxy.counting import Counting
from proxy.credentials import CredentialRegistry, MemoryTokenStore
from proxy.credentials.build import build_credentials
from proxy.credentials.sharing.fleet import Fleet
from proxy.drain import Drain
from proxy.redis_connection import RedisConnection
from proxy.request_body import HeldBytes
from proxy.settings import Settings
from proxy.telemetry import Metrics, UsageTotals
from proxy.token_ids import TokenTexts, open_token_texts
from proxy.upstream.client import UpstreamClient
from proxy.upstream.model_list import ModelList
from proxy.upstream.routing import Routing


class Users:
    """Who still works with something that may be closed when nobody does any more."""

    def __init__(self) -> None:
        self._count = 0
        self._is_retired = False
        self._gone = asyncio.Event()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one for as long as it runs."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._look()

    def retire(self) -> None:
        """No new ones will come: let it be closed when the last one has gone."""
        self._is_retired = True
        self._look()

    def dismiss(self) -> None:
        """Let it be closed now."""
        self._gone.set()

    @property
    def are_gone(self) -> bool:
        """Whether it may be closed."""
        return self._gone.is_set()

    async def gone(self) -> None:
        """Wait until it may be closed."""
        await self._gone.wait()

    def _look(self) -> None:
        if self._is_retired and not self._count:
            self._gone.set()


@dataclass(frozen=True, slots=True)
class Lasting:
    """What goes over from one generation of services to the next."""

    store: MemoryTokenStore
    redis: RedisConnection | None
    """The one connection to the Redis of `[shared]`, where there is one."""
    fleet: Fleet | None
    accounts: Accounts
    usage: UsageTotals
    drain: Drain
    held: HeldBytes = field(default_factory=HeldBytes)


@dataclass(frozen=True, slots=True)
class Services:
    """What requests are served with."""

    settings: Settings
    access: AccessControl
    limits: CallerLimits
    credentials: CredentialRegistry
    routing: Routing
    models: ModelList
    drain: Drain
    metrics: Metrics
    usage: UsageTotals
    token_texts: TokenTexts
    held: HeldBytes
    users: Users = field(default_factory=Users)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: not draining, the default credential not known broken."""
        if self.drain.announced:
            return False
        default = self.settings.routes.default
        names = [default] if isinstance(default, str) else [*default]
        return any(self._is_able(self.settings.upstreams[name].credential) for name in names)

    def _is_able(self, credential: str | None) -> bool:
        return credential is None or self.credentials[credential].source.healthy


@contextlib.asynccontextmanager
async def open_lasting(settings: Settings, drain: Drain) -> AsyncIterator[Lasting]:
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
        counting = Counting(redis if settings.access.sharing == "redis" else None)
        yield Lasting(store, redis, fleet, Accounts(counting), UsageTotals(), drain)


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, lasting: Lasting, before: Services | None = None
) -> AsyncIterator[Services]:
    """Build what one generation of settings is served with.

    Args:
        settings: To serve by.
        lasting: What the worker has once.
        before: Whose credentials go on where they are the same.
    """
    async with contextlib.AsyncExitStack() as stack:
        known = None if before is None else before.credentials
        credentials = CredentialRegistry()
        stack.push_async_callback(credentials.close)
        build_credentials(settings.credentials, lasting.store, lasting.fleet, known, credentials)
        clients: dict[str, UpstreamClient] = {}
        for name, upstream in settings.upstreams.items():
            credential = None if upstream.credential is None else credentials[upstream.credential]
            clients[name] = await stack.enter_async_context(UpstreamClient(name, upstream, credential))
        credentials.prefetch()
        routing = Routing(settings, clients, None if before is None else before.routing)
        yield Services(
            settings=settings,
            access=AccessControl(settings.access, () if settings.cors is None else settings.cors.origins),
            limits=CallerLimits(settings.access.keys, lasting.accounts),
            credentials=credentials,
            routing=routing,
            models=ModelList(settings, clients),
            drain=lasting.drain,
            metrics=Metrics(credentials.readings, lasting.usage, routing.readings),
            usage=lasting.usage,
            token_texts=await open_token_texts(settings),
            held=lasting.held,
        )

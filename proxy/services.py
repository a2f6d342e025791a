"""The long-lived objects of one worker, built in one place and closed in reverse."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from proxy.access import AccessControl
from proxy.caller_limits import CallerLimits
from proxy.chat.service import ChatService, open_chat
from proxy.credentials import CredentialRegistry, MemoryTokenStore
from proxy.credentials.build import build_credentials
from proxy.credentials.sharing.fleet import Fleet
from proxy.drain import Drain
from proxy.settings import Settings
from proxy.telemetry import Metrics, UsageTotals
from proxy.upstream.client import UpstreamClient
from proxy.upstream.model_list import ModelList
from proxy.upstream.routing import Routing


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
    chat: ChatService | None

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: not draining, the default credential not known broken."""
        if self.drain.started:
            return False
        name = self.settings.upstreams[self.settings.routes.default].credential
        return name is None or self.credentials[name].source.healthy


@contextlib.asynccontextmanager
async def open_services(settings: Settings, drain: Drain) -> AsyncIterator[Services]:
    """Build everything that one worker holds, on the running event loop."""
    async with contextlib.AsyncExitStack() as stack:
        store = MemoryTokenStore()
        stack.push_async_callback(store.close)
        fleet = None if settings.shared is None else Fleet(settings.shared)
        if fleet is not None:
            stack.push_async_callback(fleet.close)
        credentials = build_credentials(settings.credentials, store, fleet)
        stack.push_async_callback(credentials.close)
        clients: dict[str, UpstreamClient] = {}
        for name, upstream in settings.upstreams.items():
            credential = None if upstream.credential is None else credentials[upstream.credential]
            clients[name] = await stack.enter_async_context(UpstreamClient(name, upstream, credential))
        credentials.prefetch()
        usage, callers = UsageTotals(), CallerLimits(settings.access.keys)
        routing = Routing(settings, clients)
        chat = await stack.enter_async_context(
            open_chat(settings, clients, routing=routing, callers=callers, drain=drain, usage=usage)
        )
        yield Services(
            settings=settings,
            access=AccessControl(settings.access),
            limits=callers,
            credentials=credentials,
            routing=routing,
            models=ModelList(settings, clients),
            drain=drain,
            metrics=Metrics(credentials.readings, usage),
            usage=usage,
            chat=chat,
        )

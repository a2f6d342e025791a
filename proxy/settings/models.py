"""The settings as a whole, and the sections that need no module of their own."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.secret import Secret
from proxy.settings.access import Access
from proxy.settings.chat import Chat
from proxy.settings.cors import Cors
from proxy.settings.credentials import Credential, HttpCredential, OAuth2Credential
from proxy.settings.fields import Count, Name, PositiveSeconds, Seconds, SecretText, Target
from proxy.settings.model_list import Models
from proxy.settings.section import Section, Table, frozen
from proxy.settings.shared import Shared
from proxy.settings.upstreams import Upstream
from proxy.settings.urls import resolved


class ModelRoute(Section):
    """An upstream for some models, and the name that a model has there."""

    match: Name
    """A name, or a pattern with `*`, `?` and `[...]`; case counts."""
    upstream: Target
    rename: Name | None = None


class Routes(Section):
    """Which upstream takes a request: that of its model, of its endpoint, or else the default.

    Where several are named with their weights, each takes its share.
    """

    default: Target
    endpoints: Table[str, Target] = Field(default_factory=dict)
    models: tuple[ModelRoute, ...] = ()
    """The first that matches counts."""


class Limits(Section):
    """How much of a request or an event is taken in. Sizes are in bytes."""

    max_body_bytes: Count = 64 * 1024 * 1024
    held_body_bytes: Count = 1024 * 1024
    """A body up to this size is held, so that the request can be sent again; JSON is always held."""
    max_event_bytes: Count = 16 * 1024 * 1024
    body_timeout: Seconds = 60
    """Seconds that may pass without a byte of a request body; 0 is no limit."""
    total_held_bytes: Count = 512 * 1024 * 1024
    """Of all bodies that are held at once; a request that would exceed it is answered 503."""
    held_bytes_per_caller: Count = 256 * 1024 * 1024
    """Of the bodies that are held for one caller; a request that would exceed it is answered 429."""
    max_connections: Count = 10_000
    """Of callers at once; a further one is answered 503. Read at the start only."""


class Logs(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    bodies: bool = False
    """Log the bodies of requests and responses. They hold what people write: for debugging only."""
    body_bytes: Count = 16 * 1024
    """As much of a body as is logged."""


class Gateway(Section):
    """The embedded demonstration gateway: an echo model behind a token endpoint of its own."""

    token_ttl: PositiveSeconds = 300
    """Seconds that its tokens live."""
    word_delay: Annotated[Seconds, Field(le=0.5)] = 0.1
    """Seconds between two words of its answers."""
    app_id: Name = "demo"
    app_secret: SecretText = Secret("demo-secret")


class Settings(Section):
    """Everything that can be set, resolved and checked. Immutable throughout."""

    access: Access
    routes: Routes
    upstreams: Table[Name, Upstream]
    credentials: Table[Name, Credential] = Field(default_factory=dict)
    shared: Shared | None = None
    models: Models = Models()
    cors: Cors | None = None
    limits: Limits = Limits()
    logs: Logs = Logs()
    chat: Chat | None = None
    gateway: Gateway | None = None


def resolve_embedded(settings: Settings, origin: str) -> Settings:
    """Return the settings with `origin`, such as `http://127.0.0.1:5003`, for every `embedded:`."""
    upstreams = {
        name: upstream.model_copy(update={"base_url": resolved(upstream.base_url, origin)})
        for name, upstream in settings.upstreams.items()
    }
    credentials = {name: _resolve(credential, origin) for name, credential in settings.credentials.items()}
    return settings.model_copy(update={"upstreams": frozen(upstreams), "credentials": frozen(credentials)})


def _resolve(credential: Credential, origin: str) -> Credential:
    if isinstance(credential, HttpCredential):
        return credential.model_copy(update={"url": resolved(credential.url, origin)})
    if isinstance(credential, OAuth2Credential):
        return credential.model_copy(update={"token_url": resolved(credential.token_url, origin)})
    return credential

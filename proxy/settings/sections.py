"""The settings as a whole, and the sections that need no module of their own."""

import hmac
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.secret import Secret
from proxy.settings.access import STRONG_KEY_LENGTH, Access, Cors
from proxy.settings.chat import Chat
from proxy.settings.credentials import CredentialSettings
from proxy.settings.credentials.http import HttpCredential
from proxy.settings.credentials.oauth2 import OAuth2Credential
from proxy.settings.fields import (
    EMBEDDED,
    BaseUrl,
    CaFile,
    Count,
    EndpointUrl,
    FixedHeaderName,
    HeaderName,
    HeaderText,
    KeyText,
    Name,
    NginxName,
    PositiveSeconds,
    ProxyUrl,
    RepairName,
    RouteTarget,
    Seconds,
    SecretText,
    Share,
    Status,
    Tries,
)
from proxy.settings.section import Section, Table, frozen, reject
from proxy.settings.shared import Shared
from proxy.settings.status import StatusPage


class Timeouts(Section):
    """The time limits of an exchange, in seconds; 0 disables one."""

    connect: Seconds = 5
    """The time to establish the connection, including TLS."""
    first_byte: Seconds = 120
    """The time from the request to the first byte of the body. Models may think for a long time."""
    idle: Seconds = 60
    """The longest gap between two chunks."""
    total: Seconds = 0
    """The whole exchange. Disabled by default, because a long answer is not an error."""


class Retries(Section):
    """When to send a request to the same upstream again: if nothing was sent, or the upstream asks for it."""

    attempts: Tries = 0
    """The maximum number of retries. With 0, callers have to retry."""
    longest_wait: PositiveSeconds = 2
    """Seconds. If an upstream asks for a longer pause, the request is not retried."""
    budget: Share = 0.2
    """The ratio of retries to first attempts, so that retries cannot overload a failing upstream."""


class Breaker(Section):
    """When to stop sending requests to a failing upstream for a while."""

    failures: Count = 5
    """Consecutive failures: no connection, no response, a timeout, or 502, 503, 504."""
    cool_down: PositiveSeconds = 10
    """Seconds, after which a single request tests the upstream."""


class Upstream(Section):
    """An API, the credential for it, and how to deal with its failures."""

    base_url: BaseUrl
    """The URL without a trailing slash. `embedded:` is the demonstration gateway, whose address is not known
    yet."""
    credential: str | None = None
    """A name in `[credentials]`; without one, requests carry no authorization."""
    timeouts: Timeouts = Timeouts()
    max_connections: Count = 2000
    headers: Table[FixedHeaderName, HeaderText] = Field(default_factory=dict)
    """Set on every request. Values from the environment or from files are masked when shown."""
    forward_openai_account: bool = False
    """Whether to forward the callers' OpenAI-Organization and OpenAI-Project headers."""
    repairs: tuple[RepairName, ...] = ()
    """Names of repairs, or of clients that need a set of repairs."""
    renames: Table[Name, Name] = Field(default_factory=dict)
    """The upstream's names of models, by name or pattern. The rename of a route takes precedence."""
    fallback: str | None = None
    """The upstream to try if this one fails before the first byte."""
    fallback_statuses: tuple[Status, ...] = (429, 502, 503, 504)
    """Statuses that count as a failure if there is another upstream to try."""
    retries: Retries = Retries()
    breaker: Breaker | None = None
    """The circuit breaker; by default there is one if another upstream can take the requests."""
    heartbeat: Seconds = 0
    """Seconds of silence after which the caller of a stream receives a comment line; 0 disables it."""
    ca_file: CaFile | None = None
    """PEM certificates to trust instead of the system's."""
    proxy: ProxyUrl | None = None
    """The HTTP proxy to use; proxies of the environment are ignored."""


class ModelRoute(Section):
    """An upstream for some models, and the name of the model there."""

    match: Name
    """A name, or a pattern with `*`, `?` and `[...]`, matched with case."""
    upstream: RouteTarget
    rename: Name | None = None


class Routes(Section):
    """Which upstream receives a request: that of its model, of its endpoint, or the default.

    If several upstreams are named with weights, requests are distributed by weight.
    """

    default: RouteTarget
    endpoints: Table[str, RouteTarget] = Field(default_factory=dict)
    models: tuple[ModelRoute, ...] = ()
    """The first match applies."""


class KnownModel(Section):
    """A model in the list."""

    id: Name
    owned_by: Name = "llm-token-proxy"
    context_length: Count | None = None
    """Tokens. Clients such as RAGFlow use it."""


class Models(Section):
    """The list of models that callers receive."""

    list: Literal["relayed", "configured", "merged"] = "relayed"
    """The unchanged response of the upstream for `models`; the models in `known`; or the models of all
    upstreams together with `known`."""
    known: tuple[KnownModel, ...] = ()

    @model_validator(mode="after")
    def _has_something_to_list(self) -> Self:
        if self.list == "configured" and not self.known:
            reject("lists nothing: add [[models.known]] with an id", "list")
        if len({model.id for model in self.known}) < len(self.known):
            reject("names a model twice", "known")
        return self


class Limits(Section):
    """Limits on requests and events. Sizes are in bytes."""

    max_body_bytes: Count = 64 * 1024 * 1024
    held_body_bytes: Count = 1024 * 1024
    """A body up to this size is kept, so that the request can be sent again. JSON is always kept."""
    max_event_bytes: Count = 16 * 1024 * 1024
    body_timeout: Seconds = 60
    """The longest pause in seconds while a request body is received; 0 disables it."""
    total_held_bytes: Count = 512 * 1024 * 1024
    """The total of all kept bodies and WebSocket messages; a request that would exceed it is answered 503."""
    held_bytes_per_caller: Count = 256 * 1024 * 1024
    """The same for one caller; a request that would exceed it is answered 429."""
    max_connections: Count = 10_000
    """Concurrent connections of callers; a further one is answered 503. Applied at start only."""
    max_loop_lag: Seconds = 0
    """Above this event-loop lag, new requests of the busiest callers are answered 503; 0 means never."""


class Logs(Section):
    """The level, the format and the contents of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, otherwise JSON."""
    bodies: bool = False
    """Log the bodies of requests and responses. They contain what people write: use it for debugging only."""
    body_bytes: Count = 16 * 1024
    """The number of bytes of a body to log."""


class Traces(Section):
    """Where traces are sent. They need the extra `opentelemetry`."""

    endpoint: EndpointUrl
    """The URL for OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`."""
    headers: Table[HeaderName, HeaderText] = Field(default_factory=dict)
    """Headers of every request to the collector."""
    service: Name = "llm-token-proxy"
    """The name of the service in traces."""
    sample: Share = 1
    """The share of traces that is kept. For traces that begin with a caller, the caller decides."""


class Gateway(Section):
    """The embedded demonstration gateway: an echo model with a token endpoint."""

    token_ttl: PositiveSeconds = 300
    """The lifetime of its tokens in seconds."""
    word_delay: Annotated[Seconds, Field(le=0.5)] = 0.1
    """The pause in seconds between two words of an answer."""
    app_id: Name = "demo"
    app_secret: SecretText = Secret("demo-secret")


class Offload(Section):
    """Let nginx relay simple requests itself, with `config/nginx/offload.conf`."""

    secret: KeyText
    """The secret that nginx presents to get a token: at least 16 characters. Anyone who knows it and the key
    of a caller can read the token."""
    upstreams: tuple[NginxName, ...] = Field(min_length=1)
    """The upstreams that have an `upstream` block of the same name in nginx."""
    cache_seconds: Annotated[int, Field(ge=1, le=60)] = 5
    """How long nginx may use a response, and so how long a removed key may still be accepted."""

    @model_validator(mode="after")
    def _has_a_strong_secret(self) -> Self:
        if len(self.secret.reveal()) < STRONG_KEY_LENGTH:
            reject(f"has fewer than {STRONG_KEY_LENGTH} characters", "secret")
        return self


class Settings(Section):
    """All settings, resolved, validated and immutable."""

    access: Access
    routes: Routes
    upstreams: Table[Name, Upstream]
    credentials: Table[Name, CredentialSettings] = Field(default_factory=dict)
    shared: Shared | None = None
    models: Models = Models()
    cors: Cors | None = None
    limits: Limits = Limits()
    logs: Logs = Logs()
    traces: Traces | None = None
    offload: Offload | None = None
    chat: Chat | None = None
    status: StatusPage | None = None
    gateway: Gateway | None = None

    @model_validator(mode="after")
    def _gives_no_caller_the_key_of_the_status_page(self) -> Self:
        if self.status is not None:
            digest = self.status.key.digest()
            if any(hmac.compare_digest(digest, caller.digest) for caller in self.access.keys):
                reject("is also the key of a caller: the status page needs a key of its own", "status", "key")
        return self


def resolve_embedded(settings: Settings, origin: str) -> Settings:
    """Return the settings with `embedded:` replaced by `origin`, such as `http://127.0.0.1:5003`."""
    upstreams = {
        name: upstream.model_copy(update={"base_url": resolved(upstream.base_url, origin)})
        for name, upstream in settings.upstreams.items()
    }
    credentials = {name: _resolve(credential, origin) for name, credential in settings.credentials.items()}
    return settings.model_copy(update={"upstreams": frozen(upstreams), "credentials": frozen(credentials)})


def _resolve(credential: CredentialSettings, origin: str) -> CredentialSettings:
    if isinstance(credential, HttpCredential):
        return credential.model_copy(update={"url": resolved(credential.url, origin)})
    if isinstance(credential, OAuth2Credential):
        return credential.model_copy(update={"token_url": resolved(credential.token_url, origin)})
    return credential


def resolved(url: str, origin: str) -> str:
    """Replace `embedded:` at the start of a URL by an origin; return other URLs unchanged."""
    return origin.rstrip("/") + url.removeprefix(EMBEDDED) if url.startswith(EMBEDDED) else url

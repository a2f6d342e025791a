"""The checks in their order. A check whose precondition has failed is skipped."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.cli.doctor.api import CHECK_SECONDS, Api
from proxy.cli.doctor.catalogue import CATALOGUE
from proxy.cli.doctor.chat import check_first_piece, check_path, check_stream, check_whole
from proxy.cli.doctor.embeddings import check_embeddings, check_rerank, check_vision
from proxy.cli.doctor.findings import Finding, Level
from proxy.cli.doctor.models import check_models, first_of, kind_of
from proxy.cli.doctor.network import check_network
from proxy.cli.doctor.service import serving, with_tokens
from proxy.cli.doctor.tokens import check_credential, endpoint_of, trust_of
from proxy.cli.trial import dependencies_of, try_redis
from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import build_credentials
from proxy.credentials.token import FetchedToken
from proxy.settings import Settings, Shared, Upstream
from proxy.settings.access import weak_keys
from proxy.settings.section import dotted
from proxy.transport_failure import origin_of
from proxy.upstream.routing import Route, Routing
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS, Endpoint

SERVICE: Final = "service"
"""The subject of findings about this program itself, started for the test."""

Findings = AsyncIterator[Finding]


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What to test.

    Args:
        models: Names of models; what each is for is guessed from its name.
        embedding_model, rerank_model: Models whose names do not show what they are for.
        seconds: The time limit for one request with its response.
        begin: Called with the subject of each check before it starts.
    """

    models: tuple[str, ...] = ()
    embedding_model: str | None = None
    rerank_model: str | None = None
    seconds: float = CHECK_SECONDS
    begin: Callable[[str], None] = lambda _subject: None
    sends_chats: bool = True
    """Whether to send chats; otherwise, only tokens and lists of models are fetched."""

    def first(self, kind: str, listed: Iterable[str] = ()) -> str | None:
        """Return the model to test for a purpose: one of the named ones, or else of the listed ones."""
        named = {"embedding": self.embedding_model, "rerank": self.rerank_model}.get(kind)
        return named or first_of(kind, self.models) or first_of(kind, [*listed])


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether one of the findings is a failure."""
    return any(CATALOGUE[finding.id].level is Level.FAILED for finding in findings)


# --- from outside


async def walk_address(subject: str, section: Upstream, key: str, plan: CheckPlan) -> Findings:
    """Test an OpenAI-compatible API with a key, by RAGFlow's checks in their order."""
    plan.begin("network")
    reached = [finding async for finding in check_network(subject, section.base_url, ca_file=section.ca_file)]
    for finding in reached:
        yield finding
    if has_failed(reached):
        return
    async with Api(subject, section, secrets=[key], seconds=plan.seconds) as api:
        plan.begin("models")
        finding, listed = await check_models(api)
        yield finding
        if has_failed([finding]):
            return
        for named in plan.models:
            if listed and named not in listed:
                yield api.found("model_not_listed", model=named)
        async for finding in _client_checks(api, plan, listed):
            yield finding


async def _client_checks(api: Api, plan: CheckPlan, listed: list[str]) -> Findings:
    """Test what a client needs of an API, in RAGFlow's order: chat, embedding, rerank, vision."""
    model = plan.first("chat", listed)
    if model is None:
        yield await check_path(api)
    else:
        async for finding in _chat_checks(api, model, plan, for_clients=True):
            yield finding
    model = plan.first("embedding", listed)
    if model is None:
        yield api.found("no_embedding_model")
    else:
        plan.begin("embeddings")
        for finding in await check_embeddings(api, model, for_clients=True):
            yield finding
    model = plan.first("rerank", listed)
    if model is not None:
        plan.begin("rerank")
        yield await check_rerank(api, model)
    for model in plan.models:
        if kind_of(model) == "vision":
            plan.begin("vision")
            yield await check_vision(api, model)


async def _chat_checks(api: Api, model: str, plan: CheckPlan, *, for_clients: bool) -> Findings:
    """Test a chat in three ways; a failure of the first would only be repeated by the others."""
    plan.begin("chat")
    first = await check_first_piece(api, model)
    yield first
    if has_failed([first]):
        return
    plan.begin("chat, whole")
    for finding in await check_whole(api, model):
        yield finding
    plan.begin("chat, streamed")
    for finding in await check_stream(api, model, for_clients=for_clients):
        yield finding


# --- from the configuration


@dataclass(frozen=True, slots=True)
class _Routes:
    """The routes to upstreams that have passed their checks."""

    routing: Routing
    usable: set[str]

    def find(self, endpoint: Endpoint, model: str) -> Route | None:
        """Return the first route of a request; None if none of its upstreams is usable."""
        plan = self.routing.plan(endpoint, model)
        return next((route for route in plan if route.upstream in self.usable), None)


class SettingsWalk:
    """Tests everything that the settings refer to, and then the service itself.

    Args:
        settings: The settings, with the address of the demonstration gateway if it is embedded.
        plan: What to test.
    """

    def __init__(self, settings: Settings, plan: CheckPlan) -> None:
        self._settings = settings
        self._plan = plan
        self._reached: set[tuple[str, Path | None, str | None]] = set()
        """Servers that were reached, with the CA file and the forward proxy."""
        self._tried: set[str] = set()
        """Credentials."""
        self._tokens: dict[str, FetchedToken] = {}
        self.listed: dict[str, list[str]] = {}
        """The models of each upstream."""

    async def findings(self) -> Findings:
        """Yield the findings, in the order of the checks."""
        settings = self._settings
        for name in weak_keys(settings.access):
            yield Finding("key_weak", "access.keys", {"name": name})
        if settings.access.mode == "open":
            yield Finding("access_open", "access")
        if settings.shared is not None:
            self._plan.begin("shared")
            yield await check_redis(settings.shared)
        for name in settings.credentials:
            async for finding in self._credential(name):
                yield finding
        async for finding in self._upstreams(with_tokens(settings, self._tokens)):
            yield finding

    async def _network(self, subject: str, url: str, ca_file: Path | None, proxy: str | None) -> Findings:
        """Reach each server once."""
        place = (origin_of(url), ca_file, proxy)
        if place in self._reached:
            return
        works = True
        async for finding in check_network(subject, url, ca_file=ca_file, proxy=proxy):
            works = works and not has_failed([finding])
            yield finding
        if works:
            self._reached.add(place)

    async def _credential(self, name: str) -> Findings:
        """Fetch a token, after those that its request needs, and unless one of them has failed."""
        if name in self._tried:
            return
        self._tried.add(name)
        section = self._settings.credentials[name]
        subject = f"credentials.{dotted((name,))}"
        for needed in dependencies_of(name, self._settings.credentials):
            async for finding in self._credential(needed):
                yield finding
            if needed != name and needed not in self._tokens:
                yield Finding("skipped", subject, {"needed": f"credentials.{dotted((needed,))}"})
                return
        self._plan.begin(subject)
        url = endpoint_of(section)
        # The handshake of mutual TLS is left to the request itself.
        if url is not None and getattr(section, "client_cert", None) is None:
            reached = [finding async for finding in self._network(subject, url, *trust_of(section))]
            for finding in reached:
                yield finding
            if has_failed(reached):
                return
        found, token = await check_credential(self._settings.credentials, name)
        for finding in found:
            yield finding
        if token is not None:
            self._tokens[name] = token

    async def _upstreams(self, settings: Settings) -> Findings:
        """Connect to each upstream, then test its routes."""
        async with contextlib.AsyncExitStack() as stack:
            store = MemoryTokenStore()
            stack.push_async_callback(store.close)
            registry = build_credentials(settings.credentials, store)
            stack.push_async_callback(registry.close)
            apis: dict[str, Api] = {}
            usable: set[str] = set()
            for name, section in settings.upstreams.items():
                subject, needed = f"upstreams.{dotted((name,))}", self._settings.upstreams[name].credential
                credential = registry[needed] if needed and needed in settings.credentials else None
                api = Api(subject, section, credential, secrets=self._secrets, seconds=self._plan.seconds)
                apis[name] = await stack.enter_async_context(api)
                if needed is not None and credential is None:
                    yield Finding("skipped", subject, {"needed": f"credentials.{dotted((needed,))}"})
                    continue
                self._plan.begin(subject)
                found = [finding async for finding in self._upstream(api, section, name)]
                for finding in found:
                    yield finding
                if not has_failed(found):
                    usable.add(name)
            if not self._plan.sends_chats:
                return
            routing = Routing(settings, {name: api.client for name, api in apis.items()})
            async for finding in self._routes(settings, apis, _Routes(routing, usable)):
                yield finding

    @property
    def _secrets(self) -> list[str]:
        return [token.secret.reveal() for token in self._tokens.values()]

    async def _upstream(self, api: Api, section: Upstream, name: str) -> Findings:
        """Connect to an upstream, and read its list of models."""
        network = self._network(api.subject, section.base_url, section.ca_file, section.proxy)
        reached = [finding async for finding in network]
        for finding in reached:
            yield finding
        if not has_failed(reached):
            finding, self.listed[name] = await check_models(api)
            yield finding
            if "1.0" in api.http_versions:  # the service hides this from its callers
                yield api.found("http_1_0")

    async def _routes(self, settings: Settings, apis: dict[str, Api], routes: _Routes) -> Findings:
        """Test chat and embeddings through the service, as a client with a separate key.

        What fails there is tested at the upstream, which shows more. What the upstream does wrong is no
        fault if repairs correct it.
        """
        if not routes.usable:
            yield Finding("skipped", SERVICE, {"needed": "upstreams"})
            return
        listed = [model for models in self.listed.values() for model in models]
        chat = self._plan.first("chat") or _configured_model(settings) or first_of("chat", listed)
        embedding = self._plan.first("embedding", listed)
        async with serving(settings) as section:
            known = [section.headers["authorization"].removeprefix("Bearer "), *self._secrets]
            async with Api(SERVICE, section, secrets=known, seconds=self._plan.seconds) as service:
                if chat is None:
                    yield await self._path(service, apis, routes)
                else:
                    async for finding in self._route(service, apis, routes, CHAT_COMPLETIONS, chat):
                        yield finding
                if embedding is None:
                    yield service.found("no_embedding_model")
                else:
                    async for finding in self._route(service, apis, routes, EMBEDDINGS, embedding):
                        yield finding

    async def _path(self, service: Api, apis: dict[str, Api], routes: _Routes) -> Finding:
        """Test without a model whether there is a chat, and if that fails at the default upstream."""
        found = await check_path(service)
        route = routes.find(CHAT_COMPLETIONS, "model")
        if route is None or not has_failed([found]):
            return found
        direct = await check_path(apis[route.upstream])
        return direct if has_failed([direct]) else found

    async def _route(
        self, service: Api, apis: dict[str, Api], routes: _Routes, endpoint: Endpoint, model: str
    ) -> Findings:
        """Test one endpoint through the service, and if that fails at the upstream."""
        route = routes.find(endpoint, model)
        if route is None:
            yield Finding("skipped", endpoint.name, {"needed": "upstreams"})
            return
        check = self._chat if endpoint is CHAT_COMPLETIONS else self._embeddings
        found = await check(service, model, for_clients=True)
        if has_failed(found):
            direct = await check(apis[route.upstream], route.rename or model, for_clients=False)
            found = direct if has_failed(direct) else found
        for finding in found:
            yield finding

    async def _chat(self, api: Api, model: str, *, for_clients: bool) -> list[Finding]:
        return [finding async for finding in _chat_checks(api, model, self._plan, for_clients=for_clients)]

    async def _embeddings(self, api: Api, model: str, *, for_clients: bool) -> list[Finding]:
        self._plan.begin("embeddings")
        return await check_embeddings(api, model, for_clients=for_clients)


async def check_redis(shared: Shared) -> Finding:
    """Send a PING to Redis."""
    fault = await try_redis(shared)
    if fault is None:
        return Finding("redis_works", "shared")
    return Finding("redis_rejects" if fault.access_denied else "redis_unavailable", "shared", {}, str(fault))


def _configured_model(settings: Settings) -> str | None:
    """Return a chat model that the configuration names."""
    if settings.chat is not None:
        return settings.chat.model
    return first_of("chat", [model.id for model in settings.models.known])

"""Try the parts of a configuration once, as the service would use them: a credential, an upstream, Redis."""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import build_credentials, build_source
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.reply import Reply
from proxy.credentials.sources.request_values import credentials_in
from proxy.credentials.token import FetchedToken
from proxy.errors import ProxyError, SettingsError
from proxy.recipe.outline import outline
from proxy.redis_connection import RedisConnection, StoreUnavailable
from proxy.secret import Secret
from proxy.secret_detection import is_harmless
from proxy.settings import EMBEDDED, CredentialSettings, Settings, Shared
from proxy.settings.interpolation import LateText
from proxy.telemetry import ExchangeRecord
from proxy.transport_failure import explain, origin_of
from proxy.upstream.client import UpstreamClient, wrong_base_url
from proxy.upstream.requests import UpstreamRequest
from proxy.wire.headers import Headers

_SETTINGS_NOT_SENT: Final = frozenset(
    {"source", "token", "token_header", "refresh_in", "sharing", "reissue", "auth"}
)
"""Keys of a credential whose values are never sent."""
REVOKES: Final = "this fetch revokes the token of a running service, which will then fetch a new one"
"""The warning before a credential with `reissue = "revokes_previous"` is tried."""
TIMEOUT_MARGIN_SECONDS: Final = 1.0
"""Most sources have their own timeout, whose error is more specific, so ours expires later."""


@dataclass(frozen=True, slots=True)
class TokenTrial:
    """The result of one fetch: the token or the reason for its failure, and the reply if there is one."""

    requested_at: float
    """Seconds since the epoch."""
    token: FetchedToken | None = None
    reason: str = ""
    reply: Reply | None = None
    error: Exception | None = None
    """The exception, if there is no reply to judge."""


def with_dependencies(settings: Settings, name: str) -> Settings:
    """Return settings with only one credential and those that its request needs.

    The embedded gateway is kept only if one of them uses it.
    """
    names = dependencies_of(name, settings.credentials)
    credentials = {needed: settings.credentials[needed] for needed in names}
    values = [value for section in credentials.values() for _, value in section]
    embedded = any(isinstance(value, str) and value.startswith(EMBEDDED) for value in values)
    gateway = settings.gateway if embedded else None
    return settings.model_copy(update={"credentials": credentials, "gateway": gateway})


def dependencies_of(name: str, sections: Mapping[str, CredentialSettings]) -> list[str]:
    """Return a credential and all those that its request needs, directly or indirectly."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.append(current)
            waiting += credentials_in(dict(sections[current]))
    return found


async def try_credential(sections: Mapping[str, CredentialSettings], name: str) -> TokenTrial:
    """Fetch a credential once, after those that its request needs.

    Raises:
        SettingsError: Its files cannot be used.
    """
    store = MemoryTokenStore()
    needed = {other: sections[other] for other in dependencies_of(name, sections) if other != name}
    others = build_credentials(needed, store)
    requested_at = time.time()
    try:
        source = build_source(sections[name], others)
        try:
            async with asyncio.timeout(sections[name].timeout + TIMEOUT_MARGIN_SECONDS):
                return await _fetch(source, requested_at)
        finally:
            await source.close()
    except SettingsError:
        raise
    except Exception as error:  # A source may raise anything; explain it as the service would.
        return TokenTrial(requested_at, reason=as_fetch_error(error).reason, error=error)
    finally:
        await others.close()
        await store.close()


async def _fetch(source: TokenSource, requested_at: float) -> TokenTrial:
    if not isinstance(source, HttpTokenSource):
        return TokenTrial(requested_at, await source.fetch())
    reply = await source.ask()
    try:
        return TokenTrial(requested_at, source.read(reply), reply=reply)
    except TokenFetchError as error:
        return TokenTrial(requested_at, reason=error.reason, reply=reply)


def repeated_prefix(section: CredentialSettings, token: FetchedToken) -> str:
    """Return the text before the token in the template, without spaces, if the token itself has it too."""
    prefix = section.inject.template.partition("{token}")[0].strip()
    repeats = re.match(rf"{re.escape(prefix)}\s", token.secret.reveal(), re.IGNORECASE)
    return prefix if prefix and repeats else ""


def outline_of(reply: Reply, section: CredentialSettings, token: FetchedToken | None) -> str:
    """Describe a reply: its status, its size, and its body with everything masked that may be a secret."""
    secrets = [*_sent_values(dict(section))]
    headers: dict[str, str] = {}
    if token is not None:
        secret = token.secret.reveal()
        secrets.append(secret)
        headers = {name: value for name, value in reply.headers.items() if value == secret}
    size = len(reply.text.encode())
    shown = outline(reply.body, reply.text, headers, secrets)
    return f"status {reply.status}, {size} bytes; possible secrets are masked\n{shown}"


def _sent_values(value: object, name: str = "") -> Iterator[str]:
    """Yield the values that a section sends and that may be secrets, which an endpoint may repeat."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, LateText):
        yield from (part for part in value.parts if isinstance(part, str))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _sent_values(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sent_values(item, name)
    elif isinstance(value, str) and name and not is_harmless(name, value) and name not in _SETTINGS_NOT_SENT:
        yield value


async def try_redis(shared: Shared) -> StoreUnavailable | None:
    """Send a PING to Redis; return the fault, if there is one."""
    connection = RedisConnection(shared)
    try:
        await connection.run("PING")
    except StoreUnavailable as error:
        return error
    finally:
        await connection.close()
    return None


@dataclass(frozen=True, slots=True)
class UpstreamTrial:
    """Whether an upstream would accept requests, and why."""

    good: bool
    words: str


async def try_upstream(settings: Settings, name: str) -> UpstreamTrial:
    """Request the list of models from an upstream, with a token."""
    section, store = settings.upstreams[name], MemoryTokenStore()
    names = [] if section.credential is None else dependencies_of(section.credential, settings.credentials)
    registry = build_credentials({needed: settings.credentials[needed] for needed in names}, store)
    credential = None if section.credential is None else registry[section.credential]
    request = UpstreamRequest(method="GET", path=b"/models", query=b"", headers=[], body=b"")
    record = ExchangeRecord(request_id="check", method="GET", path="/models")
    try:
        async with (
            UpstreamClient(name, section, credential) as client,
            asyncio.timeout(section.timeouts.first_byte or None),
            contextlib.aclosing(await client.open(request, record)) as response,
        ):
            return _judge(section.base_url, response.status, response.headers)
    except ProxyError as error:
        return UpstreamTrial(good=False, words=error.reason or str(error))
    except TimeoutError as error:
        return UpstreamTrial(good=False, words=str(explain(error, section.base_url, section.proxy)))
    finally:
        await registry.close()
        await store.close()


def _judge(base_url: str, status: int, headers: Headers) -> UpstreamTrial:
    """Judge by the response to the list of models whether other requests would succeed."""
    answered = f"{origin_of(base_url)} answered {status} to GET models"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        rejected = f"{answered}: it rejects our token; check the credential and what it is allowed to do"
        return UpstreamTrial(good=False, words=rejected)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamTrial(good=False, words=f"{answered}: the fault is on the upstream's side")
    hint = wrong_base_url(base_url, status, headers)
    if hint is not None:
        return UpstreamTrial(good=False, words=hint)
    return UpstreamTrial(good=True, words=answered)

"""From the `[credentials]` section to running sources: one builder a kind of section."""

import hashlib
from collections.abc import Mapping

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.refusal import RefusalRules
from proxy.credentials.registry import CredentialRegistry, Others
from proxy.credentials.sharing import Sharing
from proxy.credentials.sharing.fleet import Fleet
from proxy.credentials.sharing.identity import identity_of
from proxy.credentials.sharing.local import LocalSharing
from proxy.credentials.sources import OtherCredentials, TokenSource
from proxy.credentials.sources.azure import AzureTokenSource
from proxy.credentials.sources.bedrock import BedrockTokenSource
from proxy.credentials.sources.exec import ExecTokenSource
from proxy.credentials.sources.file import FileTokenSource
from proxy.credentials.sources.google import GoogleTokenSource
from proxy.credentials.sources.http_recipe import HttpTokenSource, Recipe
from proxy.credentials.sources.jwt import JwtTokenSource
from proxy.credentials.sources.oauth2 import oauth2_recipe
from proxy.credentials.sources.static import static_source
from proxy.credentials.store import MemoryTokenStore
from proxy.credentials.upstream_credential import Injection, UpstreamCredential
from proxy.settings import (
    AzureCredential,
    BedrockCredential,
    Credential,
    ExecCredential,
    FileCredential,
    GoogleCredential,
    HttpCredential,
    JwtCredential,
    OAuth2Credential,
    StaticCredential,
)
from proxy.settings.credentials.http import candidates_of
from proxy.telemetry import TokenStats


def build_credentials(
    sections: Mapping[str, Credential],
    store: MemoryTokenStore,
    fleet: Fleet | None = None,
    before: CredentialRegistry | None = None,
    registry: CredentialRegistry | None = None,
) -> CredentialRegistry:
    """Build every credential of the configuration, but for those that did not change.

    Args:
        sections: By name.
        store: The memory of this process.
        fleet: Of those that share over Redis; without one each is for this process alone.
        before: Those of the configuration before this one.
        registry: To be filled; whoever gives one closes it, also where this fails half-way.

    Raises:
        Exception: the files or the SDK of one cannot be used.
    """
    registry = CredentialRegistry() if registry is None else registry
    for name, section in sections.items():
        # Hashed, since it holds secrets and is kept.
        recipe = (hashlib.sha256(identity_of(name, sections)).hexdigest(), section)
        if before is not None and registry.take_over(name, recipe, before):
            continue
        policy, stats, others = _policy(section), TokenStats(), Others(registry)
        sharing = _sharing(name, sections, f"{name}:{recipe[0]}", store, fleet, policy, stats)
        source = CachedTokenSource(name, build_source(section, others), sharing, policy, stats)
        inject = section.inject
        injection = Injection(header=inject.header, template=inject.template, query=inject.query)
        credential = UpstreamCredential(source, injection, RefusalRules(section.invalidate_on))
        registry.add(name, credential, recipe, others)
    return registry


def _sharing(
    name: str,
    sections: Mapping[str, Credential],
    place: str,
    store: MemoryTokenStore,
    fleet: Fleet | None,
    policy: RefreshPolicy,
    stats: TokenStats,
) -> Sharing:
    section = sections[name]
    if fleet is None or section.sharing == "local":
        return LocalSharing(place, store, policy)
    required = _needs_the_fleet(section)
    return fleet.sharing(identity_of(name, sections), policy, stats, required=required)


def _policy(section: Credential) -> RefreshPolicy:
    # A flight may have to wait for another process's fetch, and then fetch itself.
    flight = section.timeout + 1 if section.sharing == "local" else 2 * section.timeout + 5
    wait = max(2 * section.timeout, flight)
    return RefreshPolicy(
        fetch_timeout=section.timeout,
        flight_timeout=flight,
        wait_timeout=wait,
        exclusive=section.reissue == "revokes_previous",
    )


def _needs_the_fleet(section: Credential) -> bool:
    """Where a new token kills the old, processes that fetch for themselves would take it from each other."""
    return section.sharing == "redis_required" or section.reissue == "revokes_previous"


def build_source(section: Credential, others: OtherCredentials | None = None) -> TokenSource:
    """The token source that a section describes.

    Args:
        section: Of any kind.
        others: Where the tokens come from that its own request holds.
    """
    match section:
        case StaticCredential():
            return static_source(section)
        case FileCredential():
            return FileTokenSource(section)
        case ExecCredential():
            return ExecTokenSource(section)
        case OAuth2Credential():
            return HttpTokenSource(oauth2_recipe(section), others)
        case JwtCredential():
            return JwtTokenSource(section)
        case AzureCredential():
            return AzureTokenSource(section)
        case GoogleCredential():
            return GoogleTokenSource(section)
        case BedrockCredential():
            return BedrockTokenSource(section)
        case HttpCredential():
            return HttpTokenSource(http_recipe(section), others)


def http_recipe(section: HttpCredential) -> Recipe:
    """The recipe as it stands in the configuration."""
    return Recipe(
        url=section.url,
        method=section.method,
        query=section.query,
        headers=section.headers,
        json=section.json_body,
        form=section.form,
        basic=section.basic,
        success=(section.success.path, section.success.equals) if section.success else None,
        token=section.token,
        token_header=section.token_header,
        token_text=section.token_text,
        expires=candidates_of(section.expires),
        refresh_in=section.refresh_in,
        default_ttl=section.default_ttl,
        max_ttl=section.max_ttl,
        timeout=section.timeout,
        connect_timeout=section.connect_timeout,
        ca_file=section.ca_file,
        client_cert=section.client_cert,
        client_key=section.client_key,
        proxy=section.proxy,
    )

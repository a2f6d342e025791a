"""Build the credentials of a configuration, and keep those that did not change across a reload."""

import hashlib
import ssl
from collections.abc import Mapping

import msgspec

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.rejections import Purpose
from proxy.credentials.sharing import Sharing
from proxy.credentials.sharing.fleet import Fleet
from proxy.credentials.sharing.host import TokenFolder
from proxy.credentials.sharing.local import LocalSharing, MemoryTokenStore
from proxy.credentials.sharing.record import identity_of
from proxy.credentials.sources import OtherCredentials, TokenSource
from proxy.credentials.sources.cloud import START_SECONDS_MAX, CloudCredential, CloudTokenSource
from proxy.credentials.sources.exec import ExecTokenSource
from proxy.credentials.sources.http import HttpTokenSource, tls_needs
from proxy.credentials.sources.local import FileTokenSource, static_source
from proxy.credentials.sources.oauth2 import oauth2_recipe
from proxy.credentials.token import digest_of
from proxy.credentials.upstream_credential import RejectionRules, TokenUse, UpstreamCredential
from proxy.secret import Secret
from proxy.settings import (
    AzureCredential,
    BedrockCredential,
    CredentialSettings,
    ExecCredential,
    FileCredential,
    GoogleCredential,
    HttpCredential,
    JwtCredential,
    OAuth2Credential,
    StaticCredential,
)
from proxy.telemetry import TokenReading, TokenStats
from proxy.tls_contexts import TlsFiles
from proxy.transport_failure import origin_of


class LiveTokens:
    """Gives a token source access to the tokens of other credentials, which its request contains."""

    def __init__(self, registry: "CredentialRegistry") -> None:
        self.registry = registry
        """The current registry; a reload replaces it."""

    def use(self, name: str, url: str) -> TokenUse:
        """Begin to use a token for a request to the token endpoint at a URL."""
        return self.registry.use(name, url)


class _Entry(msgspec.Struct):
    """A credential, and the number of registries that contain it."""

    credential: UpstreamCredential
    recipe: object
    """Equal for credentials that are built in the same way."""
    tokens: LiveTokens
    registries: int = 1


class CredentialRegistry:
    """The credentials of a configuration by name. Two registries may share a credential during a reload."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def add(
        self,
        name: str,
        credential: UpstreamCredential,
        recipe: object = None,
        tokens: LiveTokens | None = None,
    ) -> None:
        """Add a new credential, and make its token available to other credentials."""
        self._entries[name] = _Entry(credential, recipe, tokens or LiveTokens(self))

    def share(self, name: str, recipe: object, before: "CredentialRegistry") -> bool:
        """Share the credential, and its token, of an earlier registry if the recipe is the same.

        Returns:
            Whether there is such a credential.
        """
        entry = before._entries.get(name)
        if entry is None or entry.recipe != recipe:
            return False
        entry.registries += 1
        self._entries[name] = entry
        return True

    def take_charge(self) -> None:
        """Make shared credentials use the tokens of this registry from now on."""
        for entry in self._entries.values():
            entry.tokens.registry = self

    def __getitem__(self, name: str) -> UpstreamCredential:
        return self._entries[name].credential

    def use(self, name: str, url: str) -> TokenUse:
        """Begin to use a token for a request to a token endpoint.

        Its purpose, which is logged, tells two URLs apart but contains neither, because a URL may be secret.
        """
        endpoint = f"{origin_of(url)} {digest_of(Secret(url)).hex()[:8]}"
        return TokenUse(self[name].source, f"credentials of {endpoint}", Purpose.of("POST", endpoint, None))

    def readings(self) -> list[TokenReading]:
        """Return the current state of each credential."""
        return [entry.credential.source.reading() for entry in self._entries.values()]

    def prefetch(self) -> None:
        """Start to fetch the tokens that are missing, without waiting for them."""
        for entry in self._entries.values():
            if entry.credential.source.remaining is None:
                entry.credential.source.prefetch()

    async def close(self) -> None:
        """Close all credentials that no other registry shares."""
        entries, self._entries = [*self._entries.values()], {}
        for entry in entries:
            entry.registries -= 1
            if not entry.registries:
                await entry.credential.source.close()


def build_credentials(
    sections: Mapping[str, CredentialSettings],
    store: MemoryTokenStore,
    fleet: Fleet | None = None,
    before: CredentialRegistry | None = None,
    registry: CredentialRegistry | None = None,
    token_folder: TokenFolder | None = None,
    contexts: Mapping[TlsFiles, ssl.SSLContext] | None = None,
) -> CredentialRegistry:
    """Build every credential of the configuration that has changed.

    Args:
        sections: The sections by name.
        store: The memory of this process.
        fleet: The store for credentials that are shared over Redis; without it, each is used by this process
            alone.
        before: The credentials of the previous configuration.
        registry: The registry to fill. The caller closes it, even if this function fails half-way.
        token_folder: Where the workers of the service share tokens, if there are several.
        contexts: The TLS contexts of `tls_files`. A credential whose context is another one has changed.

    Raises:
        Exception: The files or the SDK of a credential cannot be used.
    """
    registry = CredentialRegistry() if registry is None else registry
    for name, section in sections.items():
        identity = identity_of(name, sections)
        digest = hashlib.sha256(identity).hexdigest()  # the identity contains secrets
        recipe = (digest, section, [(contexts or {}).get(files) for files in tls_files(section)])
        if before is not None and registry.share(name, recipe, before):
            continue
        policy, stats, tokens = _policy(section), TokenStats(), LiveTokens(registry)
        sharing: Sharing
        if fleet is None or section.sharing == "local":
            if isinstance(section, StaticCredential | FileCredential | JwtCredential):
                # Nobody else issues the token, and files with the same content may differ later.
                sharing = LocalSharing(f"{name}:{digest}", store, policy, stats)
            elif token_folder is None:
                sharing = LocalSharing(digest, store, policy, stats)
            else:
                sharing = token_folder.sharing(identity, policy, stats)
        else:
            # If a new token revokes the previous one, processes must not fetch independently.
            required = section.sharing == "redis_required" or policy.exclusive
            sharing = fleet.sharing(identity, policy, stats, required=required)
        source = CachedTokenSource(name, build_source(section, tokens, contexts), sharing, policy, stats)
        credential = UpstreamCredential(source, section.inject, RejectionRules(section.invalidate_on))
        registry.add(name, credential, recipe, tokens)
    return registry


def _policy(section: CredentialSettings) -> RefreshPolicy:
    fetch = section.timeout
    if isinstance(section, CloudCredential):
        fetch += START_SECONDS_MAX
    # A flight may have to wait for the fetch of another credential or process, and then fetch itself.
    flight = 2 * fetch + 5
    return RefreshPolicy(
        fetch_timeout=fetch,
        flight_timeout=flight,
        wait_timeout=flight,
        exclusive=section.reissue == "revokes_previous",
    )


def tls_files(section: CredentialSettings) -> list[TlsFiles]:
    """Return the files of the TLS contexts that the source of a section needs."""
    if isinstance(section, OAuth2Credential):
        return tls_needs(section, section.token_url)
    return tls_needs(section, section.url) if isinstance(section, HttpCredential) else []


def build_source(
    section: CredentialSettings,
    others: OtherCredentials | None = None,
    contexts: Mapping[TlsFiles, ssl.SSLContext] | None = None,
) -> TokenSource:
    """Build the token source of a section.

    Args:
        section: A section of any source.
        others: The tokens that its request may contain.
        contexts: TLS contexts; those of `tls_files` that are missing are built.
    """
    match section:
        case StaticCredential():
            return static_source(section)
        case FileCredential():
            return FileTokenSource(section)
        case ExecCredential():
            return ExecTokenSource(section)
        case OAuth2Credential():
            return HttpTokenSource(oauth2_recipe(section), others, contexts)
        case JwtCredential():  # Signing takes 9 MB, so import it only where something is signed.
            from proxy.credentials.sources.jwt import JwtTokenSource

            return JwtTokenSource(section)
        case AzureCredential() | GoogleCredential() | BedrockCredential():
            return CloudTokenSource(section)
        case HttpCredential():
            return HttpTokenSource(section, others, contexts)

"""From the `[credentials]` section to running sources."""

from collections.abc import Mapping
from urllib.parse import quote_plus

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sources import TokenSource
from proxy.credentials.sources.http_recipe import HttpTokenSource, Recipe
from proxy.credentials.sources.static import StaticTokenSource
from proxy.credentials.store import TokenStore
from proxy.credentials.upstream_credential import CredentialRegistry, Injection, UpstreamCredential
from proxy.secret import Secret
from proxy.settings import Credential, HttpCredential, OAuth2Credential, StaticCredential
from proxy.settings.interpolation import Interpolated


def build_credentials(sections: Mapping[str, Credential], store: TokenStore) -> CredentialRegistry:
    """Build every credential of the configuration."""
    return CredentialRegistry({name: _build(name, section, store) for name, section in sections.items()})


def _build(name: str, section: Credential, store: TokenStore) -> UpstreamCredential:
    source = build_source(section)
    policy = RefreshPolicy(fetch_timeout=section.timeout, wait_timeout=2 * section.timeout)
    inject = section.inject
    return UpstreamCredential(
        CachedTokenSource(name, source, store, policy),
        Injection(header=inject.header, template=inject.template, query=inject.query),
    )


def build_source(section: Credential) -> TokenSource:
    """The token source that a section describes."""
    if isinstance(section, StaticCredential):
        return StaticTokenSource(section.value)
    if isinstance(section, OAuth2Credential):
        return HttpTokenSource(oauth2_recipe(section))
    return HttpTokenSource(http_recipe(section))


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
        expires=tuple((candidate.path, candidate.unit) for candidate in section.expires),
        default_ttl=section.default_ttl,
        max_ttl=section.max_ttl,
        timeout=section.timeout,
        ca_file=section.ca_file,
    )


def oauth2_recipe(section: OAuth2Credential) -> Recipe:
    """OAuth 2.0 client credentials (RFC 6749 4.4) as a recipe."""
    form: dict[str, str | Secret] = {"grant_type": "client_credentials"}
    for key, value in section.params.items():
        form[key] = Secret(value) if isinstance(value, Interpolated) else value
    if section.scope:
        form["scope"] = section.scope
    if section.audience:
        form["audience"] = section.audience
    basic = None
    if section.auth == "basic":
        # RFC 6749 2.3.1: both halves are form-encoded before they are joined and put into base64.
        basic = (quote_plus(section.client_id), Secret(quote_plus(section.client_secret.reveal())))
    else:
        form |= {"client_id": section.client_id, "client_secret": section.client_secret}
    return Recipe(
        url=section.token_url,
        form=form,
        basic=basic,
        token="access_token",  # noqa: S106 - a path in the reply
        expires=(("expires_in", "seconds"),),
        refresh_in="refresh_in",
        default_ttl=section.default_ttl,
        timeout=section.timeout,
        ca_file=section.ca_file,
    )

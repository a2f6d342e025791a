"""OAuth 2.0 token endpoints as recipes of the HTTP source: each grant is one form."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

from proxy.credentials.sources.assertion import Assertion, client_assertion, grant_assertion
from proxy.credentials.sources.http_recipe import Recipe
from proxy.secret import Secret
from proxy.settings import OAuth2Credential
from proxy.settings.interpolation import LateText

Form = Mapping[str, str | Secret | LateText | Assertion | None]

CLIENT_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def oauth2_recipe(section: OAuth2Credential) -> Recipe:
    """The form of the grant, and the client's authentication in it or beside it."""
    form = {
        **_grant(section),
        "scope": section.scope,
        "audience": section.audience,
        "resource": section.resource,
        **_client(section),
        **section.params,
    }
    return Recipe(
        url=section.token_url,
        form={name: value for name, value in form.items() if value is not None},
        basic=_basic(section),
        token="access_token",  # noqa: S106 - a path in the reply
        expires=(("expires_in", "seconds"),),
        refresh_in="refresh_in",
        default_ttl=section.default_ttl,
        timeout=section.timeout,
        connect_timeout=section.connect_timeout,
        ca_file=section.ca_file,
        client_cert=section.client_cert,
        client_key=section.client_key,
        proxy=section.proxy,
    )


def _grant(section: OAuth2Credential) -> Form:
    match section.grant:
        case "client_credentials":  # RFC 6749 4.4.2
            return {"grant_type": "client_credentials"}
        case "password":  # RFC 6749 4.3.2
            return {
                "grant_type": "password",
                "username": section.username,
                "password": section.password,
            }
        case "jwt_bearer":  # RFC 7523 2.1
            return {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": grant_assertion(section),
            }
        case "token_exchange":  # RFC 8693 2.1
            return {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": section.subject_token,
                "subject_token_type": section.subject_token_type,
                "actor_token": section.actor_token,
                "actor_token_type": None if section.actor_token is None else section.actor_token_type,
                "requested_token_type": section.requested_token_type,
            }


def _client(section: OAuth2Credential) -> Form:
    match section.auth:
        case "basic":
            return {}
        case "none":
            return {"client_id": section.client_id}
        case "post":  # RFC 6749 2.3.1
            return {"client_id": section.client_id, "client_secret": section.client_secret}
        case "client_secret_jwt" | "private_key_jwt":  # RFC 7521 4.2
            return {
                "client_id": section.client_id,
                "client_assertion_type": CLIENT_ASSERTION_TYPE,
                "client_assertion": client_assertion(section),
            }


def _basic(section: OAuth2Credential) -> tuple[str, Secret] | None:
    if section.auth != "basic" or section.client_id is None or section.client_secret is None:
        return None
    # RFC 6749 2.3.1: both halves are form-encoded before they are joined and put into base64.
    return quote_plus(section.client_id), Secret(quote_plus(section.client_secret.reveal()))

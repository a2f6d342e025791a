"""OAuth 2.0 token endpoints as HTTP sections: each grant is a form, and may contain a signed assertion."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus
from uuid import uuid4

from proxy.credentials.sources.request_values import Moment
from proxy.secret import Secret
from proxy.settings import Expiry, HttpCredential, OAuth2Credential
from proxy.settings.credentials.section import RequestSection
from proxy.settings.interpolation import LateText


class Assertion:
    """A short-lived JWT that is signed for each request.

    Args:
        section: The key, the algorithm and the claims.
        of_client: Whether it authenticates the client (RFC 7523 2.2, OpenID Connect Core 9). Otherwise it is
            exchanged for a token (RFC 7523 2.1).
    """

    def __init__(self, section: OAuth2Credential, *, of_client: bool) -> None:
        # Imported here because most clients have a plain secret, and signing takes 9 MB.
        from proxy.credentials.sources.jwt import Signer

        self._section = section
        self._of_client = of_client
        is_shared = of_client and section.auth == "client_secret_jwt"
        key = section.client_secret if is_shared else section.private_key
        self._signer = Signer(key or Secret(""), section.signing_algorithm)
        self._header = {} if section.key_id is None else {"kid": section.key_id}
        if section.certificate is not None and section.private_key is not None:
            from proxy.settings.credentials.private_keys import thumbprint

            algorithm = section.signing_algorithm
            self._header["x5t#S256"] = thumbprint(section.certificate, section.private_key, algorithm)

    def make(self, moment: Moment) -> str:
        """Sign an assertion that is valid from this moment."""
        section, issued = self._section, int(moment.now)
        claims = {
            "iss": section.client_id if self._of_client else section.issuer or section.client_id,
            "aud": section.assertion_audience or section.token_url,
            "iat": issued,
            "exp": issued + section.assertion_ttl,
            "jti": str(uuid4()),  # prevents replay (RFC 7523 3)
        }
        subject = section.client_id if self._of_client else section.subject
        if subject:
            claims["sub"] = subject
        more = {} if self._of_client else moment.fill_members(section.claims)
        return self._signer.sign({**claims, **more}, self._header)


FormFields = Mapping[str, str | Secret | LateText | Assertion | None]

CLIENT_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def oauth2_recipe(section: OAuth2Credential) -> HttpCredential:
    """Build the section of the HTTP source for a grant and the client's authentication."""
    form = {
        **_grant(section),
        "scope": section.scope,
        "audience": section.audience,
        "resource": section.resource,
        **_client(section),
        **section.params,
    }
    given = {name: value for name, value in form.items() if value is not None}
    common = {name: getattr(section, name) for name in RequestSection.model_fields if name != "source"}
    return HttpCredential.model_construct(
        **common,
        source="http",
        url=section.token_url,
        form=given,  # type: ignore[arg-type]  # unlike a form in a file, it may hold assertions
        basic=_basic(section),
        token="access_token",  # noqa: S106 - a path in the reply
        expires=(Expiry.model_construct(path="expires_in", unit="seconds"),),
        refresh_in="refresh_in",
    )


def _grant(section: OAuth2Credential) -> FormFields:
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
                "assertion": Assertion(section, of_client=False),
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


def _client(section: OAuth2Credential) -> FormFields:
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
                "client_assertion": Assertion(section, of_client=True),
            }


def _basic(section: OAuth2Credential) -> tuple[str, Secret] | None:
    if section.auth != "basic" or section.client_id is None or section.client_secret is None:
        return None
    # Both halves are form-encoded first (RFC 6749 2.3.1).
    return quote_plus(section.client_id), Secret(quote_plus(section.client_secret.reveal()))

"""Assertions of RFC 7523: short-lived JWTs, signed anew for each request for a token."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from proxy.credentials.sources.request_values import Moment
from proxy.credentials.sources.signature import Signer
from proxy.secret import Secret
from proxy.settings import Json, OAuth2Credential
from proxy.settings.credentials.jwt import thumbprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A statement about who asks, or for whom; no two requests carry the same one.

    Args:
        signer: What signs it.
        header: The JOSE header beside `typ` and `alg`.
        issuer: Claim `iss`.
        subject: Claim `sub`, where it has one.
        audience: Claim `aud`.
        ttl: Seconds between `iat` and `exp`.
        claims: More claims.
    """

    signer: Signer = field(repr=False)
    header: Mapping[str, str]
    issuer: str
    subject: str | None
    audience: str
    ttl: int
    claims: Mapping[str, Json] = field(default_factory=dict)

    def make(self, moment: Moment) -> str:
        """Sign one that begins at this moment."""
        issued = int(moment.now)
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": issued,
            "exp": issued + self.ttl,
            "jti": str(uuid4()),  # or whoever sees one could send it again (RFC 7523 3)
        }
        if self.subject:
            claims["sub"] = self.subject
        return self.signer.sign({**claims, **moment.fill_json(self.claims)}, self.header)


def client_assertion(section: OAuth2Credential) -> Assertion:
    """Build what the client sends in place of its secret: RFC 7523 2.2, OpenID Connect Core 9."""
    client = section.client_id or ""
    is_shared = section.auth == "client_secret_jwt"
    return Assertion(
        signer=_signer(section, section.client_secret if is_shared else section.private_key),
        header=_header(section),
        issuer=client,
        subject=client,
        audience=section.assertion_audience or section.token_url,
        ttl=section.assertion_ttl,
    )


def grant_assertion(section: OAuth2Credential) -> Assertion:
    """Build what is exchanged for a token: RFC 7523 2.1."""
    return Assertion(
        signer=_signer(section, section.private_key),
        header=_header(section),
        issuer=section.issuer or section.client_id or "",
        subject=section.subject,
        audience=section.assertion_audience or section.token_url,
        ttl=section.assertion_ttl,
        claims=section.claims,
    )


def _signer(section: OAuth2Credential, key: Secret | None) -> Signer:
    return Signer(key or Secret(""), section.signing_algorithm)


def _header(section: OAuth2Credential) -> Mapping[str, str]:
    header = {}
    if section.key_id is not None:
        header["kid"] = section.key_id
    if section.certificate is not None and section.private_key is not None:
        header["x5t#S256"] = thumbprint(section.certificate, section.private_key, section.signing_algorithm)
    return header

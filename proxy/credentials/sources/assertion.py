"""Assertions of RFC 7523: short-lived JWTs, signed anew for each request for a token."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authlib.oauth2.rfc7523.assertion import (  # type: ignore[import-untyped]
    sign_jwt_bearer_assertion,
)
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc.jwk import ECKey, OctKey, RSAKey

from proxy.credentials.sources.request_values import Moment
from proxy.secret import Secret
from proxy.settings import Json, OAuth2Credential
from proxy.settings.credentials.signing import load_private_key, thumbprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A statement about who asks, or for whom; no two requests carry the same one.

    Args:
        key: What signs it.
        header: The JOSE header, `alg` included.
        issuer: Claim `iss`.
        subject: Claim `sub`, where it has one.
        audience: Claim `aud`.
        ttl: Seconds between `iat` and `exp`.
        claims: More claims.
    """

    key: RSAKey | ECKey | OctKey = field(repr=False)
    header: Mapping[str, str]
    issuer: str
    subject: str | None
    audience: str
    ttl: int
    claims: Mapping[str, Json] = field(default_factory=dict)

    def make(self, moment: Moment) -> str:
        """Sign one that begins at this moment."""
        issued = int(moment.now)
        # The library writes into both tables, among others the id that must not come twice: give it copies.
        signed: str = sign_jwt_bearer_assertion(
            self.key,
            self.issuer,
            self.audience,
            self.subject,
            issued_at=issued,
            expires_at=issued + self.ttl,
            claims=moment.fill_json(self.claims),
            header={**self.header},
        )
        return signed


def client_assertion(section: OAuth2Credential) -> Assertion:
    """What the client shows in place of its secret: RFC 7523 2.2, OpenID Connect Core 9."""
    client = section.client_id or ""
    key = _shared_key(section.client_secret) if section.auth == "client_secret_jwt" else _own_key(section)
    return Assertion(
        key=key,
        header=_header(section),
        issuer=client,
        subject=client,
        audience=section.assertion_audience or section.token_url,
        ttl=section.assertion_ttl,
    )


def grant_assertion(section: OAuth2Credential) -> Assertion:
    """What is exchanged for a token: RFC 7523 2.1."""
    return Assertion(
        key=_own_key(section),
        header=_header(section),
        issuer=section.issuer or section.client_id or "",
        subject=section.subject,
        audience=section.assertion_audience or section.token_url,
        ttl=section.assertion_ttl,
        claims=section.claims,
    )


def _shared_key(secret: Secret | None) -> OctKey:
    # Not by `import_key`, which warns of short secrets: how long one is, the issuer decided.
    raw = (secret or Secret("")).reveal().encode()
    return OctKey(raw, raw)


def _own_key(section: OAuth2Credential) -> RSAKey | ECKey:
    key = load_private_key(section.private_key or Secret(""), section.signing_algorithm)
    if isinstance(key, RSAPrivateKey):
        return RSAKey(key, key)
    if isinstance(key, EllipticCurvePrivateKey):
        return ECKey(key, key)
    raise TypeError("only RSA and EC keys sign assertions")


def _header(section: OAuth2Credential) -> Mapping[str, str]:
    header = {"alg": section.signing_algorithm}
    if section.key_id is not None:
        header["kid"] = section.key_id
    if section.certificate is not None and section.private_key is not None:
        header["x5t#S256"] = thumbprint(section.certificate, section.private_key, header["alg"])
    return header

"""`source = "jwt"`: a token that the proxy signs itself (RFC 7519). Keys and claims of all signed JWTs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from proxy.secret import Secret
from proxy.settings.credentials.section import CredentialSection
from proxy.settings.fields import Count, Name, SecretText
from proxy.settings.interpolation import late_texts
from proxy.settings.recipe_values import Json, json_value
from proxy.settings.section import Checked, Problem, reject, reject_all

PEM: Final = "-----BEGIN "
"""How a key in PEM form begins (RFC 7468)."""


def is_symmetric(algorithm: str) -> bool:
    """Whether a JWS algorithm (RFC 7518 3.1) signs with a shared secret."""
    return algorithm.startswith("HS")


def key_problems(name: str, key: Secret, algorithm: str) -> Iterator[Problem]:
    """Explain why an algorithm cannot sign with the key that is set under a name."""
    if is_symmetric(algorithm):
        if key.reveal().lstrip().startswith(PEM):
            yield Problem((name,), f"is a PEM, but {algorithm} signs with a shared secret")
        return
    # Imported here because cryptography takes 7 MB, and most configurations have no private key.
    from proxy.settings.credentials.private_keys import load_private_key

    try:
        load_private_key(key, algorithm)
    except ValueError as error:
        yield Problem((name,), str(error))


def claim_problems(
    table: str, claims: Mapping[str, Json], reserved: Iterable[tuple[str, str]]
) -> Iterator[Problem]:
    """Find claims that the proxy writes itself; `reserved` pairs each with the key that sets it."""
    for claim, key in reserved:
        if claim in claims:
            yield Problem((table, claim), f"is set by {key}")


def json_table(value: object) -> Json:
    """Freeze a JSON object; strings from the environment or from files become secrets."""
    if not isinstance(value, Mapping):
        reject("must be a table")
    return json_value(value)


class JwtCredential(CredentialSection):
    """A key, and the headers and claims of the tokens that it signs."""

    source: Literal["jwt"]
    algorithm: Literal[
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"
    ] = "HS256"
    key: SecretText
    """The secret itself, or a private key in PEM form."""
    key_id: Name | None = None
    """The header `kid`, by which the gateway chooses the key for verification."""
    headers: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    """More JOSE headers. An empty `typ` removes that header, which is otherwise `JWT`."""
    claims: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    ttl: Count = 300
    """The lifetime of a token in seconds."""
    unit: Literal["seconds", "milliseconds"] = "seconds"
    """The unit of the two times below, which count from 1970."""
    issued_claim: str = "iat"
    """The claim for the time of issue; empty for none."""
    expiry_claim: str = "exp"
    """The claim for the expiry; empty for none."""
    jti: bool = False
    """Give each token an id, in the claim `jti`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reject_all(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        written = [(self.issued_claim, "issued_claim"), (self.expiry_claim, "expiry_claim")]
        if self.jti:
            written.append(("jti", "jti"))
        yield from key_problems("key", self.key, self.algorithm)
        yield from claim_problems("claims", self.claims, written)
        yield from claim_problems("headers", self.headers, [("alg", "algorithm"), ("kid", "key_id")])
        for name, value in self.headers.items():
            if name in {"b64", "crit"}:  # these change the signed bytes (RFC 7797)
                yield Problem(("headers", name), "is not supported")
            elif name == "typ" and not isinstance(value, str):
                yield Problem(("headers", name), "must be a string that is not a secret")
            for path, _ in late_texts(value, ("headers", name)):
                yield Problem(path, "cannot contain a reference that is resolved with each request")
        if self.issued_claim and self.issued_claim == self.expiry_claim:
            yield Problem(("expiry_claim",), "is the same as issued_claim")
        if "default_ttl" in self.model_fields_set:
            yield Problem(("default_ttl",), "has no effect here: ttl is the lifetime of the token")

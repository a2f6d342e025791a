"""`source = "jwt"`: a token that we sign ourselves, for gateways that know our key (RFC 7519)."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.credentials.section import CredentialSection
from proxy.settings.credentials.signing import claim_problems, json_table, key_problems
from proxy.settings.fields import Count, Name, SecretText
from proxy.settings.interpolation import LateText
from proxy.settings.problems import Problem
from proxy.settings.recipe_values import Json
from proxy.settings.section import Checked, refuse_all


class JwtCredential(CredentialSection):
    """A key, and what the tokens say that are signed with it."""

    source: Literal["jwt"]
    algorithm: Literal[
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"
    ] = "HS256"
    key: SecretText
    """The secret itself, or a private key in PEM form."""
    key_id: Name | None = None
    """Tells the gateway which key it is: the header `kid`."""
    headers: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    """More JOSE headers. An empty `typ` leaves that one out, which else is `JWT`."""
    claims: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    ttl: Count = 300
    """Seconds that a token lives."""
    unit: Literal["seconds", "milliseconds"] = "seconds"
    """In which the two times below are written, since 1970."""
    issued_claim: str = "iat"
    """Holds when the token was made; empty: none does."""
    expiry_claim: str = "exp"
    """Holds when it ends; empty: none does."""
    jti: bool = False
    """Give each token an id of its own, in the claim `jti`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = [
            *key_problems("key", self.key, self.algorithm),
            *claim_problems("claims", self.claims, self._written_claims()),
            *claim_problems("headers", self.headers, [("alg", "algorithm"), ("kid", "key_id")]),
            *self._unfit_headers(),
        ]
        if self.issued_claim and self.issued_claim == self.expiry_claim:
            problems.append(Problem(("expiry_claim",), "is the same as issued_claim"))
        if "default_ttl" in self.model_fields_set:
            problems.append(Problem(("default_ttl",), "has no meaning here: ttl is the token's life"))
        if problems:
            refuse_all(problems)
        return self

    def _written_claims(self) -> Iterator[tuple[str, str]]:
        yield self.issued_claim, "issued_claim"
        yield self.expiry_claim, "expiry_claim"
        if self.jti:
            yield "jti", "jti"

    def _unfit_headers(self) -> Iterator[Problem]:
        for name, value in self.headers.items():
            if name in {"b64", "crit"}:  # RFC 7797 and the like change what is signed
                yield Problem(("headers", name), "is not supported")
            elif name == "typ" and not isinstance(value, str):
                yield Problem(("headers", name), "must be a string that is no secret")
            for path in _late(value, ("headers", name)):
                yield Problem(path, "cannot hold what has a value only when a token is asked for")


def _late(value: Json, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, LateText):
        yield path
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _late(item, (*path, index))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _late(item, (*path, key))

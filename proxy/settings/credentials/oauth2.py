"""`source = "oauth2"`: OAuth 2.0 token endpoints, with every grant that needs no user interaction."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.credentials.jwt import claim_problems, json_table, key_problems
from proxy.settings.credentials.section import RequestSection
from proxy.settings.fields import Count, EndpointUrl, Name, PlainText, SecretText
from proxy.settings.recipe_values import Json, SecretOrLate, Text
from proxy.settings.section import Checked, Choice, Problem, Table, problems_of_choices, reject_all

JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"

_SECRET: Final = ("client_id", "client_secret")
_ASSERTION: Final = ("key_id", "algorithm", "assertion_audience", "assertion_ttl")
_EXCHANGE: Final = ("subject_token_type", "actor_token", "actor_token_type", "requested_token_type")
_CHOICES: Final = (
    Choice("auth", "basic", _SECRET),
    Choice("auth", "post", _SECRET),
    Choice("auth", "private_key_jwt", ("client_id", "private_key"), ("certificate", *_ASSERTION)),
    Choice("auth", "client_secret_jwt", _SECRET, _ASSERTION),
    Choice("grant", "client_credentials", ("client_id",)),
    Choice("grant", "password", ("client_id", "username", "password")),
    Choice(
        "grant",
        "jwt_bearer",
        ("private_key",),
        ("client_id", "certificate", *_ASSERTION, "issuer", "subject", "claims"),
    ),
    Choice("grant", "token_exchange", ("subject_token",), ("client_id", *_EXCHANGE)),
)
_RESERVED_CLAIMS: Final = (
    ("iss", "issuer"),
    ("sub", "subject"),
    ("aud", "assertion_audience"),
    ("exp", "assertion_ttl"),
    ("iat", "assertion_ttl"),
    ("jti", "the proxy, differently for each request"),
)


class OAuth2Credential(RequestSection):
    """A client, how it authenticates, and the grant that it uses."""

    source: Literal["oauth2"]
    token_url: EndpointUrl
    grant: Literal["client_credentials", "password", "jwt_bearer", "token_exchange"] = "client_credentials"
    """RFC 6749 4.4 and 4.3, RFC 7523 2.1, RFC 8693."""
    auth: Literal["basic", "post", "client_secret_jwt", "private_key_jwt", "none"] = "basic"
    """Id and secret in the Authorization header or in the form, a signed assertion, or no authentication."""
    client_id: Name | None = None
    client_secret: SecretText | None = None
    scope: str | None = None
    audience: str | None = None
    resource: str | None = None
    """RFC 8707 and 8693: the URI of the service that the token is for."""
    params: Table[str, Text] = Field(default_factory=dict)
    """More fields of the form. They override the fields that the other keys set."""
    username: Name | None = None
    password: SecretText | None = None

    private_key: SecretText | None = None
    """PEM; signs the assertion of the grant (jwt_bearer), of the client (private_key_jwt), or both."""
    key_id: Name | None = None
    """The header `kid`, by which the issuer chooses the key for verification."""
    certificate: PlainText | None = None
    """PEM; its SHA-256 becomes the header `x5t#S256`."""
    algorithm: (
        Literal[
            "HS256", "HS384", "HS512", "RS256", "RS384", "RS512",
            "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
        ]
        | None
    ) = None  # fmt: skip
    """The algorithm; by default RS256, and HS256 with client_secret_jwt."""
    assertion_audience: str | None = None
    """The `aud` of assertions; by default the token_url."""
    assertion_ttl: Count = 60
    """The lifetime of an assertion in seconds."""
    issuer: Name | None = None
    """The `iss` of the jwt_bearer assertion; by default the client_id."""
    subject: Name | None = None
    """Its `sub`, the user whom the token is for; by default it has none."""
    claims: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    """More claims of that assertion."""

    subject_token: SecretOrLate | None = None
    """The token to exchange."""
    subject_token_type: str = JWT_TYPE
    actor_token: SecretOrLate | None = None
    """The token of the party that acts for the subject."""
    actor_token_type: str = JWT_TYPE
    requested_token_type: str | None = None

    @property
    def signs(self) -> bool:
        """Whether the private key signs anything."""
        return self.auth == "private_key_jwt" or self.grant == "jwt_bearer"

    @property
    def signing_algorithm(self) -> str:
        """The algorithm of the assertions."""
        return self.algorithm or ("HS256" if self.auth == "client_secret_jwt" else "RS256")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reject_all([*self._problems()])
        return self

    def _problems(self) -> Iterator[Problem]:
        problems = [*problems_of_choices(self, _CHOICES)]
        yield from problems
        if "actor_token_type" in self.model_fields_set and self.actor_token is None:
            yield Problem(("actor_token_type",), "requires actor_token as well")
        if self.grant == "jwt_bearer" and not (self.issuer or self.client_id or problems):
            yield Problem(("issuer",), "is required if there is no client_id")
        yield from self._key_problems()
        yield from claim_problems("claims", self.claims, _RESERVED_CLAIMS)

    def _key_problems(self) -> Iterator[Problem]:
        algorithm = self.signing_algorithm
        if self.auth == "client_secret_jwt":
            if self.grant == "jwt_bearer":
                words = (
                    'cannot be "client_secret_jwt" with grant = "jwt_bearer", which signs with private_key'
                )
                yield Problem(("auth",), words)
            elif not algorithm.startswith("HS"):
                words = 'must be "HS256", "HS384" or "HS512" for auth = "client_secret_jwt"'
                yield Problem(("algorithm",), words)
        elif self.signs and algorithm.startswith("HS"):
            yield Problem(("algorithm",), f"cannot be {algorithm}, which does not use private_key")
        elif self.signs and self.private_key is not None:
            problems = [*key_problems("private_key", self.private_key, algorithm)]
            yield from problems
            if self.certificate is not None and not problems:
                from proxy.settings.credentials.private_keys import thumbprint

                try:
                    thumbprint(self.certificate, self.private_key, algorithm)
                except ValueError as error:
                    yield Problem(("certificate",), str(error))

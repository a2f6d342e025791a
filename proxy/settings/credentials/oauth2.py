"""`source = "oauth2"`: OAuth 2.0 token endpoints, with every grant that needs nobody at a screen."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from proxy.settings.credentials.section import RequestSection
from proxy.settings.credentials.signing import claim_problems, json_table, key_problems, thumbprint
from proxy.settings.fields import Count, Name, PlainText, SecretText
from proxy.settings.problems import Problem
from proxy.settings.recipe_values import Json, SecretOrLate, Text
from proxy.settings.section import Checked, Table, refuse_all
from proxy.settings.urls import EndpointUrl

JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"

_NEEDED_BY_GRANT: Final[Mapping[str, tuple[str, ...]]] = {
    "client_credentials": ("client_id",),
    "password": ("client_id", "username", "password"),
    "jwt_bearer": ("private_key",),
    "token_exchange": ("subject_token",),
}
_NEEDED_BY_AUTH: Final[Mapping[str, tuple[str, ...]]] = {
    "basic": ("client_id", "client_secret"),
    "post": ("client_id", "client_secret"),
    "client_secret_jwt": ("client_id", "client_secret"),
    "private_key_jwt": ("client_id", "private_key"),
    "none": (),
}
_BEARER: Final = 'grant = "jwt_bearer"'
_EXCHANGE: Final = 'grant = "token_exchange"'
_BY_KEY: Final = 'auth = "private_key_jwt"'
_BY_SECRET: Final = 'auth = "client_secret_jwt"'  # noqa: S105 - words for the user
_USED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "client_secret": ('auth = "basic"', 'auth = "post"', _BY_SECRET),
    "username": ('grant = "password"',),
    "password": ('grant = "password"',),
    "private_key": (_BY_KEY, _BEARER),
    "certificate": (_BY_KEY, _BEARER),
    "key_id": (_BY_KEY, _BY_SECRET, _BEARER),
    "algorithm": (_BY_KEY, _BY_SECRET, _BEARER),
    "assertion_audience": (_BY_KEY, _BY_SECRET, _BEARER),
    "assertion_ttl": (_BY_KEY, _BY_SECRET, _BEARER),
    "issuer": (_BEARER,),
    "subject": (_BEARER,),
    "claims": (_BEARER,),
    "subject_token": (_EXCHANGE,),
    "subject_token_type": (_EXCHANGE,),
    "actor_token": (_EXCHANGE,),
    "actor_token_type": (_EXCHANGE,),
    "requested_token_type": (_EXCHANGE,),
}
"""Which grants and client authentications a key serves; the keys that are not here serve all."""
_CLAIMS_WRITTEN: Final = (
    ("iss", "issuer"),
    ("sub", "subject"),
    ("aud", "assertion_audience"),
    ("exp", "assertion_ttl"),
    ("iat", "assertion_ttl"),
    ("jti", "the proxy, anew for each request"),
)


class OAuth2Credential(RequestSection):
    """Who asks, how it proves that, and what for."""

    source: Literal["oauth2"]
    token_url: EndpointUrl
    grant: Literal["client_credentials", "password", "jwt_bearer", "token_exchange"] = "client_credentials"
    """RFC 6749 4.4 and 4.3, RFC 7523 2.1, RFC 8693."""
    auth: Literal["basic", "post", "client_secret_jwt", "private_key_jwt", "none"] = "basic"
    """Id and secret in the Authorization header or in the form, a signed assertion, or nothing."""
    client_id: Name | None = None
    client_secret: SecretText | None = None
    scope: str | None = None
    audience: str | None = None
    resource: str | None = None
    """RFC 8707 and 8693: the URI of what the token is for."""
    params: Table[str, Text] = Field(default_factory=dict)
    """More fields of the form. They win over those that the other keys write."""
    username: Name | None = None
    password: SecretText | None = None

    private_key: SecretText | None = None
    """PEM; signs the assertion that is the grant (jwt_bearer), the client's (private_key_jwt), or both."""
    key_id: Name | None = None
    """Tells the issuer which key it is: the header `kid`."""
    certificate: PlainText | None = None
    """PEM; its SHA-256 becomes the header `x5t#S256`."""
    algorithm: (
        Literal[
            "HS256", "HS384", "HS512", "RS256", "RS384", "RS512",
            "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
        ]
        | None
    ) = None  # fmt: skip
    """By default RS256, or with client_secret_jwt HS256."""
    assertion_audience: str | None = None
    """The assertions' `aud`; by default the token_url."""
    assertion_ttl: Count = 60
    """Seconds that an assertion is good for."""
    issuer: Name | None = None
    """The `iss` of the jwt_bearer assertion; by default the client_id."""
    subject: Name | None = None
    """Its `sub`: for whom the token is; by default it has none."""
    claims: Annotated[Mapping[str, Json], Checked(json_table)] = Field(default_factory=dict)
    """More of its claims."""

    subject_token: SecretOrLate | None = None
    """The token to be exchanged."""
    subject_token_type: str = JWT_TYPE
    actor_token: SecretOrLate | None = None
    """The token of who acts for the subject."""
    actor_token_type: str = JWT_TYPE
    requested_token_type: str | None = None

    @property
    def signs(self) -> bool:
        """Whether the private key is used."""
        return self.auth == "private_key_jwt" or self.grant == "jwt_bearer"

    @property
    def signing_algorithm(self) -> str:
        """The one of the assertions."""
        return self.algorithm or ("HS256" if self.auth == "client_secret_jwt" else "RS256")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = [
            *self._superfluous(),
            *self._missing(),
            *self._unfit_keys(),
            *claim_problems("claims", self.claims, _CLAIMS_WRITTEN),
        ]
        if problems:
            refuse_all(problems)
        return self

    def _superfluous(self) -> Iterator[Problem]:
        chosen = {f'grant = "{self.grant}"', f'auth = "{self.auth}"'}
        for key, users in _USED_BY.items():
            if key in self.model_fields_set and chosen.isdisjoint(users):
                yield Problem((key,), f"belongs to {' or '.join(users)}: take it out or choose that")
        if "actor_token_type" in self.model_fields_set and self.actor_token is None:
            yield Problem(("actor_token_type",), "needs actor_token beside it")

    def _missing(self) -> Iterator[Problem]:
        told = set[str]()
        for chooser, choice, needed in (
            ("auth", self.auth, _NEEDED_BY_AUTH[self.auth]),
            ("grant", self.grant, _NEEDED_BY_GRANT[self.grant]),
        ):
            for key in needed:
                if getattr(self, key) is None and key not in told:
                    told.add(key)
                    yield Problem((key,), f'is required for {chooser} = "{choice}"')
        if self.grant == "jwt_bearer" and self.issuer is None and self.client_id is None and not told:
            yield Problem(("issuer",), "is required where there is no client_id")

    def _unfit_keys(self) -> Iterator[Problem]:
        algorithm = self.signing_algorithm
        if self.auth == "client_secret_jwt":
            if self.grant == "jwt_bearer":
                words = (
                    'cannot be "client_secret_jwt" beside grant = "jwt_bearer", which signs with private_key'
                )
                yield Problem(("auth",), words)
            elif not algorithm.startswith("HS"):
                yield Problem(("algorithm",), 'must be "HS256", "HS384" or "HS512" for ' + _BY_SECRET)
        elif self.signs and algorithm.startswith("HS"):
            yield Problem(("algorithm",), f"cannot be {algorithm}, which takes no private_key")
        elif self.signs and self.private_key is not None:
            problems = [*key_problems("private_key", self.private_key, algorithm)]
            yield from problems
            if self.certificate is not None and not problems:
                try:
                    thumbprint(self.certificate, self.private_key, algorithm)
                except ValueError as error:
                    yield Problem(("certificate",), str(error))

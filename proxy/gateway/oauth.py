"""The client-credentials grant as rules on values: RFC 6749, sections 2.3.1, 4.4.2 and 5.2."""

import base64
import hmac
from typing import NamedTuple
from urllib.parse import parse_qs, unquote_plus

FORM = "application/x-www-form-urlencoded"


class Client(NamedTuple):
    """A client's name and secret."""

    id: str
    secret: str

    def matches(self, other: "Client") -> bool:
        """Compare in constant time."""
        same_id = hmac.compare_digest(self.id.encode(), other.id.encode())
        return hmac.compare_digest(self.secret.encode(), other.secret.encode()) and same_id


class OAuthError(Exception):
    """A refusal of the token endpoint.

    Args:
        error: One of the codes of section 5.2.
        description: Words for the developer of the client.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.status = 401 if error == "invalid_client" else 400


def check_grant(content_type: str, authorization: str, body: bytes, registered: Client) -> None:
    """Let a right client-credentials request pass.

    Raises:
        OAuthError: Anything else.
    """
    form = parse_form(content_type, body)
    if "grant_type" not in form:
        raise OAuthError("invalid_request", "grant_type is missing")
    if not client_of(form, authorization).matches(registered):
        raise OAuthError("invalid_client", "unknown client or wrong secret")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type", "only client_credentials is served")


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """Fields of the form, each once (section 3.2)."""
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"the body must be {FORM}")
    try:
        fields = parse_qs(body.decode(), errors="strict", max_num_fields=100)
    except ValueError as error:
        raise OAuthError("invalid_request", "the form cannot be read") from error
    if any(len(values) > 1 for values in fields.values()):
        raise OAuthError("invalid_request", "a parameter is repeated")
    return {name: values[0] for name, values in fields.items()}


def client_of(form: dict[str, str], authorization: str) -> Client:
    """Who asks: by Basic, form-encoded inside, or by the form (section 2.3.1), not by both."""
    if not authorization:
        return Client(form.get("client_id", ""), form.get("client_secret", ""))
    if "client_secret" in form:
        raise OAuthError("invalid_request", "more than one way of client authentication")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError("invalid_client", "client authentication must be Basic or in the form")
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError as error:
        raise OAuthError("invalid_client", "the Basic credentials cannot be read") from error
    return Client(unquote_plus(name), unquote_plus(secret))

"""The two token endpoints: a proprietary JSON one as companies build them, and OAuth 2.0's.

The OAuth rules are those of the client-credentials grant: RFC 6749, sections 2.3.1, 4.4.2 and 5.2.
"""

import asyncio
import base64
import hmac
import time
from typing import NamedTuple
from urllib.parse import parse_qs, unquote_plus

import msgspec
from quart import Blueprint, Response, request

from proxy.gateway.http import json_response, retry_after
from proxy.gateway.state import current_gateway

FORM = "application/x-www-form-urlencoded"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 5.1

blueprint = Blueprint("tokens", __name__)


class TokenRequest(msgspec.Struct, rename="camel"):
    """`{"appId": ..., "appSecret": ...}`."""

    app_id: str
    app_secret: str


class Client(NamedTuple):
    """A client's id and secret."""

    id: str
    secret: str

    def matches(self, other: "Client") -> bool:
        """Compare in constant time."""
        same_id = hmac.compare_digest(self.id.encode(), other.id.encode())
        return hmac.compare_digest(self.secret.encode(), other.secret.encode()) and same_id


class OAuthError(Exception):
    """An error response of the OAuth token endpoint.

    Args:
        error: An error code of RFC 6749 5.2.
        description: Explanation for the developer of the client.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.status = 401 if error == "invalid_client" else 400


@blueprint.post("/token")
async def company_token() -> Response:
    """Issue a token. As with many such endpoints, a rejection is an error code inside a 200."""
    gateway = current_gateway()
    with gateway.counting_fetch():
        await asyncio.sleep(gateway.options.token_delay)
        options = gateway.options
        if options.token_status != 200:
            return _company_reply(
                options.token_status, "the token endpoint fails", status=options.token_status
            )
        try:
            body = msgspec.json.decode(await request.get_data(cache=False), type=TokenRequest)
        except (ValueError, RecursionError) as error:  # msgspec's and UTF-8 errors are ValueErrors
            return _company_reply(10400, f"not a token request: {error}", status=400)
        if not Client(body.app_id, body.app_secret).matches(Client(options.app_id, options.app_secret)):
            return _company_reply(10401, "wrong appId or appSecret")
        expire_time = int((time.time() + options.token_ttl) * 1000)  # epoch milliseconds
        data = {"token": gateway.tokens.issue(options.token_ttl), "expireTime": expire_time}
        return _company_reply(0, "success", data)


@blueprint.post("/oauth/token")
async def oauth_token() -> Response:
    """Issue a token for the client-credentials grant."""
    gateway = current_gateway()
    with gateway.counting_fetch():
        await asyncio.sleep(gateway.options.token_delay)
        options = gateway.options
        if options.token_status != 200:
            return _oauth_refusal("temporarily_unavailable", "the token endpoint fails", options.token_status)
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        try:
            check_grant(
                content_type=request.headers.get("Content-Type", ""),
                authorization=request.headers.get("Authorization", ""),
                body=body,
                registered=Client(options.app_id, options.app_secret),
            )
        except OAuthError as error:
            return _oauth_refusal(error.error, str(error), error.status)
        ttl = options.token_ttl
        reply = {
            "access_token": gateway.tokens.issue(ttl),
            "token_type": "Bearer",
            "expires_in": int(ttl) if ttl == int(ttl) else ttl,  # seconds; tests use fractions
        }
        return json_response(reply, headers=NO_STORE)


def check_grant(content_type: str, authorization: str, body: bytes, registered: Client) -> None:
    """Validate a client-credentials request.

    Raises:
        OAuthError: The request is malformed, or its client is not the registered one.
    """
    form = parse_form(content_type, body)
    if "grant_type" not in form:
        raise OAuthError("invalid_request", "grant_type is missing")
    if not client_of(form, authorization).matches(registered):
        raise OAuthError("invalid_client", "unknown client or wrong secret")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type", "only client_credentials is served")


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form, none of which may be repeated (RFC 6749 3.2)."""
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
    """Return the client's id and secret, from HTTP Basic or from the form, but not both (RFC 6749 2.3.1)."""
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


def _company_reply(code: int, msg: str, data: object = None, *, status: int = 200) -> Response:
    return json_response(
        {"code": code, "msg": msg, "data": data}, status, {**NO_STORE, **retry_after(status)}
    )


def _oauth_refusal(error: str, description: str, status: int) -> Response:
    challenge = {"WWW-Authenticate": 'Basic realm="gateway"'} if status == 401 else {}
    headers = {**NO_STORE, **challenge, **retry_after(status)}
    return json_response({"error": error, "error_description": description}, status, headers)

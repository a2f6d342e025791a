"""The two token endpoints: a company's own JSON one, as in the wild, and OAuth 2.0's."""

import asyncio
import time

import msgspec
from quart import Blueprint, Response, request

from proxy.gateway.errors import json_response, retry_after
from proxy.gateway.oauth import Client, OAuthError, check_grant
from proxy.gateway.state import current_gateway

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 5.1

blueprint = Blueprint("tokens", __name__)


class TokenRequest(msgspec.Struct, rename="camel"):
    """`{"appId": ..., "appSecret": ...}`."""

    app_id: str
    app_secret: str


@blueprint.post("/token")
async def company_token() -> Response:
    """Issue a token; a refusal is a code inside a 200, as such endpoints do."""
    gateway = current_gateway()
    with gateway.counting_fetch():
        await asyncio.sleep(gateway.options.token_delay)
        options = gateway.options
        if options.token_status != 200:
            return _company_reply(
                options.token_status, "the token endpoint fails", status=options.token_status
            )
        try:
            asked = msgspec.json.decode(await request.get_data(cache=False), type=TokenRequest)
        except (ValueError, RecursionError) as error:  # msgspec's and UTF-8's errors are ValueErrors
            return _company_reply(10400, f"not a token request: {error}", status=400)
        if not Client(asked.app_id, asked.app_secret).matches(Client(options.app_id, options.app_secret)):
            return _company_reply(10401, "wrong appId or appSecret")
        expire_time = int((time.time() + options.token_ttl) * 1000)  # epoch milliseconds
        data = {"token": gateway.tokens.issue(options.token_ttl), "expireTime": expire_time}
        return _company_reply(0, "success", data)


@blueprint.post("/oauth/token")
async def oauth_token() -> Response:
    """Issue a token for the client-credentials grant (RFC 6749 4.4)."""
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


def _company_reply(code: int, msg: str, data: object = None, *, status: int = 200) -> Response:
    return json_response(
        {"code": code, "msg": msg, "data": data}, status, {**NO_STORE, **retry_after(status)}
    )


def _oauth_refusal(error: str, description: str, status: int) -> Response:
    challenge = {"WWW-Authenticate": 'Basic realm="gateway"'} if status == 401 else {}
    headers = {**NO_STORE, **challenge, **retry_after(status)}
    return json_response({"error": error, "error_description": description}, status, headers)

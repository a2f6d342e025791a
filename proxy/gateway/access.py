"""Who may use `/v1`: the bearer of a live token, or of the one key that the options name."""

import asyncio
import hmac
from contextlib import suppress

from quart import Response, request

from proxy.gateway.errors import GatewayError
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway, current_gateway

LINGER_SECONDS = 5.0
"""How long an answer waits for the rest of a body that nobody read; nginx's `lingering_timeout`."""


async def admit() -> None:
    """Judge a request under `/v1` as it arrives; then wait out the first byte delay, whatever the answer.

    A hook of the whole app, so that unknown paths are judged too.
    """
    if not request.path.startswith("/v1/"):
        return
    gateway = current_gateway()
    gateway.stats.note_arrival(request)
    refusal = _refusal(gateway, request.headers.get("Authorization", ""))
    if gateway.options.first_byte_delay:
        await asyncio.sleep(gateway.options.first_byte_delay)
    if refusal is not None:
        raise refusal


async def drain_body(response: Response) -> Response:
    """Read what is left of the body before an early answer.

    A server that closes with bytes unread resets the connection, and the caller may lose the answer.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            async for _ in request.body:
                pass
    return response


def bearer_token(authorization: str) -> str:
    """The token of an Authorization header (RFC 6750 2.1), empty for any other scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _refusal(gateway: Gateway, authorization: str) -> GatewayError | None:
    options = gateway.options
    if options.status != 200:
        return GatewayError(options.status, f"the gateway was told to answer with {options.status}")
    token = bearer_token(authorization)
    if options.api_key is not None:
        accepted, message, code = _is_key(token, options), "Invalid API key", "invalid_api_key"
    else:
        accepted = gateway.tokens.accepts(token) and not options.reject_tokens
        message, code = "token expired or unknown", "invalid_token"
    if accepted:
        return None
    gateway.stats.tokens_refused += 1
    return GatewayError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def _is_key(token: str, options: GatewayOptions) -> bool:
    """Compare in constant time; header bytes were read as Latin-1."""
    return hmac.compare_digest(token.encode("latin-1"), (options.api_key or "").encode())

"""`/v1/echo` and all below it: says what arrived, for any method, so that a relay can be checked."""

from hashlib import sha256

from quart import Blueprint, Response, request

from proxy.gateway.errors import json_response
from proxy.gateway.state import raw_headers, raw_target

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # HEAD comes with GET

blueprint = Blueprint("mirror", __name__, url_prefix="/v1/echo")


@blueprint.route("", methods=METHODS)
@blueprint.route("/", methods=METHODS)
@blueprint.route("/<path:rest>", methods=METHODS)
async def mirror(rest: str = "") -> Response:  # noqa: ARG001  the raw target tells more
    """Describe the request; its body is hashed as it comes and never held."""
    digest, size = sha256(), 0
    async for part in request.body:
        digest.update(part)
        size += len(part)
    return json_response(
        {
            "method": request.method,
            "target": raw_target(request),
            "headers": raw_headers(request),
            "body_sha256": digest.hexdigest(),
            "body_bytes": size,
        }
    )

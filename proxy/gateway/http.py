"""JSON over HTTP: typed request bodies, JSON responses, and errors in OpenAI's envelope."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import msgspec
from quart import Response, request
from werkzeug.exceptions import HTTPException

TEMPORARY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

_PATH = re.compile(r"at `\$\.([^`]++)`$")
_MISSING = re.compile(r"missing required field `([^`]++)`$")

BodyT = TypeVar("BodyT", bound=msgspec.Struct)


class GatewayError(Exception):
    """An error response under `/v1`: https://platform.openai.com/docs/guides/error-codes.

    Args:
        message: Explanation for the caller.
        param: The request field at fault, if there is one.
        code: OpenAI's short name of the error, if it has one.
        headers: Additional response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = {**retry_after(status), **(headers or {})}

    def response(self) -> Response:
        """Return the error as a response."""
        detail = {
            "message": str(self),
            "type": _error_type(self.status),
            "param": self.param,
            "code": self.code,
        }
        return json_response({"error": detail}, self.status, self.headers)


async def read_body(kind: type[BodyT]) -> BodyT:
    """Read and validate the body of the current request."""
    return parse_body(await request.get_data(cache=False, as_text=False, parse_form_data=False), kind)


def parse_body(body: bytes, kind: type[BodyT]) -> BodyT:
    """Decode a JSON body into a type; unknown fields are ignored.

    Raises:
        GatewayError: 400 that names the field at fault.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error)) or _MISSING.search(str(error))
        raise GatewayError(400, str(error), param=found[1] if found else None) from error
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, nested too deeply
        raise GatewayError(400, f"the body is not valid JSON: {error}") from error


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response; non-ASCII text is sent as UTF-8."""
    return Response(
        msgspec.json.encode(body),
        status,
        headers=dict(headers or {}),
        content_type="application/json",
    )


def retry_after(status: int) -> dict[str, str]:
    """Return `Retry-After` (RFC 9110 10.2.3) for a status that is temporary."""
    return {"Retry-After": "1"} if status in TEMPORARY else {}


async def handle_gateway_error(error: GatewayError) -> Response:
    """Answer an error that a view raised."""
    return error.response()


async def handle_http_exception(error: HTTPException) -> Response:
    """Answer an error of the framework: unknown paths and methods, and unexpected exceptions as 500."""
    allow = {name: value for name, value in error.get_headers() if name == "Allow"}
    return GatewayError(error.code or 500, error.description or error.name, headers=allow).response()


def _error_type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"

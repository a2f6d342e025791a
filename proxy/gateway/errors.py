"""Errors in OpenAI's envelope, whoever raises them: a view, the router, a defect."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from quart import Response
from werkzeug.exceptions import HTTPException

TEMPORARY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class GatewayError(Exception):
    """An answer under `/v1` that is an error: https://platform.openai.com/docs/guides/error-codes.

    Args:
        status: HTTP status.
        message: Words for the caller.
        param: The request field at fault, where there is one.
        code: Short name of the error, where OpenAI has one.
        headers: Further response headers.
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
        """The error as it goes out."""
        detail = {
            "message": str(self),
            "type": _error_type(self.status),
            "param": self.param,
            "code": self.code,
        }
        return json_response({"error": detail}, self.status, self.headers)


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; non-ASCII text stays UTF-8."""
    return Response(
        msgspec.json.encode(body),
        status,
        headers=dict(headers or {}),
        content_type="application/json",
    )


def retry_after(status: int) -> dict[str, str]:
    """RFC 9110 10.2.3: where a later try may do better, say when."""
    return {"Retry-After": "1"} if status in TEMPORARY else {}


async def answer_gateway_error(error: GatewayError) -> Response:
    """Error handler for what our views refuse."""
    return error.response()


async def answer_http_exception(error: HTTPException) -> Response:
    """Error handler for what the framework refuses: unknown paths and methods, and defects as 500."""
    allow = {name: value for name, value in error.get_headers() if name == "Allow"}
    return GatewayError(error.code or 500, error.description or error.name, headers=allow).response()


def _error_type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"

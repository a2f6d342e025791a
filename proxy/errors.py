"""All errors of the service, by whose fault they are, with the messages that callers receive.

    ProxyError                          status  code
      CallerError                               the caller's side
        InvalidRequest                  400     invalid_request
        Unauthenticated                 401     invalid_api_key
        ModelForbidden                  403     model_forbidden
        EndpointForbidden               403     endpoint_forbidden
        SiteForbidden                   403     site_forbidden
        NotFound                        404     not_found
        MethodNotAllowed                405     method_not_allowed
        BodyTimeout                     408     request_timeout
        BodyTooLarge                    413     request_too_large
        RateLimited                     429     rate_limit_exceeded
      CredentialError                           no usable token
        TokenUnavailable                503     upstream_unavailable
        TokenRejected                   502     upstream_auth_failed
          IssuerRefuses                 502     upstream_auth_failed
      UpstreamError                             the upstream's side
        Unreachable                     502     upstream_unreachable
        BadResponse                     502     upstream_bad_response
          InvalidResponse               502     upstream_bad_response
        UpstreamForbidden               403     upstream_forbidden
        UpstreamTimeout                 504     upstream_timeout
          SharedTimeout                 504     upstream_timeout
        Overloaded                      503     upstream_overloaded
        CircuitOpen                     503     upstream_unavailable
        Aborted                         (502)   upstream_aborted     after the first byte: one error event
      ServerError                               the proxy's own side
        InternalError                   500     internal_error
        ServerOverloaded                503     server_overloaded
        Draining                        503     shutting_down
    SettingsError                       start-up only: exit status 2

An HTTP error status of the upstream is not one of these errors: it is relayed with its body.

Clients such as RAGFlow search a message for words and digits ("auth", "key", "rate limit", 429, 503) to
decide whether to retry, so choose the words with care. A message holds no ids, secrets or addresses.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Self, TypedDict, cast


class ErrorDetail(TypedDict):
    """The inner object of OpenAI's error envelope."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """OpenAI's error body: https://platform.openai.com/docs/guides/error-codes."""

    error: ErrorDetail


class ProxyError(Exception):
    """An error of ours that ends an exchange.

    Args:
        message: The message for the caller, without secrets and ids; by default that of the class.
        param: The request field at fault, if there is one.
        headers: Response headers to send with the error.
        retry_after: Seconds after which the caller should retry (RFC 9110 10.2.3).
        reason: The reason for the log, which the caller does not receive.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "the proxy failed to handle the request"
    default_retry_after: ClassVar[float | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message or self.message)
        self.param = param
        seconds = self.default_retry_after if retry_after is None else retry_after
        wait = {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
        self.headers: Mapping[str, str] = {**wait, **(headers or {})}
        self.reason = reason

    def __copy__(self) -> Self:
        """Return another instance, for another exchange: raising an error adds a traceback to it."""
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__.update(self.__dict__)
        return copied

    def envelope(self) -> ErrorEnvelope:
        """Return the error in OpenAI's envelope."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


# --- the caller's side


class CallerError(ProxyError):
    """The request cannot be relayed."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    message = "the request is invalid"


class InvalidRequest(CallerError):
    """Malformed path, headers or body."""


class Unauthenticated(CallerError):
    """No key, an unknown key, or two different keys."""

    status = 401
    code = "invalid_api_key"
    message = "Invalid API key"

    def __init__(self, *, reason: str | None = None) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"}, reason=reason)


class NotFound(CallerError):
    """No route has this path."""

    status = 404
    code = "not_found"
    message = "no such path"


class MethodNotAllowed(CallerError):
    """The path exists, but not with this method."""

    status = 405
    code = "method_not_allowed"
    message = "this path does not accept this method"


class BodyTimeout(CallerError):
    """The request body did not arrive in time."""

    status = 408
    code = "request_timeout"
    message = "the request body did not arrive in time"


class BodyTooLarge(CallerError):
    """The request body exceeds the limit, by its Content-Length or while it is received."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than the limit of {limit} bytes")


class ModelForbidden(CallerError):
    """The caller's key does not allow this model."""

    status = 403
    type = "permission_error"
    code = "model_forbidden"
    message = "this key may not use this model"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, param="model")


class SiteForbidden(CallerError):
    """A browser sent the request for a page that may not use this service."""

    status = 403
    type = "permission_error"
    code = "site_forbidden"
    message = (
        "requests from pages of other sites are rejected here; list the page's origin under origins in [cors]"
    )


class EndpointForbidden(CallerError):
    """The caller's key does not allow this endpoint."""

    status = 403
    type = "permission_error"
    code = "endpoint_forbidden"
    message = "this key has no permission for this endpoint"


class RateLimited(CallerError):
    """The caller has reached a limit.

    The headers report the limits of its key (draft-ietf-httpapi-ratelimit-headers-03).
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    message = "rate limit of this key reached, too many requests"
    default_retry_after = 1.0


# --- our credentials


class CredentialError(ProxyError):
    """There is no usable token for the upstream."""

    type = "upstream_error"


class TokenUnavailable(CredentialError):
    """No token could be fetched. A retry may help.

    Args:
        retry_after: Seconds until the next fetch.
        reason: The reason for the log.
    """

    status = 503
    type = "server_error"
    code = "upstream_unavailable"
    message = "upstream temporarily unavailable"

    def __init__(self, retry_after: float = 1.0, *, reason: str | None = None) -> None:
        super().__init__(retry_after=retry_after, reason=reason)
        self.retry_after = retry_after


class TokenRejected(CredentialError):
    """The upstream rejects the current token and has never accepted it. A retry cannot help."""

    status = 502
    code = "upstream_auth_failed"
    message = "the upstream rejected the proxy's own authorization"

    def __init__(self, *, reason: str | None = None) -> None:
        super().__init__(headers={"X-Should-Retry": "false"}, reason=reason)


class IssuerRefuses(TokenRejected):
    """The token endpoint rejects our credentials. An operator has to correct them."""

    message = "the token endpoint refused the proxy's own credentials; the proxy's operator must correct them"


# --- the upstream's side


class UpstreamError(ProxyError):
    """The upstream failed before or during its response."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    message = "the upstream failed"


class Unreachable(UpstreamError):
    """The upstream has an unknown name, TLS failed, or the connection was refused."""

    code = "upstream_unreachable"
    message = "the upstream could not be reached"


class BadResponse(UpstreamError):
    """No response that can be relayed: the connection broke, or the response is malformed."""

    code = "upstream_bad_response"
    message = "the upstream did not send a valid response"


class InvalidResponse(BadResponse):
    """A complete response of the wrong kind, such as a redirect or HTML. A retry cannot help.

    RAGFlow retries a 502 unless the message contains a word such as "invalid"; OpenAI's SDKs read the header.

    Args:
        what: A description of what the upstream sent, in our own words, for the caller and the log.
        reason: A more detailed reason for the log.
    """

    message = "the upstream sent an invalid response"

    def __init__(self, what: str, *, reason: str | None = None) -> None:
        super().__init__(
            f"{self.message}: {what}", headers={"X-Should-Retry": "false"}, reason=reason or what
        )


class UpstreamForbidden(UpstreamError):
    """The upstream rejects this request with every token.

    Its 401 is returned as a 403, because the caller's own key is not at fault.

    Args:
        error: The upstream's error, if it is in OpenAI's envelope. Its `code` is replaced by ours.
        message: The upstream's message, if it is not.
        reason: The reason for the log.
    """

    status = 403
    type = "permission_error"
    code = "upstream_forbidden"
    message = "the upstream does not allow this request"

    def __init__(
        self,
        message: str | None = None,
        *,
        error: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.error = error

    def envelope(self) -> ErrorEnvelope:
        """Return the upstream's own error with our code; clients expect texts in the members of OpenAI."""
        own = super().envelope()["error"]
        theirs = {
            name: value
            for name, value in (self.error or {}).items()
            if name not in own or isinstance(value, str)
        }
        return {"error": cast(ErrorDetail, {**own, **theirs, "code": self.code})}


class UpstreamTimeout(UpstreamError):
    """A timeout of the exchange expired before the first byte."""

    status = 504
    code = "upstream_timeout"
    message = "the upstream did not answer in time"


class SharedTimeout(UpstreamTimeout):
    """The total timeout expired, and the exchange did not wait for this upstream alone.

    It also waited for a slow upload, for a token, or for another upstream that was tried before.
    """


class Overloaded(UpstreamError):
    """Every connection to the upstream is in use."""

    status = 503
    code = "upstream_overloaded"
    message = "too many requests at once for this upstream, try again soon"
    default_retry_after = 1.0


class CircuitOpen(UpstreamError):
    """The upstream has failed repeatedly, so no requests are sent to it for a while."""

    status = 503
    type = "server_error"
    code = "upstream_unavailable"
    message = "upstream temporarily unavailable"
    default_retry_after = 1.0


class Aborted(UpstreamError):
    """The response broke off after its first byte.

    The message must not make clients retry, because they would show the text twice.
    """

    code = "upstream_aborted"
    message = "the response was cut off: the connection to the upstream was lost"


# --- the proxy's own side


class ServerError(ProxyError):
    """The proxy itself cannot serve the request."""


class InternalError(ServerError):
    """A defect of the proxy."""


class ServerOverloaded(ServerError):
    """The service has reached a limit on the memory that all callers share."""

    status = 503
    type = "server_error"
    code = "server_overloaded"
    message = "the service is overloaded, try again soon"
    default_retry_after = 1.0


class Draining(ServerError):
    """The exchange was still running at the end of the drain."""

    status = 503
    type = "server_error"
    code = "shutting_down"
    message = "the response was cut off: the proxy is shutting down"
    default_retry_after = 1.0


# --- start-up


class SettingsError(Exception):
    """The configuration is invalid. Each problem is one line with key, file and line number."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

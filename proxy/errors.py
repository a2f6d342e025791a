"""Every error of the service, whose fault it is, and the words in which a caller is told.

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
        ServerOverloaded                503     server_overloaded
      CredentialError                           no usable token could be had
        TokenUnavailable                503     upstream_unavailable
        TokenRejected                   502     upstream_auth_failed
        IssuerRefuses                   502     upstream_auth_failed
      UpstreamError                             the upstream's side
        Unreachable                     502     upstream_unreachable
        BadResponse                     502     upstream_bad_response
          InvalidResponse               502     upstream_bad_response
        UpstreamForbidden               403     upstream_forbidden
        UpstreamTimeout                 504     upstream_timeout
        Overloaded                      503     upstream_overloaded
        CircuitOpen                     503     upstream_unavailable
        Aborted                         (502)   upstream_aborted     after the first byte: one error event
        Draining                        503     shutting_down
      InternalError                     500     internal_error
    SettingsError                       start-up only: exit status 2

An HTTP error status of the upstream is a response, not one of these: it is relayed with its body.

Messages are chosen with care, since clients decide by the words of an error whether to retry it
(RAGFlow looks for "auth", "key", "rate limit", 429, 503): they hold no ids, no secrets and no addresses.
"""

from collections.abc import Mapping
from typing import ClassVar, TypedDict, cast


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
    """An exchange that ends with an error of ours.

    Args:
        message: Words for the caller; the class's own by default. Never a secret or an id.
        param: The request field at fault, where there is one.
        headers: Response headers that go with the error.
        retry_after: Seconds until another try is worth while (RFC 9110 10.2.3).
        reason: Words for the log alone.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str] = "internal_error"
    message: ClassVar[str] = "the proxy failed to handle the request"
    passes_in: ClassVar[float | None] = None
    """The `retry_after` of most errors of a class."""

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
        seconds = self.passes_in if retry_after is None else retry_after
        # Whole seconds, rounded up, one at least.
        wait = {} if seconds is None else {"Retry-After": str(max(1, int(-(-seconds // 1))))}
        self.headers: Mapping[str, str] = {**wait, **(headers or {})}
        self.reason = reason

    def envelope(self) -> ErrorEnvelope:
        """The error as OpenAI's clients read it."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


class InternalError(ProxyError):
    """A defect of ours: what no other class names."""


# --- the caller's side


class CallerError(ProxyError):
    """The request cannot be relayed as it is."""

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

    def __init__(self, message: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"}, reason=reason)


class NotFound(CallerError):
    """No such route here."""

    status = 404
    code = "not_found"
    message = "no such path"


class MethodNotAllowed(CallerError):
    """The path is there, the method is not."""

    status = 405
    code = "method_not_allowed"
    message = "this path does not take that method"


class BodyTimeout(CallerError):
    """The request body did not arrive in time."""

    status = 408
    code = "request_timeout"
    message = "the request body did not arrive in time"


class BodyTooLarge(CallerError):
    """The request body is over the limit, whether announced or streamed."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than the limit of {limit} bytes")


class ModelForbidden(CallerError):
    """The caller's key is not for this model."""

    status = 403
    type = "permission_error"
    code = "model_forbidden"
    message = "this key has no permission for that model"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, param="model")


class SiteForbidden(CallerError):
    """A browser sends the request for a page that may not use this service."""

    status = 403
    type = "permission_error"
    code = "site_forbidden"
    message = (
        "requests from pages of other sites are refused here; list the page's origin under origins in [cors]"
    )


class EndpointForbidden(CallerError):
    """The caller's key is not for this endpoint."""

    status = 403
    type = "permission_error"
    code = "endpoint_forbidden"
    message = "this key has no permission for this endpoint"


class RateLimited(CallerError):
    """The caller's key has used up what it may use at the moment.

    Its headers say how much is allowed (draft-ietf-httpapi-ratelimit-headers, as of its version 03).
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    message = "rate limit of this key reached, too many requests"
    passes_in = 1.0


class ServerOverloaded(CallerError):
    """This service holds as much for its callers as it may."""

    status = 503
    type = "server_error"
    code = "server_overloaded"
    message = "the service is overloaded, try again soon"
    passes_in = 1.0


# --- our credentials


class CredentialError(ProxyError):
    """No usable token could be had for the upstream."""

    type = "upstream_error"


class TokenUnavailable(CredentialError):
    """The token endpoint gave no token; worth a retry soon.

    Args:
        retry_after: Seconds until the next attempt is due.
        reason: Words for the log alone.
    """

    status = 503
    type = "server_error"
    code = "upstream_unavailable"
    message = "upstream temporarily unavailable"

    def __init__(self, retry_after: float = 1.0, *, reason: str | None = None) -> None:
        super().__init__(retry_after=retry_after, reason=reason)
        self.retry_after = retry_after


class TokenRejected(CredentialError):
    """The upstream rejects the only token there is, and never accepted it; a retry cannot help."""

    status = 502
    code = "upstream_auth_failed"
    message = "the upstream refused the proxy's own authorization"

    def __init__(self, *, reason: str | None = None) -> None:
        super().__init__(headers={"X-Should-Retry": "false"}, reason=reason)


class IssuerRefuses(TokenRejected):
    """The token endpoint refuses our credentials: only an operator can help."""

    message = "the token endpoint refused the proxy's own credentials; the proxy's operator must correct them"


# --- the upstream's side


class UpstreamError(ProxyError):
    """The upstream failed before it answered, or while it did."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    message = "the upstream failed"


class Unreachable(UpstreamError):
    """No connection: refused, unknown name, TLS failure."""

    code = "upstream_unreachable"
    message = "the upstream could not be reached"


class BadResponse(UpstreamError):
    """No answer that could be relayed: reset, garbage, a redirect."""

    code = "upstream_bad_response"
    message = "the upstream gave no valid answer"


class InvalidResponse(BadResponse):
    """A complete response that is not a valid answer, such as a redirect or HTML; a retry cannot help.

    RAGFlow retries a 502 unless the message holds a word such as "invalid"; OpenAI's SDKs read the header.

    Args:
        what: What the upstream sent, for the caller and the log. Never text of the response.
        reason: More about it, for the log alone.
    """

    message = "the upstream sent an invalid response"

    def __init__(self, what: str, *, reason: str | None = None) -> None:
        super().__init__(
            f"{self.message}: {what}", headers={"X-Should-Retry": "false"}, reason=reason or what
        )


class UpstreamForbidden(UpstreamError):
    """The upstream rejects this request whatever the token: its 401 is the answer, as a 403.

    A 401 would tell the caller to get another key, and its own key is not at fault.

    Args:
        answer: The upstream's own error, where it is one in OpenAI's shape; its `code` becomes ours.
        message: The upstream's own words, where it is not.
        reason: Words for the log alone.
    """

    status = 403
    type = "permission_error"
    code = "upstream_forbidden"
    message = "the upstream does not allow this request"

    def __init__(
        self,
        message: str | None = None,
        *,
        answer: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.answer = answer

    def envelope(self) -> ErrorEnvelope:
        """The upstream's own error, with our code."""
        own = super().envelope()["error"]
        return {"error": cast(ErrorDetail, {**own, **(self.answer or {}), "code": self.code})}


class UpstreamTimeout(UpstreamError):
    """One of the clocks of the exchange ran out before the first byte."""

    status = 504
    code = "upstream_timeout"
    message = "the upstream did not answer in time"


class Overloaded(UpstreamError):
    """Every connection to the upstream is in use."""

    status = 503
    code = "upstream_overloaded"
    message = "too many requests at once for this upstream, try again soon"
    passes_in = 1.0


class CircuitOpen(UpstreamError):
    """The upstream failed time after time, and is left alone for a while."""

    status = 503
    type = "server_error"
    code = "upstream_unavailable"
    message = "upstream temporarily unavailable"
    passes_in = 1.0


class Aborted(UpstreamError):
    """The answer broke off after its first byte.

    Its words must not look worth a retry: a client that starts again would show the text twice.
    """

    code = "upstream_aborted"
    message = "the response was cut off: the connection to the upstream was lost"


class Draining(UpstreamError):
    """The exchange outlived the drain of the service."""

    status = 503
    code = "shutting_down"
    message = "the response was cut off: the proxy is shutting down"
    passes_in = 1.0


# --- start-up


class SettingsError(Exception):
    """The configuration cannot be used. One line a problem, each with key, file and line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

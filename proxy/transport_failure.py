"""Explain why a request got no response: which server, what happened, and what to do about it (pure).

Requests to token endpoints use httpx2, and those to upstreams raise its errors. In both cases the chain of
causes ends with an error of the socket or of TLS, which decides.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import httpx2
import msgspec

CAUSES_MAX: Final = 32
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}


class FailureKind(StrEnum):
    """Why a request got no response."""

    REFUSED = "refused"
    UNKNOWN_NAME = "unknown_name"
    NAME_SERVER_SILENT = "name_server_silent"
    UNREACHABLE = "unreachable"
    FORBIDDEN_HERE = "forbidden_here"
    TOO_MANY_FILES = "too_many_files"
    CONNECT_TIMEOUT = "connect_timeout"
    READ_TIMEOUT = "read_timeout"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_SELF_SIGNED = "certificate_self_signed"
    CERTIFICATE_UNKNOWN_ISSUER = "certificate_unknown_issuer"
    CERTIFICATE_WRONG_NAME = "certificate_wrong_name"
    CERTIFICATE_INVALID = "certificate_invalid"
    CLIENT_CERTIFICATE = "client_certificate"
    NOT_TLS = "not_tls"
    TLS_VERSION = "tls_version"
    TLS_FAILED = "tls_failed"
    PROXY_REFUSED = "proxy_refused"
    CLOSED = "closed"
    RESET = "reset"
    CUT_OFF = "cut_off"
    TLS_EXPECTED = "tls_expected"
    NOT_HTTP = "not_http"
    BAD_URL = "bad_url"
    OTHER = "other"


_K = FailureKind
FAILURE_WORDS: Final[dict[FailureKind, tuple[str, str]]] = {
    _K.REFUSED: ("connection refused", "check the host and the port, and that the server is running"),
    _K.UNKNOWN_NAME: ("the host name is unknown", "check its spelling, and this machine's DNS or /etc/hosts"),
    _K.NAME_SERVER_SILENT: ("the host name could not be looked up", "the DNS server is silent: try later"),
    _K.UNREACHABLE: ("no route to the host", "check the network, the VPN and the firewall"),
    _K.FORBIDDEN_HERE: ("this machine does not allow the connection", "check its firewall and sandbox"),
    _K.TOO_MANY_FILES: ("this process has no file descriptor left", "raise its limit (ulimit -n)"),
    _K.CONNECT_TIMEOUT: (
        "no connection in time",
        "a firewall may drop the packets: check host, port and network, or raise the timeout",
    ),
    _K.READ_TIMEOUT: ("connected, but no response in time", "look at the server, or raise the timeout"),
    _K.CERTIFICATE_EXPIRED: ("its certificate has expired", "the server's operator must renew it"),
    _K.CERTIFICATE_NOT_YET_VALID: ("its certificate is not valid yet", "check the clocks of both machines"),
    _K.CERTIFICATE_SELF_SIGNED: (
        "its certificate is self-signed",
        "name that certificate, or the one of your company's CA, in ca_file",
    ),
    _K.CERTIFICATE_UNKNOWN_ISSUER: (
        "its certificate was issued by a CA that is not trusted here",
        "name the CA's certificate in ca_file, and check that the server sends its intermediate certificates",
    ),
    _K.CERTIFICATE_WRONG_NAME: (
        "its certificate is for another host name",
        "write the name that the certificate has, or have it issued for this one",
    ),
    _K.CERTIFICATE_INVALID: ("its certificate is not valid", "the server's operator must replace it"),
    _K.CLIENT_CERTIFICATE: (
        "the server rejected the TLS handshake, as if it wants a client certificate",
        "set client_cert and client_key, or check that they are the right ones",
    ),
    _K.NOT_TLS: ("the port does not speak TLS", "write http:// instead of https://, or another port"),
    _K.TLS_VERSION: ("both sides have no TLS version in common", "the server must support TLS 1.2 or newer"),
    _K.TLS_FAILED: (
        "the connection broke during the TLS handshake",
        "check that this port speaks TLS, and that no firewall or proxy cuts it",
    ),
    _K.PROXY_REFUSED: ("the proxy did not open the connection", "check its password and what it allows"),
    _K.CLOSED: ("the connection was closed before a response", "try again, and look at the server's log"),
    _K.RESET: ("the connection was reset", "look at the logs of the server and of any proxy in between"),
    _K.CUT_OFF: ("the response broke off", "look at the server's log"),
    _K.TLS_EXPECTED: ("the port speaks TLS", "write https:// instead of http://"),
    _K.NOT_HTTP: ("the response is not HTTP", "check the port: another kind of server listens there"),
    _K.BAD_URL: ("the URL is not valid", "check its spelling"),
    _K.OTHER: ("the request failed", "look at the server's log"),
}  # fmt: skip
_MAYBE_TLS: Final = "if this port speaks TLS, write https:// instead of http://"
_MAYBE_MUTUAL_TLS: Final = "if the server wants a client certificate, set client_cert and client_key"

# X509_V_ERR_*: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_VERIFY_CODES: Final = {
    9: _K.CERTIFICATE_NOT_YET_VALID,
    10: _K.CERTIFICATE_EXPIRED,
    18: _K.CERTIFICATE_SELF_SIGNED,
    19: _K.CERTIFICATE_SELF_SIGNED,
    20: _K.CERTIFICATE_UNKNOWN_ISSUER,
    21: _K.CERTIFICATE_UNKNOWN_ISSUER,
    62: _K.CERTIFICATE_WRONG_NAME,
    64: _K.CERTIFICATE_WRONG_NAME,
}
_TLS_REASONS: Final = (
    (("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"), _K.NOT_TLS),
    (("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS", "VERSION_TOO_LOW"), _K.TLS_VERSION),
    (("UNRECOGNIZED_NAME",), _K.CERTIFICATE_WRONG_NAME),
    (("ALERT_CERTIFICATE", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_UNSUPPORTED_CERTIFICATE",
      "ALERT_ACCESS_DENIED", "ALERT_HANDSHAKE_FAILURE", "CERTIFICATE_REQUIRED"), _K.CLIENT_CERTIFICATE),
)  # fmt: skip
_ERRNOS: Final = {
    errno.ECONNREFUSED: _K.REFUSED,
    errno.ENETUNREACH: _K.UNREACHABLE,
    errno.EHOSTUNREACH: _K.UNREACHABLE,
    errno.ENETDOWN: _K.UNREACHABLE,
    errno.EHOSTDOWN: _K.UNREACHABLE,
    errno.EADDRNOTAVAIL: _K.UNREACHABLE,
    errno.EACCES: _K.FORBIDDEN_HERE,
    errno.EPERM: _K.FORBIDDEN_HERE,
    errno.EMFILE: _K.TOO_MANY_FILES,
    errno.ENFILE: _K.TOO_MANY_FILES,
    errno.ETIMEDOUT: _K.CONNECT_TIMEOUT,
}
_ABOUT_THE_PROXY: Final = frozenset({_K.REFUSED, _K.UNKNOWN_NAME, _K.NAME_SERVER_SILENT, _K.UNREACHABLE})
"""The kinds that, with a forward proxy, are failures of the connection to that proxy."""
_TLS_ALERT: Final = re.compile(r"x15\\+x03|illegal request line")
"""A TLS server answers plain HTTP with a record that begins with 15 03 (RFC 8446 5.1, 6), which the libraries
quote. h11 has its own message for a response that begins with a control character."""


class TransportFailure(msgspec.Struct, frozen=True):
    """Why a request got no response, without the query, user name or any byte of a response."""

    kind: FailureKind
    origin: str
    """Scheme, host and port of the server."""
    happened: str
    cure: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.happened}; {self.cure}"


def explain(error: BaseException, url: str, proxy: str | None = None) -> TransportFailure:
    """Explain an error of the HTTP library.

    Args:
        error: The exception, with its chain of causes.
        url: The URL of the request. Only its scheme, host and port are shown.
        proxy: The URL of the forward proxy, if there is one.
    """
    origin = origin_of(url)
    is_tls = origin.startswith(("https:", "rediss:"))
    kind = _kind(error, is_tls=is_tls)
    happened, cure = FAILURE_WORDS[kind]
    if kind is _K.OTHER:
        happened = f"{happened} ({type(error).__name__})"
    if kind in {_K.CLOSED, _K.RESET} and origin.startswith("http"):
        cure = f"{_MAYBE_MUTUAL_TLS if is_tls else _MAYBE_TLS}, else {cure}"
    elif kind is _K.CONNECT_TIMEOUT and is_tls:
        cure = f"{cure}, and check that this port speaks TLS"
    if proxy is not None and kind in _ABOUT_THE_PROXY:
        return TransportFailure(kind, origin_of(proxy), f"{happened} (this is the proxy to {origin})", cure)
    if proxy is not None:
        happened = f"{happened} (through the proxy {origin_of(proxy)})"
        status = _proxy_status(error)
        if kind is _K.PROXY_REFUSED and status:
            happened = f"{happened}: it answered {status}"
    return TransportFailure(kind, origin, happened, cure)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, such as `https://auth.corp.example:443`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "(no valid URL)"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port or _DEFAULT_PORTS.get(parts.scheme, '')}"


def _kind(error: BaseException, *, is_tls: bool) -> FailureKind:
    chain = [*_causes(error)]
    for cause in chain:
        if (kind := _kind_of_socket(cause) or _kind_of_http(cause)) is not None:
            return kind
    if is_tls and any(isinstance(cause, httpx2.ConnectError | ssl.SSLError) for cause in chain):
        return _K.TLS_FAILED
    if any(isinstance(cause, ConnectionError) for cause in chain):  # reset, or a broken pipe
        return _K.RESET
    return _K.CUT_OFF if any(isinstance(cause, httpx2.NetworkError) for cause in chain) else _K.OTHER


def _kind_of_socket(cause: BaseException) -> FailureKind | None:
    """Classify an error of the socket or of TLS; None if it is not specific enough."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        code = getattr(cause, "verify_code", None)  # An SDK's subclass may lack this attribute.
        return None if code is None else _VERIFY_CODES.get(code, _K.CERTIFICATE_INVALID)
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None) or ""
        return next((kind for parts, kind in _TLS_REASONS if any(part in reason for part in parts)), None)
    if isinstance(cause, socket.gaierror):
        return _K.NAME_SERVER_SILENT if cause.errno == socket.EAI_AGAIN else _K.UNKNOWN_NAME
    if isinstance(cause, ConnectionRefusedError):
        return _K.REFUSED
    return _ERRNOS.get(cause.errno or 0) if isinstance(cause, OSError) else None


def _kind_of_http(cause: BaseException) -> FailureKind | None:
    """Classify an error of the HTTP library."""
    match cause:
        case httpx2.ConnectTimeout():
            return _K.CONNECT_TIMEOUT
        case httpx2.TimeoutException():
            return _K.READ_TIMEOUT
        case httpx2.ProxyError():
            return _K.PROXY_REFUSED
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return _K.BAD_URL
        case httpx2.RemoteProtocolError() | httpx2.DecodingError():
            return _kind_of_message(str(cause))
        case TimeoutError():
            return _K.READ_TIMEOUT
    return None


def _kind_of_message(message: str) -> FailureKind:
    """Classify by the library's message, which is not shown because it may quote the response."""
    if "disconnected" in message:
        return _K.CLOSED
    if _TLS_ALERT.search(message):
        return _K.TLS_EXPECTED
    return _K.CUT_OFF if "peer closed" in message or "not completed" in message else _K.NOT_HTTP


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the chain of its causes; the errors of a group one after the other."""
    waiting: list[BaseException] = [error]
    for _ in range(CAUSES_MAX):
        if not waiting:
            return
        cause = waiting.pop(0)
        if isinstance(cause, BaseExceptionGroup):
            waiting = [*cause.exceptions, *waiting]
            continue
        # These two are not failures: TLS raises them while it waits for the network.
        if not isinstance(cause, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            yield cause
        following = cause.__cause__ or cause.__context__  # httpx2 raises some errors `from None`.
        if following is not None:
            waiting.insert(0, following)


def _proxy_status(error: BaseException) -> str:
    """Return the forward proxy's status; httpcore2's message is "407 Proxy Authentication Required"."""
    for cause in _causes(error):
        number = getattr(cause, "status", None) or str(cause)[:3]
        if str(number).isdigit():
            return str(number)
    return ""

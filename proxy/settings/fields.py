"""The types of single values: names, numbers, URLs, files and secrets, with their validation."""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from proxy.regular_files import open_regular
from proxy.secret import Secret
from proxy.settings.section import Checked, frozen, reject, suggestion
from proxy.shipped import install_command
from proxy.wire.endpoints import ENDPOINT_NAMES, Shape
from proxy.wire.repairs import DECODE_TOKEN_IDS, known_names

EMBEDDED: Final = "embedded:"
"""Begins the URLs of the demonstration gateway, whose address is known only when it runs."""
WEIGHT_MAX: Final = 1000

_HOST_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NO_CERTIFICATE: Final = "contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
_MISMATCHES: Final = frozenset({"KEY_TYPE_MISMATCH", "KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's reasons why a private key does not fit its certificate; the last one: its kind is another one."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that control the connection and the body."""
_PLACEHOLDERS = {
    "only the letter x": r"(sk)?x{3,}",
    "only dots": r"(sk)?\.{3,}",
    "text in angle brackets": r"(sk)?<.*>",
    '"change me" or "replace this"': r"(sk)?(change|replace)(me|this)",
    '"my key" or "your key"': r"(sk)?(your|my)(api)?(key|secret|token)(here)?",
    'the word "secret", "password", "todo" or "placeholder"': r"secret|password|todo|placeholder",
}
"""Placeholders in examples, matched against the key in lower case without spaces, "-" and "_"."""


def _number(value: object) -> object:
    if isinstance(value, bool):
        reject("must be a number")
    return value


def matching(pattern: str, words: str) -> AfterValidator:
    """Return a validator for strings that match a pattern; `words` rejects all others."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        return value if compiled.fullmatch(value) else reject(words)

    return AfterValidator(check)


def _fixed_header(name: str) -> str:
    return reject("controls the connection and cannot be set") if name.lower() in FRAMING else name


def _name(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        reject("must be a name: printable, without spaces around it")
    return value


def _plain_text(value: object) -> str:
    """Accept any string. An `Interpolated` stays one, so that it is masked when shown."""
    if not isinstance(value, str):
        reject("must be a string")
    return value


def header_text(value: object) -> str:
    """Accept the value of a header. An `Interpolated` stays one."""
    value = _plain_text(value)
    if not _fits_header(value):
        reject("has characters that an HTTP header cannot carry (control characters, or outside Latin-1)")
    return value


def _fits_header(text: str) -> bool:
    """Whether a text is Latin-1 without CR, LF and other control characters."""
    return text.isprintable() and all(ord(character) < 256 for character in text)


def _template(value: str) -> str:
    if "{token}" not in value:
        reject("must contain {token}")
    return header_text(value)


def _repair_name(value: str) -> str:
    if value not in known_names():
        reject(f"unknown repair, {suggestion(value, known_names())}")
    if value == DECODE_TOKEN_IDS.name and find_spec("tiktoken") is None:
        reject(f"{value} needs the package tiktoken: {install_command('tiktoken')}")
    return value


def _endpoint_name(value: str) -> str:
    if value != "*" and value not in ENDPOINT_NAMES:
        reject(f"unknown endpoint, {suggestion(value, ENDPOINT_NAMES)}")
    return value


def _target(value: object) -> str | Mapping[str, int]:
    """Accept the name of an upstream, or a table of names and weights."""
    if not isinstance(value, Mapping):
        if not isinstance(value, str):
            reject("must be the name of an upstream, or a table of several with their weights")
        return value
    if not value:
        reject("names no upstream")
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 < weight <= WEIGHT_MAX:
            reject(f"must be the weight of the upstream, a whole number from 1 to {WEIGHT_MAX}", str(name))
    return frozen(value)


def _host_name(value: str) -> str:
    name = value.lower().strip("[]").removesuffix(".")
    if name != "*" and not _is_address(name) and not all(map(_HOST_LABEL.fullmatch, name.split("."))):
        reject('must be a host name or address without scheme and port, such as "llm.corp.example"')
    return name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        reject('must be an address or a network, such as "10.0.0.0/8"')


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value.lower()):
        reject("must be 64 hexadecimal digits: the SHA-256 of the key")
    return value.lower()


# --- URLs

_EMBEDDED_PATH = re.compile(rf"{EMBEDDED}/(?!/)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")  # urlsplit silently drops some of these


def origin(value: str) -> str:
    """Return the origin of a page as browsers write it: scheme, host, and the port unless it is the default.

    Raises:
        ValidationError: The value is not an origin.
    """
    _check_url(value)
    parts = urlsplit(value.lower())
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query:
        reject("must be an origin: scheme, host and port, without a path")
    default_port = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{parts.netloc.removesuffix(f':{default_port}')}"


def _base_url(url: str) -> str:
    if "?" in url:
        reject("must not have a query")
    base = _endpoint_url(url).rstrip("/")
    for endpoint in Shape:
        if base.endswith(f"/{endpoint}"):
            reject(f"must not include /{endpoint}: the caller's path is appended")
    return base


def _endpoint_url(url: str) -> str:
    if url.startswith(EMBEDDED):
        if not _EMBEDDED_PATH.match(url):
            reject("must have a path after embedded: such as embedded:/v1")
        _check_url(f"http://gateway{url.removeprefix(EMBEDDED)}")
    else:
        _check_url(url)
    if "@" in urlsplit(url).netloc:
        reject("must not contain a user name or password: use a credential")
    return url


def _check_url(url: str) -> str:
    """Reject anything but an absolute http URL. The URL is not repeated: it may contain a password."""
    if _UNSAFE.search(url):
        reject("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        reject("is not a valid URL")
    if parts.scheme not in {"http", "https"} or not host:
        reject("must be an http:// or https:// URL with a host")
    if "#" in url:
        reject("must not have a fragment (#)")
    return url


# --- secrets


def secret(value: object) -> Secret:
    """Wrap a non-empty string."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str):
        reject("must be a string")
    if not text:
        reject("is empty")
    return Secret(str(text))


def _key(value: object) -> Secret:
    """Wrap a string that fits in a header and is not a placeholder from an example."""
    wrapped = secret(value)
    text = wrapped.reveal()
    if not text.isascii() or not text.isprintable() or text != text.strip():
        # Servers disagree on how to decode header bytes outside ASCII.
        reject("does not fit in an HTTP header: it has surrounding spaces, control or non-ASCII characters")
    plain = re.sub(r"[\s_-]", "", text.lower())
    for kind, pattern in _PLACEHOLDERS.items():
        if re.fullmatch(pattern, plain):
            reject(f"is a placeholder ({kind}): replace it with the real key")
    return wrapped


# --- files


def _readable(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path against the settings folder (validation context `folder`) and check it can be read."""
    located: Path = (info.context or {}).get("folder", Path()) / path
    try:
        with open_regular(located):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not the path of a file"
        reject(f"{_named(path, located)} cannot be read: {reason}")
    return located


def _named(written: Path, located: Path) -> str:
    """Name a file in a message, unless the text could be a secret in the wrong place."""
    text = str(written)
    is_path = "/" in text or _SUFFIX.fullmatch(written.suffix) is not None
    is_other = not text.isprintable() or "@" in text or re.match("[a-z]+:", text)
    return f"the file {located}" if is_path and not is_other else "the file"


def _certificates(path: Path) -> Path:
    if not _has_certificate(path):
        reject(f"{_named(path, path)} {_NO_CERTIFICATE}")
    return path


def _has_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:  # of OpenSSL too
        return False
    return True


def check_client_certificate(certificate: Path, key: Path | None) -> None:
    """Reject a client certificate and key that a TLS context does not accept.

    Args:
        certificate: The file of `client_cert`.
        key: The file of `client_key`; by default the key is in the file of the certificate.

    Raises:
        ValidationError: At the key of the file that is wrong.
    """
    name, path = ("client_cert", certificate) if key is None else ("client_key", key)
    try:
        # Without a password OpenSSL would prompt on the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason in _MISMATCHES:
            reject(f"{_named(path, path)} contains the private key of another certificate", name)
        if reason is not None:
            reject(f"{_named(certificate, certificate)} cannot be used: {reason}", "client_cert")
        if not _has_certificate(certificate):
            reject(f"{_named(certificate, certificate)} {_NO_CERTIFICATE}", "client_cert")
        if b"ENCRYPTED" in _content(path):
            reject(f"{_named(path, path)} is encrypted: give the key without a pass phrase", name)
        reject(f"{_named(path, path)} contains no private key in PEM form", name)


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError:
        return b""


Seconds = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Count = Annotated[int, BeforeValidator(_number), Field(gt=0)]
Tries = Annotated[int, BeforeValidator(_number), Field(ge=0, le=10)]
Status = Annotated[int, BeforeValidator(_number), Field(ge=400, le=599)]
WholeNumber = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Name = Annotated[str, AfterValidator(_name)]
NginxName = Annotated[
    str,
    matching(r"[A-Za-z0-9_-]+", "must consist of letters, digits, _ and - so that nginx can use the name"),
]
DottedPath = Annotated[
    str, matching(r"[^.]+(\.[^.]+)*+", 'must be a path into the reply, such as "data.token"')
]
PlainText = Annotated[str, Checked(_plain_text)]
UtcOffset = Annotated[
    str, matching(r"[+-](?:0\d|1[0-4]):[0-5]\d", 'must be an offset from UTC, such as "+08:00" or "+00:00"')
]
HeaderName = Annotated[str, matching(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "is not a valid header name")]
"""A token of RFC 9110 5.6.2."""
FixedHeaderName = Annotated[HeaderName, AfterValidator(_fixed_header)]
"""The name of a header that is the same in every request."""
HeaderText = Annotated[str, Checked(header_text)]
Template = Annotated[str, AfterValidator(_template)]
Rate = Annotated[
    str,
    matching(
        r"[1-9]\d*\s*/\s*([1-9]\d*\s+)?(second|minute|hour|day)s?",
        'must be a rate, such as "600/minute" or "10/5 seconds"',
    ),
]
RepairName = Annotated[str, AfterValidator(_repair_name)]
EndpointName = Annotated[str, AfterValidator(_endpoint_name)]
"""An endpoint of `proxy.wire.endpoints`, or `*` for all paths."""
RouteTarget = Annotated[str | Mapping[str, int], Checked(_target)]
"""The name of an upstream, or several names with weights."""
HostName = Annotated[str, AfterValidator(_host_name)]
Network = Annotated[str, AfterValidator(_network)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
SecretText = Annotated[Secret, Checked(secret)]
KeyText = Annotated[Secret, Checked(_key)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
CaFile = Annotated[Path, AfterValidator(_readable), AfterValidator(_certificates)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
ProxyUrl = Annotated[str, AfterValidator(_check_url)]

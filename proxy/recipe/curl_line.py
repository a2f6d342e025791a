"""Parse a curl command, as copied from a shell or a browser, into the request that it sends.

For the options, see https://curl.se/docs/manpage.html. The command is never passed to a shell. Strings may
contain references to shell variables, as `shell_words` marks them.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from proxy.recipe.curl_options import Options, read_options
from proxy.recipe.shell_words import (
    CLOSE,
    OPEN,
    REFERENCE,
    ComputedLine,
    CurlLineError,
    split_words,
)
from proxy.recipe.windows_words import windows_words

Pairs = tuple[tuple[str, str], ...]
ReadFile = Callable[[str], bytes]

FORM: Final = "application/x-www-form-urlencoded"
_TYPOGRAPHIC: Final = ("\u201c", "\u201d", "\u2018", "\u2019", "\uff02", "\u2013", "\u2014")
"""The quotes and dashes that word processors and chat programs write instead of `"`, `'`, `-` and `--`."""
_CURL: Final = re.compile(r"\bcurl\b")
_GLOB: Final = re.compile(r"\\(?P<escaped>[{}\[\]])|[{}\[\]]")
_ASSIGNMENT: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)=")
_PROXY_NAMES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_NOT_IN_USER: Final = re.compile(f"[^A-Za-z0-9._~:%{OPEN}{CLOSE}-]")
"""Characters of `-U` that are escaped in a URL; not `%`, because curl decodes `%XX` there."""
METHODS: Final = ("GET", "POST", "PUT", "PATCH")
_CONNECTION_HEADERS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding"}
)
_SINGLE_HEADERS: Final = frozenset({"authorization", "content-type", "host", "referer", "user-agent"})
_BROWSER_HEADERS: Final = (
    *("sec-", "upgrade-insecure-requests", "dnt", "priority", "pragma", "cache-control"),
    "postman-token",  # a new number in each request of Postman, against caches
)


@dataclass(frozen=True, repr=False, kw_only=True)
class CurlRequest:
    """A request for a token. It has no repr, because it contains secrets."""

    method: str
    url: str
    """The URL without user, query and fragment."""
    query: dict[str, str]
    headers: dict[str, str]
    json: object = None
    form: dict[str, str] | None = None
    basic: tuple[str, str] | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    timeout: float | None = None
    """Seconds."""
    notes: tuple[str, ...] = ()
    """Notes on ignored or changed parts, with reasons but without any text of the request."""


def parse_curl(line: str, read_file: ReadFile = lambda name: Path(name).read_bytes()) -> CurlRequest:
    """Parse a command.

    Args:
        line: The command, with or without `$`, `curl` or `TOKEN=$(` at the beginning.
        read_file: Reads the file of `--data @file`.

    Raises:
        CurlLineError: The command cannot be converted; the message explains why.
    """
    words, left_out = windows_words(line) or split_words(line)
    if any(word.startswith(_TYPOGRAPHIC) for word in words):
        raise CurlLineError("there are curly quotes or long dashes: replace them with \" or ' and -")
    words = words[1:] if words[:1] in (["$"], ["%"], ["#"]) else words
    if words and Path(words[0]).name.lower() in {"curl", "curl.exe"}:
        words = words[1:]
    elif words and (assignment := _ASSIGNMENT.match(words[0])):
        if assignment["name"].lower() in _PROXY_NAMES:
            raise CurlLineError(
                f"{assignment['name']}=: variables before curl are not read: write -x instead"
            )
        raise ComputedLine
    elif words and "://" not in words[0] and not words[0].startswith("-"):
        if _CURL.search(line):
            raise ComputedLine  # it sets variables, or pipes a body to curl
        raise CurlLineError('this is not a curl command: it must begin with "curl"')
    options = read_options(words)
    notes = ["everything after the curl command is ignored"] if left_out else []
    return _Parser(options, read_file, notes).request()


class _Parser:
    """Parses one command."""

    def __init__(self, options: Options, read_file: ReadFile, notes: list[str]) -> None:
        self._options = options
        self._notes = notes
        self._url = _split_url(options)
        self._headers, self._replaced = _headers(options)
        self._body = joined(options.data, read_file)
        self._default_type()

    def request(self) -> CurlRequest:
        options = self._options
        self._note_flags()
        query = pairs_of(self._url.query, "the URL's query")
        if "get" in options.flags and self._body is not None:
            query += pairs_of(self._body, "--get")
            self._body = None
        method, (json, form) = self._method(), self._read_body()
        cert, key = _certificate(options)
        return CurlRequest(
            method=method,
            url=urlunsplit((self._url.scheme, self._url.netloc.rpartition("@")[2], self._url.path, "", "")),
            query=without_repeats(query, "the query"),
            basic=self._basic(),
            headers=self._kept_headers(is_json=json is not None, is_form=form is not None),
            json=json,
            form=form,
            ca_file=_file(options, "cacert"),
            client_cert=cert,
            client_key=key,
            proxy=_proxy(options),
            timeout=_seconds(options),
            notes=tuple(self._notes),
        )

    def _note_flags(self) -> None:
        flags = self._options.flags
        if "insecure" in flags:
            self._notes.append(
                "-k is ignored: certificates are always verified; set ca_file to the issuer's certificate"
            )
        if flags & {"location", "location-trusted"}:
            self._notes.append(
                "-L is ignored: redirects are not followed, because they could leak the secret"
            )

    def _method(self) -> str:
        method = (self._options.last("request") or ("GET" if self._body is None else "POST")).upper()
        if method not in METHODS:
            raise CurlLineError(f"-X: the method must be one of {', '.join(METHODS)}")
        return method

    def _header(self, name: str) -> str | None:
        return next((value for key, value in self._headers.items() if key.lower() == name), None)

    def _default_type(self) -> None:
        """Add the headers that curl adds for a body."""
        json = any(option == "json" for option, _ in self._options.data)
        if self._body is not None and json:
            if self._header("content-type") is None:
                self._headers["Content-Type"] = "application/json"
            if "accept" not in self._replaced:
                self._headers["Accept"] = "application/json"

    def _read_body(self) -> tuple[object, dict[str, str] | None]:
        """Return the body as JSON, or as the fields of a form."""
        text = self._body
        if not text:
            return None, None
        media = (self._header("content-type") or "").partition(";")[0].strip().lower()
        if media.endswith("json"):
            return self._json(text), None
        if not media and text.lstrip().startswith(("{", "[")):
            self._notes.append(
                "the body is JSON, so it is sent as application/json, although curl would send a form"
            )
            return self._json(text), None
        if media not in {"", FORM} or "=" not in text:
            raise CurlLineError("the body is neither JSON nor a form: the http source cannot send it")
        return None, without_repeats(pairs_of(text, "the form"), "the form")

    def _json(self, text: str) -> object:
        try:
            value = parse_json(text)
        except ValueError:
            raise CurlLineError("the body should be JSON but is not: check its quotes") from None
        if value is None:
            raise CurlLineError("the body is null, which cannot be a request for a token")
        return value

    def _basic(self) -> tuple[str, str] | None:
        """Return user and password from an Authorization header, `--user` or the URL, in curl's order."""
        user = self._options.last("user")
        if user is None and "@" in self._url.netloc:
            user = unquote(self._url.netloc.rpartition("@")[0])
        authorization = self._header("authorization")
        if authorization is not None or "authorization" in self._replaced:
            if user is not None:
                self._notes.append("-u is ignored: as in curl, the Authorization header replaces it")
            scheme, _, credentials = (authorization or "").partition(" ")
            user = _decoded(credentials.strip()) if scheme.lower() == "basic" else None
        if user is None:
            return None
        name, colon, password = user.partition(":")
        if not colon:
            raise CurlLineError("-u: give the password as well, as user:password")
        self._headers = {k: v for k, v in self._headers.items() if k.lower() != "authorization"}
        if not password:  # the settings do not accept an empty password
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
            return None
        return name, password

    def _kept_headers(self, *, is_json: bool, is_form: bool) -> dict[str, str]:
        """Return the headers without those that every request has, and those that browsers add."""
        url, host = self._url, self._url.netloc.rpartition("@")[2].lower()
        implied = {"accept": "*/*", "host": host}
        if (self._header("authority") or "").lower() == host:  # the pseudo-headers of HTTP/2
            path = urlunsplit(("", "", url.path, url.query, "")).lower()
            method = self._method().lower()
            implied |= {"authority": host, "method": method, "path": path, "scheme": url.scheme}
        if is_json or is_form:
            implied["content-type"] = "application/json" if is_json else FORM
        return {
            name: value
            for name, value in self._headers.items()
            if name.lower() not in _CONNECTION_HEADERS
            and not name.lower().startswith(_BROWSER_HEADERS)
            and implied.get(name.lower()) != value.strip().lower()
        }


def _split_url(options: Options) -> SplitResult:
    urls = options.urls
    if len(urls) != 1:
        words = (
            "there are several URLs: is an & or a space outside of quotes?"
            if urls
            else "there is no URL in the line"
        )
        raise CurlLineError(words)
    url = urls[0].strip()
    if "://" not in url and not url.startswith(OPEN):
        url = f"http://{url}"  # like curl
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port if OPEN not in parts.netloc else None
    except ValueError:
        raise CurlLineError("the URL is not valid") from None
    if parts.scheme not in {"http", "https"} and not url.startswith(OPEN):
        raise CurlLineError("the URL must be http:// or https://")
    if not parts.netloc and not url.startswith(OPEN):
        raise CurlLineError("the URL has no host")
    if "globoff" in options.flags:
        return parts
    return parts._replace(path=_GLOB.sub(_unescaped, parts.path), query=_GLOB.sub(_unescaped, parts.query))


def _unescaped(found: re.Match[str]) -> str:
    """Return a brace or bracket that a backslash protects, as browsers write it; curl expands any other."""
    if found["escaped"] is None:
        raise CurlLineError(
            "{ } and [ ] in a URL make several requests: replace a placeholder by its value, or add -g"
        )
    return str(found["escaped"])


def _headers(options: Options) -> tuple[dict[str, str], frozenset[str]]:
    """Return headers by name, and the lower-case names of those of `-H`, which replace other options.

    Repeated ones are joined (RFC 9110 5.2). A `-H` without a value removes a header.
    """
    headers: dict[str, str] = {}
    replaced = set()
    for line in options.values.get("header", ()):
        if line.startswith("@"):
            raise CurlLineError("-H @FILE: headers are not read from files: write them into the line")
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon and line.endswith(";"):
            name = line[:-1].strip()
        elif not colon or not name:
            raise CurlLineError("-H: write a header as Name: value")
        replaced.add(name.lower())
        if colon and not value:
            continue
        known = next((key for key in headers if key.lower() == name.lower()), None)
        if known is None:
            headers[name] = value
        elif known.lower() not in _SINGLE_HEADERS:
            headers[name] = headers.pop(known) + ("; " if known.lower() == "cookie" else ", ") + value
        elif headers[known] != value:
            raise CurlLineError(f"-H: {known} occurs twice with different values")
    others = {
        "User-Agent": options.last("user-agent"),
        "Referer": options.last("referer"),
        **_cookies(options),
    }
    bearer = options.last("oauth2-bearer")
    others["Authorization"] = None if bearer is None else f"Bearer {bearer}"
    for name, given in others.items():
        if given and name.lower() not in replaced:
            headers[name] = given.strip()
    return headers, frozenset(replaced)


def _cookies(options: Options) -> dict[str, str]:
    cookies = options.values.get("cookie", ())
    if any("=" not in cookie for cookie in cookies):
        raise CurlLineError("-b FILE: cookies are not read from files: write them as name=value")
    return {"Cookie": "; ".join(cookies)} if cookies else {}


def _decoded(text: str) -> str | None:
    try:
        user = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return user if ":" in user and user.isprintable() else None


def _certificate(options: Options) -> tuple[str | None, str | None]:
    cert, key = _file(options, "cert"), _file(options, "key")
    if cert is not None and ":" in cert:
        raise CurlLineError(
            "--cert FILE:PASSWORD: a certificate with a password is not supported: decrypt it"
        )
    if key is not None and cert is None:
        raise CurlLineError("--key: requires --cert as well")
    return cert, key


def _file(options: Options, name: str) -> str | None:
    value = options.last(name)
    if value is not None and REFERENCE.search(value):
        raise CurlLineError(f"--{name}: write the file's path instead of a shell variable")
    return value


def _proxy(options: Options) -> str | None:
    proxy = options.last("proxy")
    if not proxy or proxy.startswith(OPEN):
        return proxy or None
    scheme, separator, rest = proxy.partition("://")
    if not separator:
        scheme, rest = "http", proxy
    if scheme not in {"http", "https"}:
        raise CurlLineError("-x: only http:// and https:// proxies are supported")
    user = options.last("proxy-user")
    if not user or "@" in rest:
        return f"{scheme}://{rest}"
    escaped = _NOT_IN_USER.sub(lambda character: quote(character[0], safe=""), user)
    return f"{scheme}://{escaped}@{rest}"


def _seconds(options: Options) -> float | None:
    given = options.last("max-time")
    try:
        seconds = None if given is None else float(given)
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < 1e6:
        raise CurlLineError("-m: must be a number of seconds")
    return seconds


def joined(pieces: Sequence[tuple[str, str]], read_file: ReadFile) -> str | None:
    """Join the values of `--data`, `--json` and similar options; None if there are none.

    Raises:
        CurlLineError: A file cannot be read.
    """
    if not pieces:
        return None
    text = "".join(
        ("" if option == "json" else "&") + _piece(option, value, read_file) for option, value in pieces
    )
    return text if pieces[0][0] == "json" else text[1:]


def _piece(option: str, value: str, read_file: ReadFile) -> str:
    if option == "data-urlencode":
        return _urlencoded(value, read_file)
    if not value.startswith("@") or option == "data-raw":
        return value
    text = file_text(f"--{option}", value[1:], read_file)
    return text if option != "data" else text.replace("\r", "").replace("\n", "").replace("\0", "")


def _urlencoded(value: str, read_file: ReadFile) -> str:
    """Encode `content`, `=content`, `name=content`, `@file` or `name@file`."""
    name, equals, content = value.partition("=")
    if not equals:
        name, at, file = value.partition("@")
        content = file_text("--data-urlencode", file, read_file) if at else value
        name = name if at else ""
    encoded = quote(content, safe=f"-._~{OPEN}{CLOSE}")
    for mark in (OPEN, CLOSE):
        encoded = encoded.replace(quote(mark), mark)
    return f"{name}={encoded}" if name else encoded


def file_text(option: str, name: str, read_file: ReadFile) -> str:
    """Return the text of a file that the command names.

    Raises:
        CurlLineError: The file cannot be read, or must not be.
    """
    if name == "-" or REFERENCE.search(name):
        raise CurlLineError(
            f"{option}: the body must not come from standard input or from a file that a shell variable names"
        )
    try:
        text = read_file(name).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CurlLineError(f"{option} @FILE: the file cannot be read: {reason}") from None
    if OPEN in text or CLOSE in text:
        raise CurlLineError(f"{option} @FILE: the file contains private-use characters")
    return text


def parse_json(text: str) -> object:
    """Parse JSON.

    Raises:
        ValueError: It is not valid JSON, or cannot be represented in TOML (NaN, lone surrogates).
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError("a number is too large")
    return number


def pairs_of(text: str, what: str) -> Pairs:
    """Decode the fields of a form or a query.

    Raises:
        CurlLineError: The decoded text is not UTF-8.
    """
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000))
    except ValueError:
        raise CurlLineError(
            f"{what}: the percent-encoding is not UTF-8, or there are too many fields"
        ) from None


def without_repeats(pairs: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """Convert fields to a table.

    Raises:
        CurlLineError: A name occurs twice with different values.
    """
    table: dict[str, str] = {}
    for name, value in pairs:
        if table.setdefault(name, value) != value:
            raise CurlLineError(f"{what}: a field occurs twice, which is not supported")
    return table

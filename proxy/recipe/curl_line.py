"""Read a curl command line, as copied from a shell or a browser, into the request that it sends.

What curl does with each option is in its manual page, https://curl.se/docs/manpage.html. The line is never
handed to a shell. Strings may hold references to shell variables, as `shell_words` marks them.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from proxy.recipe.curl_options import Options, read_options
from proxy.recipe.request_body import FORM, ReadFile, joined, pairs_of, parse_json, without_repeats
from proxy.recipe.shell_words import OPEN, REFERENCE, ComputedLine, CurlLineError, Words, split_words
from proxy.recipe.windows_words import windows_words

_CURL: Final = re.compile(r"\bcurl\b")
METHODS: Final = ("GET", "POST", "PUT", "PATCH")
_OF_THE_CONNECTION: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding"}
)
_ONCE: Final = frozenset({"authorization", "content-type", "host", "referer", "user-agent"})
_BROWSER_NOISE: Final = ("sec-", "upgrade-insecure-requests", "dnt", "priority", "pragma", "cache-control")


@dataclass(frozen=True, repr=False, kw_only=True)
class CurlRequest:
    """One request for a token. Its repr shows nothing, for it holds secrets."""

    method: str
    url: str
    """Without user, query and fragment."""
    query: dict[str, str]
    headers: dict[str, str]
    json: Any = None
    form: dict[str, str] | None = None
    basic: tuple[str, str] | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    timeout: float | None = None
    """Seconds."""
    notes: tuple[str, ...] = ()
    """What is not carried over as it stands, and why: sentences without a byte of the request."""


def parse_curl(line: str, read_file: ReadFile = lambda name: Path(name).read_bytes()) -> CurlRequest:
    """Read a line.

    Args:
        line: With or without `$`, `curl` or `TOKEN=$(` in front.
        read_file: For `--data @file`.

    Raises:
        CurlLineError: one sentence that names what is wrong.
    """
    copied = windows_words(line)
    words, left_out = split_words(line) if copied is None else Words(copied, left_out=False)
    words = words[1:] if words[:1] in (["$"], ["%"], ["#"]) else words
    if words and Path(words[0]).name.lower() in {"curl", "curl.exe"}:
        words = words[1:]
    elif words and "://" not in words[0] and not words[0].startswith("-"):
        if _CURL.search(line):
            raise ComputedLine  # it sets variables, or pipes a body into curl
        raise CurlLineError('this is no curl command: it must begin with "curl"')
    options = read_options(words)
    notes = ["what follows the command in the line is left out"] if left_out else []
    return _Reader(options, read_file, notes).request()


class _Reader:
    """One line being read."""

    def __init__(self, options: Options, read_file: ReadFile, notes: list[str]) -> None:
        self._options = options
        self._notes = notes
        self._url = _split_url(options.urls)
        self._headers = _headers(options)
        self._body = joined(options.data, read_file)
        self._default_type()

    def request(self) -> CurlRequest:
        options = self._options
        self._note_flags()
        query = pairs_of(self._url.query, "the URL's query")
        if "get" in options.flags and self._body is not None:
            query += pairs_of(self._body, "--get")
            self._body = None
            self._headers.pop("Content-Type", None)
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
                "-k is not carried over: certificates are always checked; name the issuer's in ca_file"
            )
        if flags & {"location", "location-trusted"}:
            self._notes.append(
                "-L is not carried over: no redirect is followed, it would carry the secret on"
            )

    def _method(self) -> str:
        method = (self._options.last("request") or ("GET" if self._body is None else "POST")).upper()
        if method not in METHODS:
            raise CurlLineError(f"-X: the method must be one of {', '.join(METHODS)}")
        return method

    def _header(self, name: str) -> str | None:
        return next((value for key, value in self._headers.items() if key.lower() == name), None)

    def _default_type(self) -> None:
        """What curl itself adds for a body."""
        json = any(option == "json" for option, _ in self._options.data)
        if self._body is not None and json:
            if self._header("content-type") is None:
                self._headers["Content-Type"] = "application/json"
            if self._header("accept") is None:
                self._headers["Accept"] = "application/json"

    def _read_body(self) -> tuple[Any, dict[str, str] | None]:
        """The body as JSON, or as the fields of a form."""
        text = self._body
        if not text:
            return None, None
        media = (self._header("content-type") or "").partition(";")[0].strip().lower()
        if media.endswith("json"):
            return self._json(text), None
        if not media and text.lstrip().startswith(("{", "[")):
            self._notes.append("the body is JSON, and sent as application/json where curl says it is a form")
            return self._json(text), None
        if media not in {"", FORM} or "=" not in text:
            raise CurlLineError("the body is neither JSON nor a form: no recipe can say it")
        return None, without_repeats(pairs_of(text, "the form"), "the form")

    def _json(self, text: str) -> Any:
        try:
            value = parse_json(text)
        except ValueError:
            raise CurlLineError("the body should be JSON, and is not: check its quotes") from None
        if value is None:
            raise CurlLineError("the body is null: that is no request for a token")
        return value

    def _basic(self) -> tuple[str, str] | None:
        """User and password of `--user`, of the URL, or of an Authorization header."""
        user = self._options.last("user")
        if user is None and "@" in self._url.netloc:
            user = unquote(self._url.netloc.rpartition("@")[0])
        authorization = self._header("authorization") or ""
        if user is None and authorization[:6].lower() == "basic ":
            user = _decoded(authorization[6:].strip())
        if user is None:
            return None
        name, colon, password = user.partition(":")
        if not colon:
            raise CurlLineError("-u: give the password too, as user:password")
        self._headers = {k: v for k, v in self._headers.items() if k.lower() != "authorization"}
        if not password:  # the settings take no empty secret for a password
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
            return None
        return name, password

    def _kept_headers(self, *, is_json: bool, is_form: bool) -> dict[str, str]:
        """Without those that every request gets in any case, and those that browsers add of themselves."""
        implied = {"accept": "*/*", "host": self._url.netloc.rpartition("@")[2].lower()}
        if is_json or is_form:
            implied["content-type"] = "application/json" if is_json else FORM
        return {
            name: value
            for name, value in self._headers.items()
            if name.lower() not in _OF_THE_CONNECTION
            and not name.lower().startswith(_BROWSER_NOISE)
            and implied.get(name.lower()) != value.strip().lower()
        }


def _split_url(urls: tuple[str, ...]) -> SplitResult:
    if len(urls) != 1:
        words = "several URLs: an & or a space outside of quotes?" if urls else "no URL in the line"
        raise CurlLineError(words)
    url = urls[0].strip()
    if "://" not in url and not url.startswith(OPEN):
        url = f"http://{url}"  # as curl takes it
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port if OPEN not in parts.netloc else None
    except ValueError:
        raise CurlLineError("the URL is not valid") from None
    if parts.scheme not in {"http", "https"} and not url.startswith(OPEN):
        raise CurlLineError("the URL must be http:// or https://")
    if not parts.netloc and not url.startswith(OPEN):
        raise CurlLineError("the URL names no host")
    return parts


def _headers(options: Options) -> dict[str, str]:
    """Headers by name, as last spelled; repeated ones joined (RFC 9110 5.2), emptied ones gone."""
    headers: dict[str, str] = {}
    spelled = {"user-agent": "User-Agent", "referer": "Referer", "oauth2-bearer": "Authorization"}
    lines = [f"{spelled[name]}: {options.last(name)}" for name in spelled if options.last(name) is not None]
    lines = [line.replace(": ", ": Bearer ", 1) if line.startswith("Auth") else line for line in lines]
    for line in [*lines, *_cookies(options), *options.values.get("header", ())]:
        if line.startswith("@"):
            raise CurlLineError("-H @FILE: headers are not read from files: write them into the line")
        name, colon, value = line.partition(":")
        if not colon and line.endswith(";"):
            name, value = line[:-1], ""
        elif not value.strip():
            continue
        if not name.strip():
            raise CurlLineError("-H: a header is written as Name: value")
        known = next((key for key in headers if key.lower() == name.strip().lower()), None)
        if known is not None and known.lower() in _ONCE:
            del headers[known]
        elif known is not None:
            between = "; " if known.lower() == "cookie" else ", "
            value = headers.pop(known) + between + value.strip()
        headers[name.strip()] = value.strip()
    return headers


def _cookies(options: Options) -> list[str]:
    cookies = options.values.get("cookie", ())
    if any("=" not in cookie for cookie in cookies):
        raise CurlLineError("-b FILE: cookies are not read from files: write them as name=value")
    return [f"Cookie: {'; '.join(cookies)}"] if cookies else []


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
        raise CurlLineError("--key: needs --cert beside it")
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
    return f"{scheme}://{user}@{rest}" if user and "@" not in rest else f"{scheme}://{rest}"


def _seconds(options: Options) -> float | None:
    given = options.last("max-time")
    try:
        seconds = None if given is None else float(given)
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < 1e6:
        raise CurlLineError("-m: must be a number of seconds")
    return seconds

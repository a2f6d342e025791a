"""Draft a request for the settings: replace secrets by references to environment variables (pure).

Shell variables become such references, too. Timestamps and request ids become references that are resolved
with each request.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from proxy.recipe.curl_line import CurlRequest
from proxy.recipe.shell_words import REFERENCE
from proxy.secret import Secret
from proxy.secret_detection import SIGNATURE_WORDS, is_harmless, is_jwt, is_random, is_uuid, words_of

_EPOCH: Final = re.compile(r"[12]\d{9}")
_EPOCH_MS: Final = re.compile(r"[12]\d{12}")
_MOMENTS: Final = frozenset({"timestamp", "ts", "time", "now", "t", "requesttime", "reqtime", "currenttime"})
_REQUEST_ID_WORDS: Final = frozenset(
    {"nonce", "request", "req", "trace", "correlation", "message", "msg", "transaction"}
    | {"idempotency", "uuid"}
)
_SECRET_DIGITS_MIN: Final = 4
"""A shorter number is an option or a version rather than a secret."""
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9_-]* +)(?P<rest>\S+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that the block uses."""

    name: str
    where: str
    """The field that it supplies."""
    value: Secret | None = None
    """The secret; None for a variable that the command already uses."""


@dataclass(frozen=True)
class Draft:
    """A table of `[credentials.NAME]` without secrets."""

    table: Mapping[str, Any]
    """The table as in TOML; the settings check its values."""
    variables: tuple[Variable, ...]
    notes: tuple[str, ...]


def take_secrets_out(request: CurlRequest, name: str) -> Draft:
    """Write a request in the form of the settings.

    Args:
        request: The request of the command.
        name: The name of the credential, from which the names of the variables are derived.
    """
    masking = _Masking(name, request)
    table: dict[str, object] = {"url": masking.url(request.url), "method": request.method}
    for part in ("query", "headers", "json", "form"):
        value = getattr(request, part)
        if value is not None and (value != {} or part in {"json", "form"}):
            table[part] = masking.tree(part, "", value)
    if request.basic is not None:
        user, password = request.basic
        table["basic"] = [masking.plain(user), masking.secret("password", "basic", password)]
    table |= {
        key: masking.plain(value)
        for key in ("ca_file", "client_cert", "client_key")
        if (value := getattr(request, key)) is not None
    }
    if request.proxy is not None:
        has_user = "@" in request.proxy
        table["proxy"] = (
            masking.secret("proxy", "proxy", request.proxy) if has_user else masking.plain(request.proxy)
        )
    if request.timeout is not None:
        table["timeout"] = request.timeout
    return Draft(table, tuple(masking.variables.values()), (*request.notes, *dict.fromkeys(masking.notes)))


@dataclass
class _Masking:
    """Replaces the secrets of one request, and collects the variables."""

    name: str
    request: CurlRequest = field(repr=False)
    variables: dict[str, Variable] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        line = json.dumps(asdict(self.request), ensure_ascii=False)
        for name in REFERENCE.findall(line):  # first, so that no secret takes such a name
            self.variables[name] = Variable(name, "a shell variable in the command line")
        parts = (self.request.query, self.request.headers, self.request.json, self.request.form)
        self._signed = any(_has_signature(part) for part in parts)
        if self._signed:
            self.notes.append(
                "a field looks like a signature of this request: if the endpoint verifies it, "
                'a command has to get the token (source = "exec")'
            )

    def tree(self, part: str, key: str, value: object) -> object:
        """Convert all strings of a table or JSON value."""
        if isinstance(value, Mapping):
            self._note_null(value.values())
            return {name: self.tree(part, name, item) for name, item in value.items() if item is not None}
        if isinstance(value, list):
            self._note_null(value)
            return [self.tree(part, key, item) for item in value if item is not None]
        if isinstance(value, bool) or not isinstance(value, str | int):
            return value
        late = self._late(part, key, str(value))
        if late is not None:
            return late
        if isinstance(value, str):
            return self.text(part, key, value)
        return self._number(part, key, value)

    def _note_null(self, values: Collection[object]) -> None:
        if any(value is None for value in values):
            self.notes.append("null values are omitted: TOML has no null")

    def text(self, part: str, key: str, value: str) -> str:
        """Convert a string; a secret becomes a reference."""
        if not value or REFERENCE.search(value):
            return self.plain(value)
        if is_harmless(key, value):
            return self.plain(value)
        if part == "headers" and (scheme := _SCHEME.fullmatch(value)):
            self._note_token(key, scheme["rest"])
            return f"{scheme['scheme']}{self.secret(key, part, scheme['rest'])}"
        self._note_token(key, value)
        return self.secret(key, part, value)

    def _number(self, part: str, key: str, value: int) -> int | str:
        if not is_harmless(key, value) and len(str(value)) >= _SECRET_DIGITS_MIN:
            self.notes.append(f'"{key}" was a number and is sent as a string')
            return self.secret(key, part, str(value))
        return value

    def _late(self, part: str, key: str, value: str) -> str | None:
        """Return `${now}`, `${now_ms}` or `${uuid}` for a timestamp or request id."""
        if self._signed:
            return None
        words = words_of(key)
        if "".join(words) in _MOMENTS and (_EPOCH.fullmatch(value) or _EPOCH_MS.fullmatch(value)):
            kind = "now" if _EPOCH.fullmatch(value) else "now_ms"
            form = ", as a number" if part == "json" else ""
            self.notes.append(f'"{key}" was the time of the request: ${{{kind}}} is the current time{form}')
            return f"${{{kind}}}"
        if is_uuid(value) and _REQUEST_ID_WORDS.intersection(words):
            self.notes.append(f'"{key}" was the id of the request: ${{uuid}} is a new id for each request')
            return "${uuid}"
        return None

    def _note_token(self, key: str, value: str) -> None:
        if is_jwt(value):
            self.notes.append(
                f'"{key}" is a token that will expire: configure a credential for it, '
                "and write ${credential:NAME} here"
            )
        elif key.lower() == "cookie":
            self.notes.append(
                "the cookie of a browser session expires with it: ask the issuer for a key instead"
            )

    def secret(self, key: str, part: str, value: str) -> str:
        """Return a reference to a variable; equal values of the same field share one."""
        if REFERENCE.search(value):
            return self.plain(value)
        prefix = re.sub(r"\W", "_", self.name, flags=re.ASCII).upper()
        prefix = f"_{prefix}" if prefix[:1].isdigit() else prefix
        stem = "_".join([prefix, *(word.upper() for word in words_of(key))])
        names = [stem, f"{stem}_{part.upper()}", *(f"{stem}_{number}" for number in range(2, 1000))]
        wanted = Secret(value)
        for name in names:
            held = self.variables.setdefault(name, Variable(name, _where(part, key), wanted))
            if held.value == wanted:
                return f"${{env:{name}}}"
        return self.plain("")  # give up after a thousand secrets of the same name

    def plain(self, text: str) -> str:
        """Escape a string for the settings; shell variables become references."""
        written, end = "", 0
        for reference in REFERENCE.finditer(text):
            written += _escaped(text[end : reference.start()]) + f"${{env:{reference[1]}}}"
            end = reference.end()
        return written + _escaped(text[end:])

    def url(self, url: str) -> str:
        """Convert the URL. A random-looking path segment is a secret: some issuers expect a key there."""
        scheme, slashes, rest = url.partition("://")
        host, *steps = (rest if slashes else scheme).split("/")
        written = [
            self.secret("url key", "url", step) if is_random(step) else self.plain(step) for step in steps
        ]
        return (scheme + slashes if slashes else "") + "/".join([self.plain(host), *written])


def _has_signature(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(
            (words_of(key)[-1:] != [] and words_of(key)[-1] in SIGNATURE_WORDS and bool(item))
            or _has_signature(item)
            for key, item in value.items()
        )
    return isinstance(value, list) and any(_has_signature(item) for item in value)


def _where(part: str, key: str) -> str:
    if part == "basic":
        return "the password of HTTP basic authentication"
    if part in {"url", "proxy"}:
        return "a part of the URL" if part == "url" else "the proxy's URL with its password"
    return f'"{key}" of the {"JSON" if part == "json" else part}'


def _escaped(text: str) -> str:
    return text.replace("${", "$${")

"""Explain faults in the reply of a token endpoint, and how to correct them (pure).

The explanations are logged. They contain no text of the reply, except for numeric codes and the error codes
that OAuth 2.0 defines.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from proxy.credentials.sources.reply import UNITS, Reply, duration, has_no_zone, life_of, read_lifetime
from proxy.credentials.token import LifetimeDoubt
from proxy.secret_detection import OAUTH_ERRORS

DAY_SECONDS: Final = 86400.0
_PLAUSIBLE_SECONDS: Final = (30.0, DAY_SECONDS)
"""The usual lifetime of short-lived tokens; any other may be a mistake in the unit."""

_FIELDS: Final = "check the id, the secret and all other fields of the request"
_CREDENTIALS: Final = f"it refuses the request: {_FIELDS}"
REPLY_HINT: Final = "; `token NAME` shows the reply"
"""The end of explanations for readers of the log, who do not see the reply."""
_CODE_NAMES: Final = (
    "code",
    "errcode",
    "errCode",
    "error_code",
    "errorCode",
    "errno",
    "ret",
    "retCode",
    "status",
)
_ERROR_NAMES: Final = ("error", "errors", "error_description")
_MESSAGE_NAMES: Final = ("msg", "message", "errmsg", "errMsg", "errorMessage")
"""Some endpoints write a message such as `success` next to the token."""
_ADVICE: Final[dict[int, str]] = {
    HTTPStatus.BAD_REQUEST: _CREDENTIALS,
    HTTPStatus.UNAUTHORIZED: _CREDENTIALS,
    HTTPStatus.FORBIDDEN: f"{_CREDENTIALS}, and that this machine's address is allowed",
    HTTPStatus.NOT_FOUND: "check the path of the URL",
    HTTPStatus.METHOD_NOT_ALLOWED: "check the method: the endpoint may expect another one",
    HTTPStatus.NOT_ACCEPTABLE: "check the Accept header",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the HTTP proxy requires a user name and password",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "check the format of the body: json or form",
    HTTPStatus.UNPROCESSABLE_ENTITY: _CREDENTIALS,
    HTTPStatus.TOO_MANY_REQUESTS: "there are too many requests: try again later",
}
_HTML: Final = re.compile(
    r"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_HEAD_CHARACTERS: Final = 2048


def status_fault(reply: Reply) -> str:
    """Explain an error status: "answered 401 (invalid_client); check ..."."""
    status = reply.status
    error = reply.find("error")
    code = f" ({error})" if isinstance(error, str) and error in OAUTH_ERRORS else ""
    if 300 <= status < 400:
        advice = "redirects are not followed, because they could leak the secret: set the final URL"
    elif status >= 500:
        advice = "the endpoint has failed: try again later, or ask its operator"
    else:
        advice = _ADVICE.get(status, _CREDENTIALS)
    return f"answered {status}{code}; {advice}"


def success_fault(reply: Reply, path: str, expected: object) -> str:
    """Explain a reply that does not signal success."""
    if reply.body is None:
        return f"signals no success at {path!r}: {form_fault(reply)}"
    found = reply.find(path)
    is_code = isinstance(found, int | float) or (
        isinstance(found, str) and re.fullmatch(r"[0-9]{1,10}", found)
    )
    shown = "it is missing" if found is None else f"it is {found}" if is_code else "it has another value"
    return f"signals no success at {path!r}: {shown}, but {expected!r} is expected{REPLY_HINT}"


def token_fault(reply: Reply, place: str, *, in_body: bool) -> str:
    """Explain a reply without a token at the configured place."""
    if in_body and reply.body is None:
        return f"has no token at {place!r}: {form_fault(reply)}"
    if in_body and reply.find(place) is None and (error := _error_of(reply.body)):
        return (
            f"has no token at {place!r}: the reply looks like an error ({error}): {_FIELDS}, and set "
            f"`success` to the value of replies with a token{REPLY_HINT}"
        )
    return f"has no token at {place!r}: check the path{REPLY_HINT}"


def _error_of(body: object) -> str:
    """Return what looks like an error at the top of a reply, without text of it; empty if nothing does."""
    if not isinstance(body, dict):
        return ""
    codes = ((name, body[name]) for name in _CODE_NAMES if body.get(name) is not None)
    for name, code in codes:
        text = str(code)
        if not isinstance(code, bool) and re.fullmatch(r"-?[0-9]{1,10}", text):
            return "" if text.strip("0") in {"", "2"} else f"{name} is {text}"
    has_content = any(isinstance(value, dict | list) and value for value in body.values())
    names = _ERROR_NAMES if has_content else (*_ERROR_NAMES, *_MESSAGE_NAMES)
    return next((f"it has {name}" for name in names if body.get(name)), "")


def form_fault(reply: Reply) -> str:
    """Explain a reply that is not JSON."""
    if not reply.text.strip():
        return "it is empty"
    if is_html(reply):
        return "it is an HTML page, such as a login or an error page: check the URL"
    if reply.text.lstrip().startswith("<"):
        return (
            'it is XML that cannot be parsed (malformed, or with a DTD): request JSON, or use source = "exec"'
        )
    if "\ufffd" in reply.text:
        return "it is not UTF-8: the endpoint has to send UTF-8, or name its charset in Content-Type"
    return "it is not JSON: check the URL, or set token_text if the whole reply is the token"


def is_html(reply: Reply) -> bool:
    """Whether a reply is an HTML page."""
    media = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    return is_html_text(reply.text) or (
        reply.body is None and media in {"text/html", "application/xhtml+xml"}
    )


def is_html_text(text: str) -> bool:
    """Whether a text begins like HTML."""
    return bool(_HTML.match(text[:_HEAD_CHARACTERS]))


def doubt_lifetime(
    candidates: Sequence[tuple[str, str]],
    reply: Reply,
    token: str,
    *,
    default_ttl: float,
    max_ttl: float,
) -> LifetimeDoubt | None:
    """Explain a lifetime that cannot be read, or that looks wrong, in a sentence that names its path.

    Args:
        candidates: Pairs of (path, unit), in order of preference.
        token: The token, for the unit `jwt` without a path.
        default_ttl: The lifetime in seconds if none can be read.
        max_ttl: A longer lifetime is considered an error.
    """
    for path, unit in candidates:
        seconds = read_lifetime([(path, unit)], reply, token, max_ttl)
        if seconds is not None:
            oddity = _implausible_lifetime(path, unit, reply, seconds)
            return None if oddity is None else LifetimeDoubt(readable=True, reason=oddity)
    if not candidates:
        return None
    found = "; ".join(_unreadable(path, unit, reply, max_ttl) for path, unit in candidates)
    reason = (
        f"the token's lifetime cannot be read ({found}); {duration(default_ttl)} is assumed (default_ttl)"
    )
    return LifetimeDoubt(readable=False, reason=reason)


def life_over(candidates: Sequence[tuple[str, str]], reply: Reply, token: str, max_ttl: float) -> str | None:
    """Explain a token that has already expired; None if it has not.

    The first candidate that can be read decides, because others may be meant for other replies.
    """
    for path, unit in candidates:
        seconds = life_of(reply.find(path) if path else token, unit, reply)
        if seconds is None or seconds > max_ttl:
            continue
        if seconds > 0:
            return None
        place = _unreadable(path, unit, reply, max_ttl) if path else "its exp claim is in the past"
        return f"contains a token that has expired ({place})"
    return None


def _unreadable(path: str, unit: str, reply: Reply, max_ttl: float) -> str:
    if not path:
        return "the token is not a JWT with an exp claim"
    place = f'expires at "{path}" as {unit}'
    value = reply.find(path)
    if value is None:
        return f"{place}: the reply has no such value"
    seconds = life_of(value, unit, reply)
    if seconds is None:
        fault = "the value cannot be read in this unit"
    elif seconds <= 0:
        fault = "that is in the past" if unit not in {"seconds", "milliseconds"} else "that is not above 0"
    else:
        fault = f"that is {duration(seconds)}, more than max_ttl = {duration(max_ttl)}"
    return f"{place}: {fault}{_suggest_unit(value, unit, reply)}"


def _implausible_lifetime(path: str, unit: str, reply: Reply, seconds: float) -> str | None:
    if path and unit == "iso8601" and has_no_zone(reply.find(path)):
        return (
            f'expires at "{path}" has no time zone and is read as UTC, {duration(seconds)} from now; set '
            'the UTC offset, such as offset = "+08:00", or "+00:00" if this is right'
        )
    suggestion = _suggest_unit(reply.find(path), unit, reply) if path else ""
    shortest, longest = _PLAUSIBLE_SECONDS
    place = f'expires at "{path}" as {unit}' if path else "the exp claim of the token"
    if seconds > longest:
        return f"{place} is {duration(seconds)}, more than 24 h{suggestion or ': check that this is right'}"
    if seconds < shortest and suggestion:
        return f"{place} is {duration(seconds)}, which is short{suggestion}"
    return None


def _suggest_unit(value: object, unit: str, reply: Reply) -> str:
    """Suggest another unit in which the value is a usual lifetime."""
    shortest, longest = _PLAUSIBLE_SECONDS
    for other in UNITS:
        seconds = None if other == unit else life_of(value, other, reply)
        if seconds is not None and shortest <= seconds <= longest:
            return f'; as = "{other}" would make it {duration(seconds)}'
    return ""

"""The token in what a command writes: each known form of credential helpers (pure)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.expiry import Reply
from proxy.credentials.sources.local_token import (
    as_json,
    as_text,
    as_token,
    doubt_time_left,
    time_left,
)
from proxy.secret import Secret
from proxy.settings import ExecCredential
from proxy.settings.credentials.http import candidates_of

_WHENCE: Final = "the command's output"
_EXEC_CREDENTIAL_VERSIONS: Final = frozenset(
    {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A token, and where its end may stand."""

    token: str
    body: Any = None
    expires: tuple[tuple[str, str], ...] = ()
    lasting: bool = False
    """Whether the form's own rules say that it does not end where it names no end."""


def read_output(output: bytes, form: ExecCredential, now: float) -> FetchedToken:
    """Find the token in an output.

    A token without an end is asked for again after `default_ttl` all the same; it serves on where that fails.

    Args:
        output: What the command wrote.
        form: How to read it.
        now: Seconds since the epoch.

    Raises:
        TokenFetchError: it has no token in this form, or one that is past its end.
    """
    text = as_text(output, _WHENCE)
    if not text.strip():
        raise TokenFetchError(f"{_WHENCE} is empty")
    name = _form_of(text, form) if form.format == "auto" else form.format
    found = _READERS[name](text, form)
    secret = Secret(found.token)
    left = time_left(found.token, found.body, found.expires, since=now, now=now, whence=_WHENCE)
    if left is None and found.lasting:
        return FetchedToken(secret, math.inf, form.default_ttl)
    doubt = doubt_time_left(found.token, found.body, found.expires, since=now, default_ttl=form.default_ttl)
    return FetchedToken(secret, form.default_ttl if left is None else left, doubt=doubt)


def _form_of(text: str, form: ExecCredential) -> str:
    """What an output looks like. Whatever begins as a JSON object is meant as one: no token begins so."""
    if text.lstrip().startswith("{"):
        body = as_json(text, _WHENCE)
        if "Version" in body and "AccessKeyId" in body:
            return "credential_process"
        if form.token is not None:
            return "json"
        if body.get("kind") == "ExecCredential":
            return "exec_credential"
        raise TokenFetchError(f"{_WHENCE} is JSON of no known form: say with token where the token stands")
    if form.token is not None:
        return "json"
    lines = text.split("\n")
    return "git" if any(line.startswith("password=") for line in lines) else "text"


def _exec_credential(text: str, _form: ExecCredential) -> _Found:
    """A Kubernetes ExecCredential of client.authentication.k8s.io."""
    body = as_json(text, _WHENCE)
    reply = Reply(body, {}, 0.0)
    if reply.find("kind") != "ExecCredential":
        raise TokenFetchError(f"{_WHENCE} is no ExecCredential")
    version = reply.find("apiVersion")
    if not isinstance(version, str) or version not in _EXEC_CREDENTIAL_VERSIONS:
        raise TokenFetchError(f"{_WHENCE} is an ExecCredential of an unknown apiVersion")
    token = as_token(reply.find("status.token"), f"{_WHENCE}, at 'status.token',")
    end = "status.expirationTimestamp"
    return _Found(token, body, ((end, "iso8601"),), lasting=reply.find(end) is None)


def _credential_process(text: str, form: ExecCredential) -> _Found:
    """What the AWS SDKs take from a `credential_process`, version 1."""
    body = as_json(text, _WHENCE)
    reply = Reply(body, {}, 0.0)
    version = reply.find("Version")
    if version != 1 or isinstance(version, bool):
        raise TokenFetchError(f"{_WHENCE} is no credential_process reply of version 1")
    path = form.token or "SessionToken"
    token = as_token(reply.find(path), f"{_WHENCE}, at {path!r},")
    expires = (*candidates_of(form.expires), ("Expiration", "iso8601"))
    return _Found(token, body, expires, lasting=all(reply.find(path) is None for path, _ in expires))


def _git(text: str, _form: ExecCredential) -> _Found:
    """The attributes of git's credential helpers (git-credential, INPUT/OUTPUT FORMAT)."""
    attributes: dict[str, str] = {}
    for line in text.split("\n"):
        key, equals, value = line.removesuffix("\r").partition("=")
        if not key and not equals:
            break  # a blank line ends the list
        if not equals:
            raise TokenFetchError(f"{_WHENCE} has a line that is not key=value")
        attributes[key] = value  # the last one of a name counts
    token = as_token(attributes.get("password"), f"{_WHENCE}, at 'password',")
    end = "password_expiry_utc"
    return _Found(token, attributes, ((end, "epoch"),) if end in attributes else ())


def _json(text: str, form: ExecCredential) -> _Found:
    path = form.token or ""
    body = as_json(text, _WHENCE)
    return _Found(
        as_token(Reply(body, {}, 0.0).find(path), f"{_WHENCE}, at {path!r},"),
        body,
        candidates_of(form.expires),
    )


def _text(text: str, _form: ExecCredential) -> _Found:
    return _Found(as_token(text.strip(), _WHENCE))


_READERS: Final[Mapping[str, Callable[[str, ExecCredential], _Found]]] = {
    "exec_credential": _exec_credential,
    "credential_process": _credential_process,
    "git": _git,
    "json": _json,
    "text": _text,
}

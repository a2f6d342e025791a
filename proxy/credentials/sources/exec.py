"""A token that a command prints: credential helpers and their output formats."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec

from proxy.credentials.sources import TokenFetchError, TokenSource
from proxy.credentials.sources.local import (
    as_json,
    as_text,
    as_token,
    doubt_time_left,
    time_left,
)
from proxy.credentials.sources.process import CommandResult, run_command
from proxy.credentials.sources.reply import Reply
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import ExecCredential
from proxy.settings.credentials.http import candidates_of
from proxy.telemetry import get_logger

_ADVICE: Final = "run it by hand, as the user of the service and with its env, to see its messages"


class ExecTokenSource(TokenSource):
    """Runs a command for each fetch.

    Args:
        section: The command, and how to read its output.
    """

    def __init__(self, section: ExecCredential) -> None:
        self._section = section
        self._log = get_logger("credentials")

    async def fetch(self) -> FetchedToken:
        """Run the command and read the token from its output.

        Raises:
            TokenFetchError: The command failed, or printed no valid token.
        """
        section = self._section
        ended = await run_command(
            [_plain(argument) for argument in section.command],
            environment={name: _plain(value) for name, value in section.environment.items()},
            folder=section.cwd,
            timeout=section.timeout,
        )
        self._check(ended)
        fetched = read_output(ended.output, section, time.time())
        if fetched.doubt is not None:
            self._log.warning(fetched.doubt.event, reason=fetched.doubt.reason)
        return fetched

    def _check(self, ended: CommandResult) -> None:
        if ended.status == 0:
            return
        # Log only how much it printed: a helper may print secrets when it fails.
        self._log.warning("token_command_failed", status=ended.status, stderr_bytes=ended.error_bytes)
        end = f"ended with status {ended.status}"
        if ended.status < 0:
            end = f"was killed by signal {-ended.status}"
        raise TokenFetchError(f"the command {end}; {_ADVICE}")


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


_SOURCE: Final = "the command's output"
_EXEC_CREDENTIAL_VERSIONS: Final = frozenset(
    {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}
)


class _Found(msgspec.Struct, frozen=True):
    """A token, and where its expiry may be."""

    token: str
    body: object = None
    expires: tuple[tuple[str, str], ...] = ()
    permanent: bool = False
    """Whether the format defines that a token without an expiry does not expire."""


def read_output(output: bytes, section: ExecCredential, now: float) -> FetchedToken:
    """Find the token in the output of a command.

    The command is run again after `default_ttl` even if the token does not expire. If that fails, the token
    remains in use.

    Raises:
        TokenFetchError: There is no token in this format, or it has expired.
    """
    text = as_text(output, _SOURCE)
    if not text.strip():
        raise TokenFetchError(f"{_SOURCE} is empty")
    name = _format_of(text, section) if section.format == "auto" else section.format
    found = _READERS[name](text, section)
    secret = Secret(found.token)
    left = time_left(found.token, found.body, found.expires, since=now, now=now, source=_SOURCE)
    if left is None and found.permanent:
        return FetchedToken(secret, math.inf, section.default_ttl)
    doubt = doubt_time_left(
        found.token, found.body, found.expires, since=now, default_ttl=section.default_ttl
    )
    if left is None:
        return FetchedToken(secret, section.default_ttl, doubt=doubt)
    return FetchedToken(secret, left.seconds, doubt=doubt, certain=left.certain)


def _format_of(text: str, section: ExecCredential) -> str:
    """Detect the format of an output. No token begins like a JSON object."""
    if text.lstrip().startswith("{"):
        body = cast(dict[str, object], as_json(text, _SOURCE))
        if "Version" in body and "AccessKeyId" in body:
            return "credential_process"
        if section.token is not None:
            return "json"
        if body.get("kind") == "ExecCredential":
            return "exec_credential"
        raise TokenFetchError(f"{_SOURCE} is JSON of unknown format: set token to the path of the token")
    if section.token is not None:
        return "json"
    lines = text.split("\n")
    return "git" if any(line.startswith("password=") for line in lines) else "text"


def _exec_credential(text: str, _section: ExecCredential) -> _Found:
    """Read a Kubernetes ExecCredential of client.authentication.k8s.io."""
    body = as_json(text, _SOURCE)
    reply = Reply(body, {}, 0.0)
    if reply.find("kind") != "ExecCredential":
        raise TokenFetchError(f"{_SOURCE} is not an ExecCredential")
    version = reply.find("apiVersion")
    if not isinstance(version, str) or version not in _EXEC_CREDENTIAL_VERSIONS:
        raise TokenFetchError(f"{_SOURCE} is an ExecCredential of an unknown apiVersion")
    token = as_token(reply.find("status.token"), f"{_SOURCE}, at 'status.token',")
    end = "status.expirationTimestamp"
    return _Found(token, body, ((end, "iso8601"),), permanent=reply.find(end) is None)


def _credential_process(text: str, section: ExecCredential) -> _Found:
    """Read the output of a `credential_process` of the AWS SDKs, version 1."""
    body = as_json(text, _SOURCE)
    reply = Reply(body, {}, 0.0)
    version = reply.find("Version")
    if version != 1 or isinstance(version, bool):
        raise TokenFetchError(f"{_SOURCE} is not a credential_process reply of version 1")
    path = section.token or "SessionToken"
    token = as_token(reply.find(path), f"{_SOURCE}, at {path!r},")
    expires = (*candidates_of(section.expires), ("Expiration", "iso8601"))
    return _Found(token, body, expires, permanent=all(reply.find(path) is None for path, _ in expires))


def _git(text: str, _section: ExecCredential) -> _Found:
    """Read the attributes of a git credential helper (git-credential, INPUT/OUTPUT FORMAT)."""
    attributes: dict[str, str] = {}
    for line in text.split("\n"):
        key, equals, value = line.removesuffix("\r").partition("=")
        if not key and not equals:
            break  # a blank line ends the list
        if not equals:
            raise TokenFetchError(f"{_SOURCE} has a line that is not key=value")
        attributes[key] = value  # the last value of a name counts
    token = as_token(attributes.get("password"), f"{_SOURCE}, at 'password',")
    end = "password_expiry_utc"
    return _Found(token, attributes, ((end, "epoch"),) if end in attributes else ())


def _json(text: str, section: ExecCredential) -> _Found:
    path = section.token or ""
    body = as_json(text, _SOURCE)
    return _Found(
        as_token(Reply(body, {}, 0.0).find(path), f"{_SOURCE}, at {path!r},"),
        body,
        candidates_of(section.expires),
    )


def _text(text: str, _section: ExecCredential) -> _Found:
    return _Found(as_token(text.strip(), _SOURCE))


_READERS: Final[Mapping[str, Callable[[str, ExecCredential], _Found]]] = {
    "exec_credential": _exec_credential,
    "credential_process": _credential_process,
    "git": _git,
    "json": _json,
    "text": _text,
}

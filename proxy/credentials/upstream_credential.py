"""A credential as an upstream uses it: the shared token, where it is written, and how it is rejected."""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

import msgspec

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.observed_tokens import Rejection
from proxy.credentials.rejections import Purpose
from proxy.credentials.sources.reply import find_path
from proxy.credentials.token import Token
from proxy.errors import TokenUnavailable
from proxy.settings import Inject, Invalidation
from proxy.wire.headers import Headers, with_hyphens
from proxy.wire.request_json import JSON

BODY_BYTES_MAX: Final = 64 * 1024
"""The number of bytes of a body to search for an error."""
SENDS_MAX: Final = 4
"""A request is sent again with another token, and if that one is very new, once more a moment later. If that
token may have been revoked as well, because it is older than the first rejection or because the purpose
worked until then, the request is sent a last time with a third one."""
_CONTENT_TYPE: Final = b"content-type"


class RejectionRules:
    """The `invalidate_on` rules of a credential: a response that matches one of them rejects the token."""

    def __init__(self, rules: Sequence[Invalidation]) -> None:
        self._head_rules = [rule for rule in rules if rule.path is None]
        self._body_rules = [rule for rule in rules if rule.path is not None]
        self._statuses = frozenset(rule.status for rule in rules)

    def match_head(self, status: int, headers: Headers) -> bool:
        """Whether status and headers match a rule."""
        return status in self._statuses and any(_matches(rule, status, headers) for rule in self._head_rules)

    def need_body(self, status: int, headers: Headers) -> bool:
        """Whether a rule has to look at the beginning of the body, and the body is JSON."""
        return (
            status in self._statuses
            and any(_matches(rule, status, headers) for rule in self._body_rules)
            and _is_json(headers)
        )

    def match_body(self, status: int, headers: Headers, body: bytes) -> bool:
        """Whether status, headers and body match a rule."""
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return any(
            _matches(rule, status, headers) and _is_among(find_path(parsed, rule.path or ""), rule.values)
            for rule in self._body_rules
        )


def _is_json(headers: Headers) -> bool:
    """Whether the body is a single JSON value; streams such as NDJSON must not be held back."""
    types = [
        value.partition(b";")[0].strip().lower() for name, value in headers if name.lower() == _CONTENT_TYPE
    ]
    return any(kind == JSON or (kind.endswith(b"+json") and b"stream" not in kind) for kind in types)


def _matches(rule: Invalidation, status: int, headers: Headers) -> bool:
    if rule.status != status:
        return False
    challenge = rule.www_authenticate
    return challenge is None or any(
        name.lower() == b"www-authenticate" and challenge.lower().encode() in value.lower()
        for name, value in headers
    )


def _is_among(found: object, values: Sequence[object]) -> bool:
    """Compare type and value: 1 is not true, and 110 is not "110"."""
    return any(type(found) is type(value) and found == value for value in values)


class UpstreamCredential(msgspec.Struct, frozen=True):
    """A token source, where its token is written, and which responses reject it."""

    source: CachedTokenSource
    inject: Inject = msgspec.field(default_factory=Inject)
    rejection: RejectionRules = msgspec.field(
        default_factory=lambda: RejectionRules((Invalidation(status=401),))
    )


def write_token(inject: Inject, token: Token, headers: Headers, query: bytes) -> tuple[Headers, bytes]:
    """Write a token into a request, and remove any header or parameter of that name from the caller."""
    value = inject.template.replace("{token}", token.secret.reveal())
    if inject.query is not None:
        return headers, _replace_parameter(query, inject.query, value)
    name = (inject.header or "").encode().lower()
    normalized = with_hyphens(name)
    kept = [pair for pair in headers if pair[0].replace(b"_", b"-") != normalized]
    kept.append((name, value.encode()))
    return kept, query


def _replace_parameter(query: bytes, name: str, value: str) -> bytes:
    """Set one query parameter, and keep all others byte for byte."""
    others = [
        pair
        for pair in query.split(b"&")
        if pair and unquote_plus(pair.partition(b"=")[0].decode("latin-1")) != name
    ]
    return b"&".join([*others, f"{quote(name, safe='')}={quote(value, safe='')}".encode()])


class _Detour(NamedTuple):
    """A request whose new token was rejected is sent with the token that worked before."""

    rejection: Rejection
    """The rejection of the new token, which is not recorded yet."""
    predecessor: Token


class TokenUse:
    """The tokens that one request is sent with, until one is accepted or no other can help."""

    __slots__ = ("_before", "_caller", "_detour", "_purpose", "_sent_at", "_source", "_token", "sends")

    def __init__(self, source: CachedTokenSource, caller: str | None, purpose: Purpose) -> None:
        self._source = source
        self._caller = caller or ""
        self._purpose = purpose
        self._token: Token | None = None
        self._sent_at = 0.0
        self._before: list[Rejection] = []
        self._detour: _Detour | None = None
        self.sends = 0

    @property
    def ever_accepted(self) -> bool:
        """Whether an upstream has ever accepted a token of this credential. If not, its tokens are wrong."""
        return self._source.ever_accepted

    @property
    def is_ready(self) -> bool:
        """Whether the first token can be sent without a wait."""
        return self._last is None and self._source.is_ready

    async def token(self) -> Token | None:
        """Return the token to send now; None if no other token would be accepted either.

        Raises:
            CredentialError: No token is available.
        """
        source, last, detour = self._source, self._last, self._detour
        token: Token | None
        if detour is not None and source.clock() < detour.predecessor.expires_at:
            token = detour.predecessor
        elif last is None:
            token = await source.get()
        elif len(self._before) >= SENDS_MAX:
            raise TokenUnavailable(reason="tokens were rejected while they were replaced")
        else:
            token = await source.newer(last, self._caller, self._purpose)
        self._token = token
        self.sends += 1
        self._sent_at = source.clock()
        return token

    def accepted(self) -> None:
        """Record that the upstream accepted the token."""
        if self._token is not None:
            self._source.accepted(self._token, self._sent_at, self._purpose, self._last)
            if self._detour is not None:
                self._source.predecessor_accepted(self._detour.rejection, self._caller, self._purpose)

    def rejected(self, reason: str) -> bool:
        """Record that the upstream rejected the token, and return whether another token may help.

        The rejection of a new token counts only if the upstream rejects its predecessor as well. Otherwise
        the upstream has not learned of the new token yet.
        """
        if self._token is None:
            return False
        rejection = Rejection(self._token, self._sent_at, self._source.clock())
        source, caller, purpose = self._source, self._caller, self._purpose
        if self._detour is not None:
            source.predecessor_rejected(rejection, caller, purpose)
            rejection, self._detour = self._detour.rejection, None
        elif self.sends == 1 and (known := source.predecessor(rejection, caller, purpose)) is not None:
            self._detour = _Detour(rejection, known)
            return True
        may_help = source.rejected(rejection, caller, purpose, before=self._before, reason=reason)
        self._before.append(rejection)
        return may_help

    @property
    def _last(self) -> Rejection | None:
        return self._before[-1] if self._before else None

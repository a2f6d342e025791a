"""A credential as an upstream uses it: the shared token, and the place of a request where it is written."""

from dataclasses import dataclass, field
from urllib.parse import quote, unquote_plus

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.credential import Credential
from proxy.credentials.refusal import RefusalRules
from proxy.settings import Invalidation
from proxy.wire.headers import with_hyphens

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Injection:
    """Where the token goes: a header made from a template, or a query parameter."""

    header: str | None = "Authorization"
    template: str = "Bearer {token}"
    query: str | None = None

    def apply(self, credential: Credential, headers: Headers, query: bytes) -> tuple[Headers, bytes]:
        """Write the token, over anything of that name that the caller sent."""
        value = self.template.replace("{token}", credential.secret.reveal())
        if self.query is not None:
            return headers, _replace_parameter(query, self.query, value)
        name = (self.header or "").encode().lower()
        spelled = with_hyphens(name)
        kept = [pair for pair in headers if with_hyphens(pair[0]) != spelled]
        kept.append((name, value.encode()))
        return kept, query


@dataclass(frozen=True, slots=True)
class UpstreamCredential:
    """A cached source, where its token is written, and how an upstream refuses it."""

    source: CachedTokenSource
    injection: Injection
    refusal: RefusalRules = field(default_factory=lambda: RefusalRules((Invalidation(status=401),)))


def _replace_parameter(query: bytes, name: str, value: str) -> bytes:
    """Set one query parameter and leave the rest byte for byte."""
    others = [
        pair
        for pair in query.split(b"&")
        if pair and unquote_plus(pair.partition(b"=")[0].decode("latin-1")) != name
    ]
    return b"&".join([*others, f"{quote(name, safe='')}={quote(value, safe='')}".encode()])

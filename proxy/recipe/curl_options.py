"""The options of curl: supported ones, ones that do not change the request, and unsupported ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.recipe.shell_words import CurlLineError

DATA: Final = ("data", "data-ascii", "data-raw", "data-binary", "data-urlencode", "json")
_ALIASES: Final = {"data-ascii": "data"}
_WITH_VALUE_NAMES: Final = """
data data-ascii data-raw data-binary data-urlencode json request header user user-agent referer cookie url
cacert cert key proxy proxy-user oauth2-bearer max-time
"""
_IGNORED_WITH_VALUE_NAMES: Final = """
output write-out connect-timeout retry retry-delay retry-max-time max-redirs dump-header cookie-jar stderr
trace trace-ascii limit-rate keepalive-time tls-max proto proto-redir cert-type key-type output-dir
"""
_IGNORED_NAMES: Final = """
silent show-error verbose include fail fail-with-body fail-early compressed http1.0 http1.1 http2
http2-prior-knowledge http3 no-buffer progress-bar ipv4 ipv6 tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3
progress-meter path-as-is remote-name remote-header-name tcp-nodelay keepalive tr-encoding disable alpn
ssl-reqd ssl-no-revoke raw styled-output basic retry-all-errors retry-connrefused trace-time show-headers
anyauth
"""
_WITH_VALUE: Final = frozenset(_WITH_VALUE_NAMES.split())
_FLAGS: Final = frozenset({"get", "globoff", "insecure", "location", "location-trusted"})
_IGNORED_WITH_VALUE: Final = frozenset(_IGNORED_WITH_VALUE_NAMES.split())
_IGNORED: Final = frozenset(_IGNORED_NAMES.split())
_REJECTED: Final = {
    "form": "multipart requests for a token are not supported: send it as --data or --json",
    "form-string": "multipart requests for a token are not supported: send it as --data or --json",
    "upload-file": "uploads are not supported in requests for a token",
    "head": "a HEAD request returns no token",
    "next": "several requests in one line: give only the one that returns the token",
    "config": "options in a file are not read: write them into the line",
    "netrc": "give user and password with --user",
    "digest": "digest authentication is not supported",
    "ntlm": "NTLM is not supported",
    "negotiate": "Negotiate is not supported",
    "aws-sigv4": "signed requests are not supported",
    "unix-socket": "Unix sockets are not supported",
    "pass": "a key with a password is not supported: decrypt it, and guard the file",
}
_REJECTED_WITH_VALUE: Final = {
    "form",
    "form-string",
    "upload-file",
    "config",
    "aws-sigv4",
    "unix-socket",
    "pass",
}
_LETTERS: Final = """
X=request H=header d=data u=user A=user-agent e=referer b=cookie E=cert x=proxy U=proxy-user m=max-time
G=get k=insecure L=location o=output w=write-out D=dump-header c=cookie-jar s=silent S=show-error v=verbose
i=include f=fail 0=http1.0 N=no-buffer #=progress-bar 4=ipv4 6=ipv6 g=globoff 1=tlsv1 O=remote-name
J=remote-header-name q=disable F=form T=upload-file I=head :=next K=config n=netrc
"""
_SHORT: Final = {pair[0]: pair[2:] for pair in _LETTERS.split()}
_TAKES_VALUE: Final = _WITH_VALUE | _IGNORED_WITH_VALUE | _REJECTED_WITH_VALUE
_KNOWN: Final = _TAKES_VALUE | _FLAGS | _IGNORED | set(_REJECTED)


@dataclass(frozen=True, repr=False)
class Options:
    """The options that determine the request, in order."""

    urls: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    """Values by long name. If an option may occur only once, the last value counts."""
    flags: frozenset[str]
    data: tuple[tuple[str, str], ...] = field(default=())
    """Pairs of (option, value) that form the body."""

    def last(self, name: str) -> str | None:
        """Return the last value of an option; None without one."""
        given = self.values.get(name)
        return given[-1] if given else None


def read_options(words: Sequence[str]) -> Options:
    """Parse the words of a curl command, without `curl` itself.

    Raises:
        CurlLineError: An option is unknown or not supported.
    """
    urls: list[str] = []
    values: dict[str, list[str]] = {}
    flags: set[str] = set()
    data: list[tuple[str, str]] = []
    for name, value in _pairs(words):
        if name in {"", "url"}:
            urls.append(value)
        elif name in DATA:
            data.append((_ALIASES.get(name, name), value))
        elif name in _WITH_VALUE:
            values.setdefault(name, []).append(value)
        elif name in _FLAGS:
            flags.add(name)
    return Options(
        tuple(urls), {name: tuple(of) for name, of in values.items()}, frozenset(flags), tuple(data)
    )


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (long name, value) of each option; the name is empty for other words."""
    left = iter(words)
    for word in left:
        if word == "^":
            raise CurlLineError('the line is written for Windows: choose "copy as cURL (bash)"')
        if word == "--":
            yield from (("", rest) for rest in left)
        elif word.startswith("--"):
            yield from _long(word, left)
        elif word.startswith("-") and len(word) > 1:
            yield from _short(word, left)
        else:
            yield "", word


def _long(word: str, left: Iterator[str]) -> Iterator[tuple[str, str]]:
    name, equals, value = word[2:].partition("=")
    if name.startswith("no-") and name[3:] in _FLAGS | _IGNORED and not equals:
        return
    _check(f"--{name}", name)
    if name not in _TAKES_VALUE:
        if equals:
            raise CurlLineError(f"--{name}: takes no value")
        yield name, ""
    else:
        yield name, value if equals else _next(f"--{name}", left)


def _short(word: str, left: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Parse combined letters: only the last may take a value, which is the rest of the word."""
    for at, letter in enumerate(word[1:], 1):
        name = _SHORT.get(letter, "")
        _check(f"-{letter}", name)
        if name in _TAKES_VALUE:
            yield name, word[at + 1 :] or _next(f"-{letter}", left)
            return
        yield name, ""


def _check(written: str, name: str) -> None:
    if name in _REJECTED:
        raise CurlLineError(f"{written}: {_REJECTED[name]}")
    if name not in _KNOWN:
        shown = written if written.isprintable() and len(written) <= 30 else "an option"
        raise CurlLineError(f"{shown}: unknown or unsupported")


def _next(written: str, left: Iterator[str]) -> str:
    try:
        return next(left)
    except StopIteration:
        raise CurlLineError(f"{written}: the value is missing") from None

"""Which URLs the settings take, and the `embedded:` ones that stand for the demonstration gateway."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from proxy.settings.section import refuse
from proxy.wire.endpoints import Shape

EMBEDDED = "embedded:"

_EMBEDDED_PATH = re.compile(rf"{EMBEDDED}/(?!/)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")  # urlsplit drops some of these in silence


def resolved(url: str, origin: str) -> str:
    """Put `origin` (`http://127.0.0.1:5003`) in the place of `embedded:`; other URLs stay."""
    return origin.rstrip("/") + url.removeprefix(EMBEDDED) if url.startswith(EMBEDDED) else url


def origin(value: str) -> str:
    """Take the origin of a page as browsers write it: scheme, host, a port where it is not the usual one.

    Raises:
        ValidationError: it is none, or has more.
    """
    _check(value)
    parts = urlsplit(value.lower())
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query:
        refuse("must be an origin alone: scheme, host and port, without a path")
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{parts.netloc.removesuffix(f':{usual}')}"


def _base_url(url: str) -> str:
    if "?" in url:
        refuse("must not have a query")
    base = _endpoint_url(url).rstrip("/")
    for endpoint in Shape:
        if base.endswith(f"/{endpoint}"):
            refuse(f"must be what stands before /{endpoint}: the caller's path is appended to it")
    return base


def _endpoint_url(url: str) -> str:
    if url.startswith(EMBEDDED):
        if not _EMBEDDED_PATH.match(url):
            refuse("must be a path after embedded: such as embedded:/v1")
        _check(f"http://gateway{url.removeprefix(EMBEDDED)}")
    else:
        _check(url)
    if "@" in urlsplit(url).netloc:
        refuse("must not hold a user name or password: use a credential")
    return url


def _proxy_url(url: str) -> str:
    _check(url)
    return url


def _check(url: str) -> None:
    """Refuse what is no absolute http URL. The words never repeat the URL: it may hold a password."""
    if _UNSAFE.search(url):
        refuse("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        refuse("is not a valid URL")
    if parts.scheme not in {"http", "https"} or not host:
        refuse("must be an http:// or https:// URL with a host")
    if "#" in url:
        refuse("must not have a fragment (#)")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]

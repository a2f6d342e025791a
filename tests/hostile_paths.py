"""Paths that try to leave the base URL, and three ways in which real servers normalise a path.

Each normaliser takes a whole path as it arrives at a server and returns the path that the server would serve.
"""

import asyncio
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from tests.nginx import nginx_serving

DOTS: Final = (
    "..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%2E.", ".%2E", "%252e%252e", "%252E%252e", ".%252e",
    "%252e.", "%25252e%25252e", "%2%65%2%65", "%%32%65%%32%65", "..;", "..;a", "..;a=b", "..;jsessionid=1",
    "..%3B", "..%3b", "..%3Ba=b", "..%253B", "%2e%2e;", "%2e%2e;a=b", "%2e%2e%3b", "%252e%252e;",
    "%252e%252e%253b", ".%2e;x", ";/..", ";a/..;b", "..;;", "..;..", "..;%2e", ".", "%2e", "%252e", ".;",
    ".;a", "%2e;", ".%3b", "...", "....", ". .", "..%20", "%20..", "..%09", "..%00", "..%0a", "..%3F",
    "..%3fa", "..%23", "..%253F", "%c0%ae%c0%ae", "%c0%2e%c0%2e", "%e0%80%ae%e0%80%ae",
    "%f0%80%80%ae%f0%80%80%ae", "%uff0e%uff0e", "%u002e%u002e", "%ef%bc%8e%ef%bc%8e", "%e2%80%a5",
    "%e2%80%a4%e2%80%a4",
)  # fmt: skip
"""Spellings of the parent folder and of the same folder that have deceived servers."""

SLASHES: Final = (
    "%2f", "%2F", "%252f", "%252F", "%25252f", "\\", "%5c", "%5C", "%255c", "%c0%af", "%e0%80%af",
    "%ef%bc%8f", "%ef%bc%bc", "//", "/./", "/;/", "/;a=b/", "/%2f", "%2f/", "%2f%2f", "/%3b/",
)  # fmt: skip
"""Spellings of a separator."""

MOUNTED: Final = (
    *(f"/v1/{dots}/admin" for dots in DOTS),
    *(f"/v1/models/{dots}/{dots}/admin" for dots in DOTS),
    *(f"/v1/files{slash}..{slash}..{slash}admin" for slash in SLASHES),
    *(f"/v1/models/a{slash}..{slash}..{slash}..{slash}admin" for slash in SLASHES),
    *(f"/v1/models/{dots}{slash}{dots}{slash}admin" for dots, slash in product(("%2e%2e", "..;"), SLASHES)),
    *(f"/v1{slash}admin" for slash in SLASHES),
)
OTHERS: Final = (
    "/..", "/../admin", "/v1/..", "/v1/../", "/v1/..;/", "/v1/.", "/v1/%2e%2e", "/v1/..;a=b",
    "/v1/v1/../../admin", "/v1/v1/%2e%2e/%2e%2e/admin", "/agent/api/llm_proxy/v1/../../admin",
    "/agent/api/llm_proxy/../admin", "/agent/api/llm_proxy/v1/..;/..;/admin", "/chat/completions/../../admin",
    "/chat/completions/..;/..;/..;/admin", "/models/../../admin", "/models/%2e%2e%2f%2e%2e%2fadmin",
    "/v1/models/%2e%2e%2f%2e%2e%2f%2e%2e%2fadmin", "/v1/models/..%2f..%2f..%2fadmin",
    "/v1/models/x%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fadmin", "/v1/models/%2fadmin", "/v1/models/%2f%2fevil.test/x",
    "/v1/%2f%2fevil.test", "/v1//evil.test/", "/v1/http://evil.test/", "/v1/http:%2f%2fevil.test/",
    "http://evil.test/v1/models", "//evil.test/v1/models", "///evil.test", "/\\evil.test",
    "/v1/@evil.test/..",
    "/v1/x/.././../admin", "/v1/x/..;/..;/admin", "/v1/;/..;/..;/admin", "/v1/a;b=/../../admin",
    "/v1/a;b=%2f..%2f..%2fadmin", "/v1/a%3bb/..%3b/..%3b/admin", "/v1/a/b/c/../../../../admin",
    "/v1/models/" + "%2e%2e%2f" * 20 + "admin", "/v1/" + "..;/" * 20 + "admin",
    "/v1/" + "a/../" * 20 + "../admin",
    "/v1/models/a%2f..;%2f..;%2f..;%2fadmin", "/v1/models/%2e%2e%3b%2f%2e%2e%3b%2fadmin", "/v1/models/a/",
    "/v1/models/a%2f", "/v1/models/a%2f%2e", "/v1/%", "/v1/%2", "/v1/%zz", "/v1/..%", "/v1/..%2",
    "/v1/%2e%2e%",
    "/v1/..#/admin", "/v1/%2523/../admin", "*", "", "v1/models", "/v1/ /..", "/v1/\x85/..",
    "/v1/..\x00/admin",
)  # fmt: skip

HOSTILE_PATHS: Final = tuple(dict.fromkeys([*MOUNTED, *OTHERS]))


def like_tomcat(path: bytes) -> bytes:
    """Normalise like Tomcat: drop path parameters, decode, even encoded slashes, and resolve."""
    kept = b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))
    return _resolve(unquote_to_bytes(kept).replace(b"\\", b"/"))


def like_two_tomcats(path: bytes) -> bytes:
    """Return a gateway with one normaliser in front of a server with another one."""
    return like_tomcat(like_tomcat(path))


def like_go(path: bytes) -> bytes:
    """Normalise like Go's `net/http`: decode, then `path.Clean`; parameters have no meaning."""
    return _resolve(unquote_to_bytes(path))


def _resolve(path: bytes) -> bytes:
    return posixpath.normpath(b"/" + path.lstrip(b"/"))


def leaves(base: bytes, path: bytes) -> bool:
    """Return whether a normalised path is outside of a base path."""
    return path != base and not path.startswith(base + b"/")


@asynccontextmanager
async def real_nginx(home: Path) -> AsyncIterator["RealNginx"]:
    """Run nginx whose location `/base/v1/` forwards to an upstream that answers with the requested path."""
    server = f"""
    server {{
        listen unix:{home}/nginx.sock;
        location / {{ return 404 outside; }}
        location /base/v1/ {{ proxy_pass http://unix:{home}/behind.sock:/base/v1/; }}
    }}
    server {{
        listen unix:{home}/behind.sock;
        location / {{ return 200 $request_uri; }}
    }}
    """
    async with nginx_serving(home, server) as socket:
        yield RealNginx(socket)


class RealNginx:
    """Asks nginx which path it forwards."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def leaves(self, path: bytes) -> bool:
        """Return whether a path leaves nginx's location, or the base path of the upstream."""
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if body == b"outside":
            return True
        return head.startswith(b"HTTP/1.1 200") and leaves(b"/base/v1", like_go(body))

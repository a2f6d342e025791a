"""The certificate of the server, and how a new one replaces it while the server runs."""

import contextlib
import copy
import functools
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

from proxy.errors import SettingsError
from proxy.regular_files import open_regular
from proxy.server.config import ServerConfig

PROTOCOLS: Final = ["http/1.1"]
_FILES: Final = ("certfile", "keyfile", "ca_certs")
"""The keys of `hypercorn.toml` that name a file of TLS."""


@dataclass(frozen=True, slots=True)
class TlsContents:
    """What the files of TLS contained when they were last accepted.

    Workers are given these contents: the files themselves may be replaced at any time.
    """

    contents: tuple[tuple[str, bytes], ...] = field(repr=False)
    """The key in `hypercorn.toml` and the content of each file."""

    @classmethod
    def read(cls, config: ServerConfig) -> Self:
        """Read the files, and check that they can be used.

        Raises:
            SettingsError: They cannot be used.
        """
        named = {key: getattr(config, key) for key in _FILES}
        with _explained(config):
            files = cls(tuple((key, _content_of(path)) for key, path in named.items() if path is not None))
        _load(config, files)
        return files


class Certificates:
    """The TLS context of a server.

    Args:
        config: Its `certfile` and `keyfile`, and how TLS is spoken.
        files: What these files contain; by default they are read.

    Raises:
        SettingsError: They cannot be used.
    """

    def __init__(self, config: ServerConfig, files: TlsContents | None = None) -> None:
        self._config = config
        self._newest = self.context = _load(config, files)
        # Called in each handshake. A context that is complete takes over at once; loading new files into
        # the one in use could leave it with a certificate and a key that do not match.
        self.context.sni_callback = self._choose

    def reload(self, files: TlsContents | None = None) -> None:
        """Reload the certificate for new connections.

        Raises:
            SettingsError: The certificate cannot be used; the old one stays in use.
        """
        self._newest = _load(self._config, files)

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: object) -> None:
        connection.context = self._newest


def uses_tls(config: ServerConfig) -> bool:
    """Return whether a server uses TLS.

    Raises:
        SettingsError: One of the two files is not named.
    """
    if (config.certfile is None) != (config.keyfile is None):
        raise SettingsError("certfile, keyfile: TLS needs both")
    return config.ssl_enabled


def open_certificates(config: ServerConfig, files: TlsContents | None = None) -> Certificates | None:
    """Return the certificates of a configuration; nothing where it serves without TLS.

    Raises:
        SettingsError: They cannot be used, or one of the two files is not named.
    """
    return Certificates(config, files) if uses_tls(config) else None


def _load(config: ServerConfig, files: TlsContents | None) -> ssl.SSLContext:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_explained(config))
        source = config
        if files is None:
            for path in filter(None, map(functools.partial(getattr, config), _FILES)):
                stack.enter_context(open_regular(Path(path)))  # OpenSSL would wait for the writer of a pipe.
        else:
            source = copy.copy(config)
            for key, content in files.contents:
                setattr(source, key, stack.enter_context(_path_of(content)))
        context = source.create_ssl_context()
    if context is None:
        raise SettingsError("certfile, keyfile: TLS needs both")
    context.set_alpn_protocols(PROTOCOLS)
    return context


def _content_of(path: str) -> bytes:
    with open_regular(Path(path)) as file:
        return file.read()


@contextlib.contextmanager
def _explained(config: ServerConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # of OpenSSL too
        words = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"certfile, keyfile: {config.certfile} and {config.keyfile} cannot be used: {words}"
        ) from error


@contextlib.contextmanager
def _path_of(content: bytes) -> Iterator[str]:
    """Yield the path of a file without a name: OpenSSL reads a certificate and its key from a path only."""
    with _open_nameless() as file:
        file.write(content)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _open_nameless() -> IO[bytes]:
    """Return a file without a name: in memory where the system can, else on the disk."""
    if hasattr(os, "memfd_create"):  # Linux, unless Python was built for an old C library
        with contextlib.suppress(OSError):  # The kernel is old, or forbids it.
            return os.fdopen(os.memfd_create("tls"), "w+b")
    return tempfile.TemporaryFile()

"""TLS contexts for the connections that the service opens: one for all that trust the same certificates.

Building a context with the certificates of the system takes 50 ms of CPU and a megabyte.
"""

import asyncio
import hashlib
import ssl
import weakref
from collections.abc import Hashable
from pathlib import Path
from typing import Final

import msgspec

_ALPN: Final = ("http/1.1",)
"""httpx2 sets this on every context that it uses. Upstreams, which may share one, must not differ by that."""


class TlsFiles(msgspec.Struct, frozen=True):
    """The files from which a context is built."""

    ca_file: Path | None = None
    """The certificates to trust; by default those of the system."""
    client_cert: Path | None = None
    """The certificate that identifies the service, and its key unless that has a file of its own."""
    client_key: Path | None = None


def build_context(files: TlsFiles) -> ssl.SSLContext:
    """Build a context, which takes long.

    Raises:
        OSError: A file cannot be read, or its content cannot be used (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=None if files.ca_file is None else str(files.ca_file))
    context.set_alpn_protocols(_ALPN)
    if files.client_cert is not None:
        # Without a password OpenSSL would prompt on the terminal for that of an encrypted key.
        context.load_cert_chain(files.client_cert, files.client_key, password="")
    return context


class TlsContexts:
    """The contexts of one worker, each kept for as long as something uses it.

    A context is shared until the content of its files changes.
    """

    def __init__(self) -> None:
        self._contexts = weakref.WeakValueDictionary[Hashable, ssl.SSLContext]()

    def __len__(self) -> int:
        return len(self._contexts)

    async def get(self, files: TlsFiles) -> ssl.SSLContext:
        """Return the context of these files; if there is none yet, build it in a thread.

        Raises:
            OSError: A file cannot be read, or its content cannot be used (`ssl.SSLError`).
        """
        content = await asyncio.to_thread(_content_of, files)
        context = self._contexts.get(content)
        if context is None:
            # If a file has changed by now, the next call finds another content, and builds another context.
            context = self._contexts[content] = await asyncio.to_thread(build_context, files)
        return context


def _content_of(files: TlsFiles) -> Hashable:
    """Return a value that changes with the content of the files."""
    trusted = _system_certificates() if files.ca_file is None else _digest_of(files.ca_file)
    return trusted, _digest_of(files.client_cert), _digest_of(files.client_key)


def _digest_of(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _system_certificates() -> Hashable:
    """Return the state of the file and of the folder with the certificates of the system."""
    paths = ssl.get_default_verify_paths()
    return tuple((path, _state_of(path)) for path in filter(None, (paths.cafile, paths.capath)))


def _state_of(path: str) -> tuple[int, int, int]:
    state = Path(path).stat()
    return state.st_ino, state.st_size, state.st_mtime_ns

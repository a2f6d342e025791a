"""The configuration of the workers, as the bytes that their supervisor passes to them.

A worker must not read the settings file: it may be incomplete, rejected, or not meant to be loaded yet. The
bytes exist only in the memory of these processes and in the sockets between them.
"""

import io
import pickle
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from proxy import __version__
from proxy.errors import SettingsError
from proxy.secret import Secret
from proxy.server.certificates import TlsContents
from proxy.server.config import ServerConfig
from proxy.settings import Settings
from proxy.settings.section import frozen

_VERSION: Final = f"{__version__}\n".encode()


@dataclass(frozen=True, slots=True)
class WorkerConfiguration:
    """What a worker starts with."""

    server: ServerConfig = field(repr=False)
    settings: Settings
    tls_contents: TlsContents | None = None


class _Pickler(pickle.Pickler):
    """Also pickles secrets and read-only tables, which cannot be pickled otherwise."""

    def reducer_override(self, value: object) -> Any:
        """Return how a value is built again."""
        if isinstance(value, Secret):
            return Secret, (value.reveal(),)
        if isinstance(value, MappingProxyType):
            return frozen, (dict(value),)
        return NotImplemented


def pack(value: WorkerConfiguration | Settings | TlsContents) -> bytes:
    """Return the bytes of a configuration or of a part of it. They contain its secrets."""
    buffer = io.BytesIO()
    buffer.write(_VERSION)
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def unpack(packed: bytes) -> Any:
    """Return what was packed. Call this only with bytes of the supervisor, because they can run any code.

    Raises:
        SettingsError: The supervisor runs another version of this program.
    """
    if not packed.startswith(_VERSION):
        raise SettingsError("the program was replaced while it ran: restart the service")
    return pickle.loads(packed.removeprefix(_VERSION))  # noqa: S301 - the bytes come from the supervisor

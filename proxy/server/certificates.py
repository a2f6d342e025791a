"""The certificate of the server, and how a new one replaces it while the server runs."""

import ssl
from typing import Final

from proxy.errors import SettingsError
from proxy.server.config import ServerConfig

PROTOCOLS: Final = ["http/1.1"]


class Certificates:
    """The TLS context of a server.

    Args:
        config: Its `certfile` and `keyfile`, and how TLS is spoken.

    Raises:
        SettingsError: They cannot be used.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._newest = self.context = _load(config)
        # Called in each handshake. A context that is complete takes over at once; loading new files into
        # the one in use could leave it with a certificate and a key that do not match.
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Reload the certificate for new connections.

        Raises:
            SettingsError: The certificate cannot be used; the old one stays in use.
        """
        self._newest = _load(self._config)

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: object) -> None:
        connection.context = self._newest


def open_certificates(config: ServerConfig) -> Certificates | None:
    """Return the certificates of a configuration; nothing where it serves without TLS.

    Raises:
        SettingsError: They cannot be used, or one of the two files is not named.
    """
    if (config.certfile is None) != (config.keyfile is None):
        raise SettingsError("certfile, keyfile: TLS needs both")
    return Certificates(config) if config.ssl_enabled else None


def _load(config: ServerConfig) -> ssl.SSLContext:
    try:
        context = config.create_ssl_context()
    except (OSError, ValueError) as error:  # of OpenSSL too
        words = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"certfile, keyfile: {config.certfile} and {config.keyfile} cannot be used: {words}"
        ) from error
    if context is None:
        raise SettingsError("certfile, keyfile: TLS needs both")
    context.set_alpn_protocols(PROTOCOLS)
    return context

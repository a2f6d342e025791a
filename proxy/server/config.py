"""The server's configuration: Hypercorn's keys, some with another default, and one that it lacks."""

import math
from typing import Final

from hypercorn.config import Config


class ServerConfig(Config):
    """The keys of `hypercorn.toml`."""

    max_app_queue_size: int = 1
    """Messages of a WebSocket, or pieces of one, that wait for the application."""
    keyfile_password: str | None = ""
    """Empty rather than None, because OpenSSL would prompt on the terminal for an encrypted key."""
    readiness_delay: float = 0.0
    """Seconds between SIGTERM and the end of the listener, while `/readyz` is 503 and requests are served."""


_BIND: Final = "must be an address, or an array of addresses"
_COUNT: Final = "must be a whole number, 1 or more"
_FLAG: Final = "must be true or false"
_INTERVAL: Final = "must be a number of seconds, more than 0"
_SECONDS: Final = "must be a number of seconds, 0 or more"
_TEXT: Final = "must be a string"
RULES: Final = {
    "bind": _BIND,
    "workers": _COUNT,
    "backlog": _COUNT,
    "keep_alive_max_requests": _COUNT,
    "h11_max_incomplete_size": _COUNT,
    "max_app_queue_size": _COUNT,
    "websocket_max_message_size": _COUNT,
    "include_server_header": _FLAG,
    "websocket_ping_interval": _INTERVAL,
    "readiness_delay": _SECONDS,
    "graceful_timeout": _SECONDS,
    "keep_alive_timeout": _SECONDS,
    "ssl_handshake_timeout": _SECONDS,
    "root_path": _TEXT,
    "certfile": _TEXT,
    "keyfile": _TEXT,
    "keyfile_password": _TEXT,
    "ca_certs": _TEXT,
    "ciphers": _TEXT,
}
"""The keys that the server reads, and what their values must be."""
TLS_KEYS: Final = frozenset({"certfile", "keyfile", "keyfile_password", "ca_certs", "ciphers"})
"""The keys that have an effect only with TLS, which needs the first two."""


def problem_with(key: str, value: object) -> str | None:
    """Return what is wrong with a value of `hypercorn.toml`; Hypercorn accepts any value."""
    rule = RULES.get(key)
    return None if rule is None or _obeys(rule, value) else rule


def _obeys(rule: str, value: object) -> bool:
    if rule == _FLAG:
        return isinstance(value, bool)
    if rule == _TEXT:
        return isinstance(value, str)
    if rule == _BIND:
        addresses = value if isinstance(value, list) else [value]
        return bool(addresses) and all(isinstance(address, str) for address in addresses)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if rule == _COUNT:
        return isinstance(value, int) and value >= 1
    return 0 <= value < math.inf and (value > 0 or rule == _SECONDS)

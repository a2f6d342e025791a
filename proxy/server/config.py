"""The server's configuration: Hypercorn's keys, and one that it lacks."""

from hypercorn.config import Config


class ServerConfig(Config):
    """What `hypercorn.toml` may hold."""

    keyfile_password: str | None = ""
    """Without one OpenSSL would ask the terminal, and the service would wait for an answer."""
    readiness_delay: float = 0.0
    """Seconds between SIGTERM and the end of the listener. `/readyz` is 503 meanwhile, and all is served."""

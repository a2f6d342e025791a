"""The server's configuration: Hypercorn's keys, and one that it lacks."""

from hypercorn.config import Config


class ServerConfig(Config):
    """The keys of `hypercorn.toml`."""

    keyfile_password: str | None = ""
    """Empty rather than None, because OpenSSL would prompt on the terminal for an encrypted key."""
    readiness_delay: float = 0.0
    """Seconds between SIGTERM and the end of the listener, while `/readyz` is 503 and requests are served."""

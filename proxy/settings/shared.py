"""`[shared]`: the Redis in which a fleet shares its tokens, and the keys that seal them there."""

import base64
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import model_validator

from proxy.secret import Secret
from proxy.settings.fields import CaFile, PositiveSeconds, SecretText, secret
from proxy.settings.problems import suggestion
from proxy.settings.section import Checked, Section, refuse

KEY_BYTES = 32
_PARAMETERS = frozenset({"client_name", "db", "protocol"})


def _redis_url(value: object) -> Secret:
    wrapped = secret(value)
    try:
        parts = urlsplit(wrapped.reveal())
        _ = parts.port
    except ValueError:
        refuse("is not a valid URL")
    if parts.scheme not in {"redis", "rediss", "unix"} or not (parts.hostname or parts.path.strip("/")):
        refuse("must be a redis://, rediss:// (TLS) or unix:// URL")
    _check_query(parts.query, parts.path if parts.scheme != "unix" else "")
    return wrapped


def _check_query(query: str, path: str) -> None:
    """What else stands in a Redis URL would reach its client unread."""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        refuse(f"has an unknown parameter, {suggestion(unknown[0], _PARAMETERS)}")
    for number in (parameters.get("db", "0"), path.strip("/") or "0"):
        if not number.isdigit():
            refuse("must name the database by a number")


def _sealing_key(value: object) -> Secret:
    wrapped = secret(value)
    if len(_key_bytes(wrapped)) != KEY_BYTES:
        refuse("must be 32 bytes in base64 or hexadecimal: `openssl rand -base64 32` makes one")
    return wrapped


def _key_bytes(key: Secret) -> bytes:
    """The bytes of a key, or nothing where it is none."""
    text = key.reveal()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        return base64.b64decode(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True
        )
    except ValueError:
        return b""


def _watcher(value: object) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdigit():
        refuse('must be "host:port"')
    return f"{host}:{port}"


RedisUrl = Annotated[Secret, Checked(_redis_url)]
SealingKey = Annotated[Secret, Checked(_sealing_key)]
Watcher = Annotated[str, Checked(_watcher)]


class Shared(Section):
    """What the processes of a fleet have in common."""

    redis_url: RedisUrl
    """With Sentinel its host is the name of the master."""
    encryption_key: SealingKey
    """Seals what lies in Redis: 32 bytes in base64 or hexadecimal."""
    decryption_keys: tuple[SealingKey, ...] = ()
    """Keys that open as well, while the fleet changes from one to another."""
    name_key: SealingKey | None = None
    """Makes the names of records. It stays when `encryption_key` is exchanged, and so the fleet stays one."""
    sentinels: tuple[Watcher, ...] = ()
    """`host:port` of each Sentinel, where there are any."""
    sentinel_password: SecretText | None = None
    redis_ca_file: CaFile | None = None
    """PEM certificates to trust at rediss:// instead of the system's."""
    redis_timeout: PositiveSeconds = 0.5
    """Seconds for one call; then Redis counts as absent for a while."""

    @property
    def keys(self) -> list[bytes]:
        """The bytes of the keys, the sealing one first."""
        return [_key_bytes(key) for key in (self.encryption_key, *self.decryption_keys)]

    @property
    def naming_key(self) -> bytes | None:
        """The bytes of `name_key`, where there is one."""
        return None if self.name_key is None else _key_bytes(self.name_key)

    @model_validator(mode="after")
    def _names_each_key_once(self) -> Self:
        if len({*self.keys}) <= len(self.decryption_keys):
            refuse("repeats a key", "decryption_keys")
        return self

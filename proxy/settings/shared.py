"""`[shared]`: the Redis in which a fleet shares its tokens, and the keys that encrypt them there."""

import base64
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import model_validator

from proxy.secret import Secret
from proxy.settings.fields import CaFile, PositiveSeconds, SecretText, secret
from proxy.settings.section import Checked, Section, reject, suggestion

KEY_BYTES = 32
_PARAMETERS = frozenset({"client_name", "db", "protocol"})


def _redis_url(value: object) -> Secret:
    wrapped = secret(value)
    try:
        parts = urlsplit(wrapped.reveal())
        _ = parts.port
    except ValueError:
        reject("is not a valid URL")
    if parts.scheme not in {"redis", "rediss", "unix"} or not (parts.hostname or parts.path.strip("/")):
        reject("must be a redis://, rediss:// (TLS) or unix:// URL")
    _check_query(parts.query, parts.path if parts.scheme != "unix" else "")
    return wrapped


def _check_query(query: str, path: str) -> None:
    """Accept only known parameters: the Redis client would apply any other without a check."""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        reject(f"has an unknown parameter, {suggestion(unknown[0], _PARAMETERS)}")
    for number in (parameters.get("db", "0"), path.strip("/") or "0"):
        if not number.isdigit():
            reject("must give the database as a number")


def _encryption_key(value: object) -> Secret:
    wrapped = secret(value)
    if len(_key_bytes(wrapped)) != KEY_BYTES:
        reject("must be 32 bytes in base64 or hexadecimal: `openssl rand -base64 32` generates one")
    return wrapped


def _key_bytes(key: Secret) -> bytes:
    """Return the bytes of a key; empty if it is not valid."""
    text = key.reveal()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        return base64.b64decode(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True
        )
    except ValueError:
        return b""


def _sentinel(value: object) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdigit():
        reject('must be "host:port"')
    return f"{host}:{port}"


RedisUrl = Annotated[Secret, Checked(_redis_url)]
EncryptionKey = Annotated[Secret, Checked(_encryption_key)]
Sentinel = Annotated[str, Checked(_sentinel)]


class Shared(Section):
    """The Redis of a fleet."""

    redis_url: RedisUrl
    """The URL of Redis; with Sentinel, its host is the name of the master."""
    encryption_key: EncryptionKey
    """Encrypts the tokens in Redis: 32 bytes in base64 or hexadecimal."""
    decryption_keys: tuple[EncryptionKey, ...] = ()
    """Further keys that can decrypt, while the fleet changes its key."""
    name_key: EncryptionKey | None = None
    """Derives the names of records. It stays when `encryption_key` is replaced, so the fleet stays one."""
    sentinels: tuple[Sentinel, ...] = ()
    """`host:port` of each Sentinel."""
    sentinel_password: SecretText | None = None
    redis_ca_file: CaFile | None = None
    """PEM certificates to trust for rediss:// instead of the system's."""
    redis_timeout: PositiveSeconds = 0.5
    """The time limit for one call; after that Redis is not used for a while."""

    @property
    def keys(self) -> list[bytes]:
        """The bytes of all keys, `encryption_key` first."""
        return [_key_bytes(key) for key in (self.encryption_key, *self.decryption_keys)]

    @property
    def naming_key(self) -> bytes | None:
        """The bytes of `name_key`, if it is set."""
        return None if self.name_key is None else _key_bytes(self.name_key)

    @model_validator(mode="after")
    def _names_each_key_once(self) -> Self:
        if len({*self.keys}) <= len(self.decryption_keys):
            reject("repeats a key", "decryption_keys")
        return self

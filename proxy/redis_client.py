"""The client of redis-py: how it connects, to the master or through Sentinels, and what its errors mean.

redis-py takes 6 MB of memory, so this module is imported only where there is a connection.
"""

import asyncio
import contextlib
import re
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from proxy.settings import Shared
from proxy.transport_failure import FailureKind, explain

CONNECTIONS_MAX: Final = 200
"""More than all users of the pool need together, because a full pool fails at once."""
_FOREIGN_VALUE: Final = re.compile(
    "WRONGTYPE|attempt to|bad argument|not an integer|not a valid float|would overflow|Invalid stream ID|"
    "last possible ID|smaller than the target"
)
"""What Redis, or Lua in a script, says about a value of a type or form that the command cannot use."""
_WRONG_SERVER: Final = {
    "READONLY": "it is a replica, which accepts no writes; check that redis_url leads to the master",
    "NOREPLICAS": "it has lost its replicas and accepts no writes; check that redis_url leads to the master",
    "MASTERDOWN": "it is a replica that has lost its master; check that redis_url leads to the master",
    "CLUSTERDOWN": "it belongs to a cluster that is down; look at Redis's log",
    "LOADING": "it is loading its data; wait, or look at Redis's log",
}
"""What a server that cannot serve commands at the moment says about itself, and how to explain it."""
_STATE: Final = re.compile(rf"(?:^|-)({'|'.join(_WRONG_SERVER)}) ")
"""The code of such an error. Redis 6 puts a text of its own in front of that of a command in a script."""


def open_client(settings: Shared) -> tuple[Redis, list[Redis]]:
    """Return the client of the master, and those of the Sentinels; nothing is connected yet."""
    pool, sentinels = _build_pool(settings)
    return Redis.from_pool(pool), sentinels


def is_access_denied(error: Exception) -> bool:
    """Whether Redis does not accept the user or the password."""
    return isinstance(error, AuthenticationError | NoPermissionError)


def is_about_value(error: Exception) -> bool:
    """Whether Redis says that a key holds something that this program has not written."""
    return isinstance(error, ResponseError) and _FOREIGN_VALUE.search(str(error)) is not None


async def leave_server(pool: ConnectionPool, error: Exception) -> None:
    """Close the idle connections after an error that new connections may not get.

    After a failover, the name or the address of the master leads to another server, while the connections
    that are open still lead to the previous one. redis-py keeps them, so that each would fail for ever.
    """
    if isinstance(error, AuthenticationError) or _state_of(error) is not None:
        with contextlib.suppress(RedisError):  # one that could not be closed in time
            await pool.disconnect(inuse_connections=False)


def _state_of(error: Exception) -> str | None:
    """Return the words of `_WRONG_SERVER` for an error, if it has any."""
    if not isinstance(error, RedisError):
        return None
    found = _STATE.search(f"{error.status_code or ''} {error}".lstrip())
    return None if found is None else _WRONG_SERVER[found[1]]


def explain_error(error: Exception, address: str) -> str:
    """Explain an error without the text of Redis, which may repeat the command."""
    if isinstance(error, TimeoutError | RedisTimeout):
        return f"{address}: no reply in time; check that it runs, and redis_timeout"
    if is_access_denied(error):
        return f"{address}: access denied ({type(error).__name__}); check user and password in redis_url"
    if is_about_value(error):
        return (
            f"{address}: a key holds something that this program has not written; keep other programs out of "
            "this database, or choose another one in redis_url"
        )
    if (state := _state_of(error)) is not None:
        return f"{address}: {state}"
    if any(isinstance(cause, FileNotFoundError) for cause in (error, error.__cause__, error.__context__)):
        return f"{address}: the socket does not exist; check its path, and that Redis is running"
    failure = explain(error, address)
    if failure.kind is FailureKind.OTHER:
        return f"{address}: {type(error).__name__}; look at Redis's log"
    return f"{address}: {failure.happened}; {failure.cure}"


class _SentinelClient(Redis):
    """A client of one Sentinel with its own time limit, so that there is time to ask the next one."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._seconds = seconds

    async def sentinel_masters(self, *args: Any, **options: Any) -> Any:
        """Return the masters that the Sentinel knows."""
        try:
            async with asyncio.timeout(self._seconds):
                return await super().sentinel_masters(*args, **options)
        except TimeoutError as error:
            raise RedisTimeout("the Sentinel did not answer") from error


def _build_pool(settings: Shared) -> tuple[ConnectionPool, list[Redis]]:
    """Return the pool of connections to the master, and the clients of the Sentinels."""
    # No retries: if a reply is lost, the command may have run. The caller decides whether to repeat it.
    limits: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    options: dict[str, Any] = {
        **parse_url(settings.redis_url.reveal()),
        **limits,
        # With RESP3, redis-py does not check idle connections before use, and logs the messages of a channel.
        "protocol": 2,
        "max_connections": CONNECTIONS_MAX,
    }
    if settings.redis_ca_file is not None:
        options["ssl_ca_certs"] = str(settings.redis_ca_file)
    if not settings.sentinels:
        return ConnectionPool(**options), []
    master = options.pop("host")
    options.pop("port", None)
    tls: dict[str, Any] = {}
    if options.pop("connection_class", None) is SSLConnection:
        tls = {"ssl": True, **{name: value for name, value in options.items() if name.startswith("ssl_")}}
    sentinel_options = {
        **limits,
        **tls,
        "password": settings.sentinel_password.reveal() if settings.sentinel_password else None,
    }
    sentinel = Sentinel([], sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]  # no types
    share = settings.redis_timeout / (len(settings.sentinels) + 1)
    sentinel.sentinels = [
        _SentinelClient(share, host=host, port=int(port), **sentinel_options)
        for host, _, port in (text.rpartition(":") for text in settings.sentinels)
    ]
    options |= tls
    pool = SentinelConnectionPool(master, sentinel, **options)  # type: ignore[no-untyped-call]  # no types
    return pool, sentinel.sentinels

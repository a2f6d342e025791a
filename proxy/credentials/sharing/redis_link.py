"""The way to Redis: one connection pool a process, through aiocache's Redis backend.

aiocache holds the namespace; its own client knows neither user names nor TLS
settings nor Sentinel, so redis-py's is put in its place.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final, cast

import redis.asyncio
from aiocache import RedisCache
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.settings import Shared

NAMESPACE: Final = "llm-token-proxy"


class StoreUnavailable(Exception):
    """Redis could not be asked: it is absent, slow, silent, or refuses us."""


class _NamedCache(RedisCache):  # type: ignore[misc]  # aiocache is not typed
    """aiocache's Redis cache over a client of ours."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        # Without its clock: `wait_for`, which it is made of, can lose a cancellation on Python 3.11.
        super().__init__(namespace=NAMESPACE, timeout=None)
        self.client = client

    async def _close(self, *_args: Any, **_options: Any) -> None:
        await self.client.aclose()


class RedisLink:
    """Runs scripts in Redis, each within a bounded time.

    Args:
        settings: The `[shared]` section.
    """

    def __init__(self, settings: Shared) -> None:
        pool, self._sentinels = _pool(settings)
        self._timeout = settings.redis_timeout
        self._cache = _NamedCache(redis.asyncio.Redis.from_pool(pool))

    def key(self, name: str, part: str) -> str:
        """The key of one part of a record; the braces keep all parts on one node of a cluster."""
        return cast(str, self._cache.build_key(f"{{{name}}}:{part}"))

    async def run(self, script: str, keys: list[str], *arguments: str | int | bytes) -> list[Any]:
        """Run a Lua script, which is atomic; the list that it returns.

        Raises:
            StoreUnavailable: there was no answer, or an error instead of one.
        """
        with _translated_errors():
            async with asyncio.timeout(self._timeout):
                answer = await self._cache.raw("eval", script, len(keys), *keys, *arguments)
        if answer is None:  # AIOCACHE_DISABLE=1 makes aiocache a no-op
            raise StoreUnavailable("aiocache is disabled by its environment variable")
        return cast(list[Any], answer)

    async def close(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(StoreUnavailable), _translated_errors():
            await self._cache.close()
            for sentinel in self._sentinels:
                await sentinel.aclose()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(type(error).__name__) from error


def _pool(settings: Shared) -> tuple[ConnectionPool, list[redis.asyncio.Redis]]:
    """The pool of connections to the master, and the clients that ask the sentinels where it is."""
    timeouts = {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_timeout,
    }
    options: dict[str, Any] = {
        **parse_url(settings.redis_url.reveal()),
        **timeouts,
        # Once, at once: a connection that lay idle may have been closed by the other side.
        "retry": Retry(NoBackoff(), 1),
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
    password = settings.sentinel_password.reveal() if settings.sentinel_password else None
    watchers = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in settings.sentinels)]
    watched = {**timeouts, **tls, "password": password}
    sentinel = Sentinel(watchers, sentinel_kwargs=watched)  # type: ignore[no-untyped-call]
    pool = SentinelConnectionPool(master, sentinel, **{**options, **tls})  # type: ignore[no-untyped-call]
    return pool, sentinel.sentinels

"""The way to Redis that the rooms above have in common: where it is, and how long it may take.

Two users: `credentials/sharing/redis_link.py`, which puts aiocache's backend on such a pool, and the chat,
which runs commands and scripts, and listens.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.settings import Shared

NAMESPACE: Final = "llm-token-proxy"
"""Begins every key of ours, but for the streams that carry a channel's events."""
COMMANDS_AT_ONCE: Final = 16
"""More wait, so that thousands of readers who come back at once do not open a connection each."""


class StoreUnavailable(Exception):
    """Redis could not be asked: it is absent, slow, silent, or refuses us."""


class RedisConnection:
    """Runs commands, each within a bounded time and none twice.

    Args:
        settings: The `[shared]` section.
    """

    def __init__(self, settings: Shared) -> None:
        # RESP2: a connection that lay idle is looked at before it is used again only there, and RESP3 writes
        # every message of a channel into a debug log. No retries: a command whose answer went lost may have
        # been run; who calls knows whether it may be run again. No clock of redis-py's: it is made of
        # `wait_for`, which can lose a cancellation on Python 3.11.
        more = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": None}
        pool, self._sentinels = build_pool(settings, **more)
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._places = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self.timeout = settings.redis_timeout

    async def run(self, *command: str | int | bytes) -> Any:
        """Run one command; what it gives.

        Raises:
            StoreUnavailable: there was no answer, or an error instead of one.
        """
        async with self._places:
            with translated_errors():
                async with asyncio.timeout(self.timeout):
                    return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def run_script(self, script: str, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        """Run a Lua script, which is one step for everybody else.

        Raises:
            StoreUnavailable: there was no answer, or an error instead of one.
        """
        return await self.run("EVAL", script, len(keys), *keys, *arguments)

    def listen(self) -> PubSub:
        """A connection of its own for pub/sub; whoever asks for it closes it."""
        return self._client.pubsub()

    async def close(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(StoreUnavailable), translated_errors():
            # Closing can wait for a reader that waits in turn: https://github.com/redis/redis-py/issues/3941
            async with asyncio.timeout(self.timeout):
                await self._client.aclose()
                await close_sentinels(self._sentinels)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Let whatever goes wrong on the way to Redis be a `StoreUnavailable`, which names the kind alone."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(type(error).__name__) from error


def build_pool(settings: Shared, **more: Any) -> tuple[ConnectionPool, list[redis.asyncio.Redis]]:
    """The pool of connections to the master, and the clients that ask the sentinels where it is.

    Args:
        settings: The `[shared]` section.
        more: Options of redis-py's connections that win over ours.
    """
    timeouts = {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_timeout,
    }
    options: dict[str, Any] = {
        **parse_url(settings.redis_url.reveal()),
        **timeouts,
        # Once, at once: a connection that lay idle may have been closed by the other side.
        "retry": Retry(NoBackoff(), 1),
        **more,
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


async def close_sentinels(sentinels: Sequence[redis.asyncio.Redis]) -> None:
    """Let go of the connections to the sentinels."""
    for sentinel in sentinels:
        await sentinel.aclose()

"""The one connection to Redis of a service: where it is, and how long an operation may take.

redis-py runs here without clocks of its own. With `socket_timeout` it writes through `asyncio.wait_for`,
which can swallow a cancellation on Python 3.11: a task that is cancelled at that moment runs on for ever.
So every operation is bounded by `asyncio.timeout`, which cannot.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeout

from proxy.settings import Shared
from proxy.transport_failure import FailureKind, explain, origin_of

NAMESPACE: Final = "llm-token-proxy"
"""Begins every key of ours, except for the streams that carry a channel's events."""
COMMANDS_AT_ONCE: Final = 16
"""Further commands queue, so that thousands of readers who reconnect do not open a connection each."""
CONNECTIONS_MAX: Final = 200
"""Above what the queues of all users allow together: a pool that is full fails at once."""


class StoreUnavailable(Exception):
    """Redis is absent, slow or silent, or it refuses us."""


class RedisConnection:
    """Runs commands, each within a bounded time and none twice.

    Args:
        settings: The `[shared]` section.
    """

    def __init__(self, settings: Shared) -> None:
        self.timeout = settings.redis_timeout
        self._asked = _place_of(settings)
        self.pool, self._sentinels = _build_pool(settings)
        """The pool, for libraries that bring commands of their own; they run inside `bounded`."""
        self._client = redis.asyncio.Redis.from_pool(self.pool)
        self._places = asyncio.Semaphore(COMMANDS_AT_ONCE)

    @contextlib.asynccontextmanager
    async def bounded(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Bound the time of an operation, and translate its errors.

        Args:
            seconds: At most so many; never more than `redis_timeout`.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        with translated_errors(self._asked):
            async with asyncio.timeout(self.timeout if seconds is None else min(seconds, self.timeout)):
                yield

    async def run(self, *command: str | int | bytes) -> Any:
        """Run one command and return its result.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        async with self._places:
            return await self._execute(None, *command)

    async def run_script(
        self, script: str, keys: Sequence[str], *arguments: str | int | bytes, within: float | None = None
    ) -> Any:
        """Run a Lua script, which is one step for everybody else, and return its result.

        Args:
            script: In Lua.
            keys: That it reads or writes.
            arguments: More of its arguments.
            within: Seconds for this script, which then does not queue behind other commands. For the few
                scripts that decide about tokens: the readers of the chat must not delay them.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        command = ("EVAL", script, len(keys), *keys, *arguments)
        return await (self.run(*command) if within is None else self._execute(within, *command))

    def listen(self) -> PubSub:
        """A connection of its own for pub/sub; the caller closes it."""
        return self._client.pubsub()

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(StoreUnavailable):
            # Closing can wait for a reader that waits in turn: https://github.com/redis/redis-py/issues/3941
            async with self.bounded():
                await self._client.aclose()
                for sentinel in self._sentinels:
                    await sentinel.aclose()

    async def _execute(self, seconds: float | None, *command: str | int | bytes) -> Any:
        async with self.bounded(seconds):
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def translated_errors(asked: str = "Redis") -> Iterator[None]:
    """Raise whatever goes wrong on the way to Redis as a `StoreUnavailable` with words for the log.

    Args:
        asked: Where Redis is, as the words name it.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:  # replies that are not Redis's make its parser, and limits, raise anything
        raise StoreUnavailable(_fault(error, asked)) from error


def _fault(error: Exception, asked: str) -> str:
    """What went wrong, without a word of Redis's own: they may repeat what was sent."""
    if isinstance(error, TimeoutError | RedisTimeout):
        return f"{asked}: no answer in time; check that it runs, and redis_timeout"
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"{asked}: it refuses us ({type(error).__name__}); check user and password in redis_url"
    if any(isinstance(cause, FileNotFoundError) for cause in (error, error.__cause__, error.__context__)):
        return f"{asked}: the socket does not exist; check its path, and that Redis is running"
    failure = explain(error, asked)
    if failure.kind is FailureKind.OTHER:
        return f"{asked}: {type(error).__name__}; look at Redis's log"
    return f"{asked}: {failure.happened}; {failure.cure}"


def _place_of(settings: Shared) -> str:
    """Where Redis is, without user and password."""
    url = settings.redis_url.reveal()
    if settings.sentinels:
        return f"redis by the Sentinels {', '.join(settings.sentinels)}"
    return url.partition("?")[0] if url.startswith("unix:") else origin_of(url)


class _Watcher(redis.asyncio.Redis):
    """A client of one Sentinel with a clock of its own, so that a silent one leaves time for the next."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._seconds = seconds

    async def sentinel_masters(self, *args: Any, **options: Any) -> Any:
        """The masters that it knows."""
        try:
            async with asyncio.timeout(self._seconds):
                return await super().sentinel_masters(*args, **options)
        except TimeoutError as error:
            raise RedisTimeout("the Sentinel did not answer") from error


def _build_pool(settings: Shared) -> tuple[ConnectionPool, list[redis.asyncio.Redis]]:
    """The pool of connections to the master, and the clients that ask the Sentinels where it is."""
    # No retries: a command whose answer was lost may have run; the caller knows whether it may run again.
    clocks: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    options: dict[str, Any] = {
        **parse_url(settings.redis_url.reveal()),
        **clocks,
        # RESP2: only there is a connection that lay idle checked before it is used again, and RESP3 writes
        # the messages of a channel into a debug log.
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
    watched = {
        **clocks,
        **tls,
        "password": settings.sentinel_password.reveal() if settings.sentinel_password else None,
    }
    sentinel = Sentinel([], sentinel_kwargs=watched)  # type: ignore[no-untyped-call]
    share = settings.redis_timeout / (len(settings.sentinels) + 1)
    sentinel.sentinels = [
        _Watcher(share, host=host, port=int(port), **watched)
        for host, _, port in (text.rpartition(":") for text in settings.sentinels)
    ]
    pool = SentinelConnectionPool(master, sentinel, **{**options, **tls})  # type: ignore[no-untyped-call]
    return pool, sentinel.sentinels

"""The connection to Redis that all parts of a worker share, with a time limit for every operation.

redis-py's `socket_timeout` is not used: it writes through `asyncio.wait_for`, which can swallow a
cancellation on Python 3.11, so that the cancelled task would run indefinitely. `asyncio.timeout` limits every
operation instead.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from proxy.settings import Shared
from proxy.transport_failure import FailureKind, explain, origin_of

NAMESPACE: Final = "llm-token-proxy"
"""The prefix of all keys, except for the streams that carry the events of a channel."""
CONCURRENT_COMMANDS_MAX: Final = 16
"""Further commands wait, so that thousands of reconnecting readers do not open a connection each."""
CONNECTIONS_MAX: Final = 200
"""More than all users of the pool need together, because a full pool fails at once."""


_FOREIGN_VALUE: Final = re.compile(
    "WRONGTYPE|attempt to|bad argument|not an integer|not a valid float|would overflow|Invalid stream ID|"
    "last possible ID|smaller than the target"
)
"""What Redis, or Lua in a script, says about a value of a type or form that the command cannot use."""

_Reply = TypeVar("_Reply")


class StoreUnavailable(Exception):
    """Redis cannot be reached, is too slow, rejects access, or sends a reply that its command cannot have."""

    access_denied = False
    """Whether Redis answers, but does not accept the user or the password."""


class StoreCorrupt(StoreUnavailable):
    """A key holds something that this program has not written, so that a retry fails as well."""


class RedisConnection:
    """Runs commands, each with a time limit and without retries."""

    def __init__(self, settings: Shared) -> None:
        self.timeout = settings.redis_timeout
        self._address = _address_of(settings)
        self.pool, self._sentinels = _build_pool(settings)
        """The pool, for libraries that send commands themselves, inside `bounded`."""
        self._client = redis.asyncio.Redis.from_pool(self.pool)
        self._slots = asyncio.Semaphore(CONCURRENT_COMMANDS_MAX)

    @contextlib.asynccontextmanager
    async def bounded(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Limit the time of an operation, and translate its errors.

        Args:
            seconds: The time limit; never more than `redis_timeout`.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        with translated_errors(self._address):
            async with asyncio.timeout(self.timeout if seconds is None else min(seconds, self.timeout)):
                yield

    async def run(self, *command: str | int | bytes) -> object:
        """Run one command and return its reply; `expect` checks the form.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        async with self._slots:
            return await self._execute(None, *command)

    async def run_script(
        self, script: str, keys: Sequence[str], *arguments: str | int | bytes, within: float | None = None
    ) -> object:
        """Run a Lua script, which is atomic in Redis, and return its reply; `expect` checks the form.

        Args:
            keys: The keys that it reads or writes.
            arguments: Its other arguments.
            within: The time limit in seconds. With it, the script does not wait for other commands, so that
                readers of the chat cannot delay the scripts that share tokens.

        Raises:
            StoreUnavailable: Redis did not answer in time, or answered with an error.
        """
        command = ("EVAL", script, len(keys), *keys, *arguments)
        return await (self.run(*command) if within is None else self._execute(within, *command))

    def listen(self) -> PubSub:
        """Return a separate connection for pub/sub, which the caller has to close."""
        return self._client.pubsub()

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(StoreUnavailable):
            # Closing can deadlock with a reader: https://github.com/redis/redis-py/issues/3941
            async with self.bounded():
                await self._client.aclose()
                for sentinel in self._sentinels:
                    await sentinel.aclose()

    async def _execute(self, seconds: float | None, *command: str | int | bytes) -> object:
        async with self.bounded(seconds):
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # no types


def expect(form: type[_Reply], reply: object) -> _Reply:
    """Return a reply of Redis, which must have this type.

    Raises:
        StoreUnavailable: It has another type, so that something other than Redis has sent it.
    """
    if not isinstance(reply, form):
        raise StoreUnavailable(f"a reply is {type(reply).__name__}, not {form.__name__}; check redis_url")
    return reply


def expect_list(form: type[_Reply], reply: object) -> list[_Reply]:
    """Return a reply of Redis, which must be a list of this type.

    Raises:
        StoreUnavailable: See `expect`.
    """
    return [expect(form, item) for item in expect(list, reply)]


@contextlib.contextmanager
def translated_errors(address: str = "Redis") -> Iterator[None]:
    """Translate any error to a `StoreUnavailable` with a message for the log.

    Args:
        address: The address of Redis in the message.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:  # an invalid reply can make the parser, or limits, raise anything
        kind = StoreCorrupt if _is_about_value(error) else StoreUnavailable
        unavailable = kind(_explain(error, address))
        unavailable.access_denied = isinstance(error, AuthenticationError | NoPermissionError)
        raise unavailable from error


def _is_about_value(error: Exception) -> bool:
    return isinstance(error, ResponseError) and _FOREIGN_VALUE.search(str(error)) is not None


def _explain(error: Exception, address: str) -> str:
    """Explain an error without the text of Redis, which may repeat the command."""
    if isinstance(error, TimeoutError | RedisTimeout):
        return f"{address}: no reply in time; check that it runs, and redis_timeout"
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"{address}: access denied ({type(error).__name__}); check user and password in redis_url"
    if _is_about_value(error):
        return (
            f"{address}: a key holds something that this program has not written; keep other programs out of "
            "this database, or choose another one in redis_url"
        )
    if any(isinstance(cause, FileNotFoundError) for cause in (error, error.__cause__, error.__context__)):
        return f"{address}: the socket does not exist; check its path, and that Redis is running"
    failure = explain(error, address)
    if failure.kind is FailureKind.OTHER:
        return f"{address}: {type(error).__name__}; look at Redis's log"
    return f"{address}: {failure.happened}; {failure.cure}"


def _address_of(settings: Shared) -> str:
    """Return the address of Redis without user and password."""
    url = settings.redis_url.reveal()
    if settings.sentinels:
        return f"redis by the Sentinels {', '.join(settings.sentinels)}"
    return url.partition("?")[0] if url.startswith("unix:") else origin_of(url)


class _SentinelClient(redis.asyncio.Redis):
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


def _build_pool(settings: Shared) -> tuple[ConnectionPool, list[redis.asyncio.Redis]]:
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

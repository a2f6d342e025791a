"""The connection to Redis that all parts of a worker share, with a time limit for every operation.

redis-py's `socket_timeout` is not used: it writes through `asyncio.wait_for`, which can swallow a
cancellation on Python 3.11, so that the cancelled task would run indefinitely. `asyncio.timeout` limits every
operation instead.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from proxy.settings import Shared
from proxy.transport_failure import origin_of

if TYPE_CHECKING:  # redis-py takes 6 MB, and is imported where there is a connection.
    from redis.asyncio.client import PubSub

NAMESPACE: Final = "llm-token-proxy"
"""The prefix of all keys, except for the streams that carry the events of a channel."""
CONCURRENT_COMMANDS_MAX: Final = 16
"""Further commands wait, so that thousands of reconnecting readers do not open a connection each."""

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
        from proxy.redis_client import open_client

        self.timeout = settings.redis_timeout
        self._address = _address_of(settings)
        self._client, self._sentinels = open_client(settings)
        self.pool = self._client.connection_pool
        """The pool, for libraries that send commands themselves, inside `bounded`."""
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
            try:
                async with asyncio.timeout(self.timeout if seconds is None else min(seconds, self.timeout)):
                    yield
            except Exception as error:  # of redis-py, or of a library that uses its pool
                from proxy.redis_client import leave_server

                await leave_server(self.pool, error)
                raise

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

    def listen(self) -> "PubSub":
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
        from proxy.redis_client import explain_error, is_about_value, is_access_denied

        kind = StoreCorrupt if is_about_value(error) else StoreUnavailable
        unavailable = kind(explain_error(error, address))
        unavailable.access_denied = is_access_denied(error)
        raise unavailable from error


def _address_of(settings: Shared) -> str:
    """Return the address of Redis without user and password."""
    url = settings.redis_url.reveal()
    if settings.sentinels:
        return f"redis by the Sentinels {', '.join(settings.sentinels)}"
    return url.partition("?")[0] if url.startswith("unix:") else origin_of(url)

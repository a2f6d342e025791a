"""The conversations of each visitor: their channels, titles and times, in memory or over Redis.

A conversation is listed from its first question until a while after its last one. In Redis, the titles are
encrypted, because they are questions: `...:{S}:titles` is a hash of sealed titles by channel, and
`...:{S}:recent` is a sorted set of channels by the time of their last question; `S` is the hash of a session.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from proxy.chat.conversation import CONVERSATIONS_MAX, UNREADABLE
from proxy.chat.shares import Shares, nobody
from proxy.credentials.sharing.record import Seal, SealBroken
from proxy.redis_connection import NAMESPACE, RedisConnection, expect_list
from proxy.telemetry import get_logger

LISTED_MAX: Final = 200
"""Maximum number of conversations of a visitor. The one with the oldest last question is no longer listed."""
TITLE_CHARS_MAX: Final = 80
_MILLISECONDS_MAX: Final = 8_640_000_000_000_000
"""JavaScript has no later dates: https://tc39.es/ecma262/#sec-time-values-and-time-range."""

_NOTE: Final = """
local time = redis.call('time')
local now = time[1] * 1000 + time[2] / 1000  -- in microseconds, as an order
redis.call('hsetnx', KEYS[1], ARGV[1], ARGV[2])
redis.call('zadd', KEYS[2], now, ARGV[1])
local old = redis.call('zrangebyscore', KEYS[2], '-inf', now - ARGV[3])
local more = redis.call('zrange', KEYS[2], 0, -1 - ARGV[4])
for _, channels in ipairs({old, more}) do
    for _, channel in ipairs(channels) do
        redis.call('zrem', KEYS[2], channel)
        redis.call('hdel', KEYS[1], channel)
    end
end
for _, key in ipairs(KEYS) do redis.call('pexpire', key, ARGV[3]) end
return 1
"""
"""KEYS: titles, recent. ARGV: channel, sealed title, expiry in ms, how many to list."""

_READ: Final = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call(
    'zrevrangebyscore', KEYS[2], '+inf', now - ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2]
)
local answer = {}
for place = 1, #found, 2 do
    answer[#answer + 1] = {found[place], found[place + 1], redis.call('hget', KEYS[1], found[place])}
end
return answer
"""
"""KEYS: titles, recent. ARGV: expiry in ms, how many to list."""

_RENAME: Final = """
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
"""KEYS: titles. ARGV: channel, sealed title."""


class Listed(msgspec.Struct, frozen=True):
    """A conversation in the list of a visitor.

    Args:
        title: Its first question, or another title that the visitor chose.
        at: The time of its last question, in milliseconds since the epoch.
    """

    channel: str
    title: str
    at: int


class ConversationList(Protocol):
    """The conversations of each session. With Redis, every method may raise `StoreUnavailable`."""

    async def read(self, session: str) -> list[Listed]:
        """Return the conversations of a session, the latest first."""
        ...

    async def note(self, session: str, channel: str, question: str) -> None:
        """Note that a question was asked. A new conversation gets it as its title."""
        ...

    async def rename(self, session: str, channel: str, title: str) -> bool:
        """Change the title of a conversation; False if it is not listed."""
        ...

    async def remove(self, session: str, channel: str) -> None:
        """Remove a conversation from the list."""
        ...


class MemoryConversationList:
    """Lists in the memory of this process.

    Args:
        expire: Seconds after its last question until a conversation is no longer listed.
        limit: Sessions to keep lists of. Beyond it, the visitor with most sessions makes room.
        visitor_of: Returns the visitor to whom a channel counts.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        expire: float,
        limit: int = CONVERSATIONS_MAX,
        visitor_of: Callable[[str], str] = nobody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._expire = expire
        self._limit = limit
        self._visitor_of = visitor_of
        self._shares = Shares()
        self._clock = clock
        # Both levels are ordered by the last question.
        self._lists: OrderedDict[str, OrderedDict[str, Listed]] = OrderedDict()

    async def read(self, session: str) -> list[Listed]:
        """Return the conversations of a session, the latest first."""
        self._drop_old(session)
        return [*reversed(self._lists.get(session, {}).values())]

    async def note(self, session: str, channel: str, question: str) -> None:
        """Note that a question was asked."""
        self._drop_old(session)
        if session not in self._lists:
            self._shares.add(session, 1, self._visitor_of(channel))
        listed = self._lists.setdefault(session, OrderedDict())
        known = listed.pop(channel, None)
        title = shorten(question) if known is None else known.title
        listed[channel] = Listed(channel, title, int(self._clock() * 1000))
        self._lists.move_to_end(session)
        if len(listed) > LISTED_MAX:
            listed.popitem(last=False)
        oldest = self._shares.choose(self._lists, session) if len(self._lists) > self._limit else None
        if oldest is not None:
            self._drop(oldest)

    async def rename(self, session: str, channel: str, title: str) -> bool:
        """Change the title of a conversation; False if it is not listed."""
        self._drop_old(session)
        listed = self._lists.get(session, OrderedDict())
        if channel not in listed:
            return False
        listed[channel] = replace(listed[channel], title=shorten(title))
        return True

    async def remove(self, session: str, channel: str) -> None:
        """Remove a conversation from the list."""
        self._lists.get(session, OrderedDict()).pop(channel, None)

    def _drop_old(self, session: str) -> None:
        since = (self._clock() - self._expire) * 1000
        listed = self._lists.get(session, OrderedDict())
        while listed and next(iter(listed.values())).at <= since:
            listed.popitem(last=False)
        while self._lists and next(reversed(next(iter(self._lists.values())).values()), _NEVER).at <= since:
            self._drop(next(iter(self._lists)))

    def _drop(self, session: str) -> None:
        del self._lists[session]
        self._shares.remove(session, 1)


_NEVER: Final = Listed("", "", 0)


class RedisConversationList:
    """Lists in Redis, shared by all processes with the same keys.

    Args:
        seal: Encrypts the titles.
        expire: Seconds after its last question until a conversation is no longer listed.
    """

    def __init__(self, redis: RedisConnection, seal: Seal, *, expire: float) -> None:
        self._redis = redis
        self._seal = seal
        self._expire_ms = int(expire * 1000)
        self._log = get_logger("chat")

    async def read(self, session: str) -> list[Listed]:
        """Return the conversations of a session, the latest first, without those that no key decrypts."""
        titles, recent = _keys(session)
        found = []
        reply = await self._redis.run_script(_READ, [titles, recent], self._expire_ms, LISTED_MAX)
        for channel, at, sealed in expect_list(list, reply):
            try:
                name, asked_at = channel.decode(), int(float(at))
                title = self._seal.open(sealed or b"", _place(titles, name)).decode()
                if not 0 <= asked_at <= _MILLISECONDS_MAX:
                    raise ValueError("no time of a question")
            except (SealBroken, ValueError, OverflowError):
                self._log.warning("chat_title_unreadable", meaning=UNREADABLE)
            else:
                found.append(Listed(name, title, asked_at))
        return found

    async def note(self, session: str, channel: str, question: str) -> None:
        """Note that a question was asked."""
        keys = _keys(session)
        sealed = self._seal_title(keys[0], channel, question)
        await self._redis.run_script(_NOTE, keys, channel, sealed, self._expire_ms, LISTED_MAX)

    async def rename(self, session: str, channel: str, title: str) -> bool:
        """Change the title of a conversation; False if it is not listed."""
        titles, _ = _keys(session)
        sealed = self._seal_title(titles, channel, title)
        return bool(await self._redis.run_script(_RENAME, [titles], channel, sealed))

    async def remove(self, session: str, channel: str) -> None:
        """Remove a conversation from the list."""
        titles, recent = _keys(session)
        await self._redis.run("ZREM", recent, channel)
        await self._redis.run("HDEL", titles, channel)

    def _seal_title(self, key: str, channel: str, text: str) -> bytes:
        return self._seal.close(shorten(text).encode(), _place(key, channel))


def shorten(text: str) -> str:
    """Return a text as a title: one line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARS_MAX else f"{line[: TITLE_CHARS_MAX - 1].rstrip()}…"


def _keys(session: str) -> tuple[str, str]:
    hashed = hashlib.sha256(session.encode()).hexdigest()
    return f"{NAMESPACE}:{{{hashed}}}:titles", f"{NAMESPACE}:{{{hashed}}}:recent"


def _place(key: str, channel: str) -> str:
    """Return where a title is stored, so that it cannot be moved to another conversation."""
    return f"{key}:{channel}"

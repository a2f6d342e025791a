"""What Redis keeps of a channel: a stream of its last events, and the script that adds to it and publishes.

The stream of channel `C` is `sse:C`; an entry has `d`, flask-sse's envelope without an id, and `n`, a number
used once. Its entry id is the event's id. What it holds, the rendered messages, lies there in clear, as it
goes through pub/sub in clear: that is what a Flask site that shares the Redis can read. Both need a Redis
that only trusted services reach.
"""

import secrets
from dataclasses import replace
from typing import Final

from proxy.chat.event import START, Event, Position, format_id, parse_id
from proxy.redis_connection import RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

PUBLISH: Final = """
if ARGV[7] == '1' then
    for _, entry in ipairs(redis.call('xrevrange', KEYS[1], '+', '-', 'COUNT', 32)) do
        if entry[2][4] == ARGV[1] then return entry[1] end
    end
end
local id = redis.call('xadd', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'd', ARGV[4] .. ARGV[5], 'n', ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[3])
redis.call('publish', ARGV[6], ARGV[4] .. ', "id": "' .. id .. '"' .. ARGV[5])
return id
"""
"""KEYS: stream. ARGV: number used once, entries kept, ms they stay, envelope up to the id and from there on,
channel, 1 where this is another attempt.

A script, not a pipeline: the message has to bear the id that the entry gets, and nobody may come between, so
that messages come in the order of their ids. It is one step: what was published is kept, and a reader that
missed the message finds the entry. An attempt whose answer went lost may have been run; the next one finds
its number among the latest entries.
"""


class Backlog:
    """The streams of all channels.

    Args:
        redis: The way to Redis.
        kept: Entries of a channel; up to a hundred more stay, since Redis trims whole nodes.
        expire: Seconds after a channel's last event until nothing of it is kept.
    """

    def __init__(self, redis: RedisConnection, kept: int, expire: float) -> None:
        self._redis = redis
        self._kept = kept
        self._expire_ms = int(expire * 1000)
        self._log = get_logger("chat")

    @staticmethod
    def number() -> str:
        """A number used once, for one event and all attempts to publish it."""
        return secrets.token_hex(8)

    async def publish(self, channel: str, event: Event, number: str, *, again: bool) -> str:
        """Keep an event, then publish it; its id.

        Args:
            channel: Its name.
            event: Its id does not count.
            number: Of this event.
            again: Whether an earlier attempt may have been run.

        Raises:
            StoreUnavailable: whether it was run is not known.
        """
        head, tail = event.envelope_parts()
        answer: bytes = await self._redis.run_script(
            PUBLISH, [_key(channel)],
            number, self._kept, self._expire_ms, head, tail, channel, int(again),
        )  # fmt: skip
        return answer.decode()

    async def after(self, channel: str, position: Position, most: int) -> list[tuple[Position, Event | None]]:
        """The next entries after a position; None for one that nobody can read.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        start = f"({format_id(position)}"
        entries = await self._redis.run("XRANGE", _key(channel), start, "+", "COUNT", most)
        return [self._read(*entry) for entry in entries]

    async def newest(self, channel: str) -> Position:
        """Where the last entry stands.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        entries = await self._redis.run("XREVRANGE", _key(channel), "+", "-", "COUNT", 1)
        return self._read(*entries[0])[0] if entries else START

    async def knows(self, channel: str) -> bool:
        """Whether anything is kept.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        return bool(await self._redis.run("XLEN", _key(channel)))

    async def forget(self, channel: str) -> None:
        """Keep nothing of what was published so far.

        The emptied stream stays until it expires, since it knows its last id: in one that was deleted, an id
        could come a second time within the millisecond.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._redis.run("XTRIM", _key(channel), "MAXLEN", 0)

    def _read(self, name: bytes, fields: dict[bytes, bytes]) -> tuple[Position, Event | None]:
        text = name.decode()
        position = parse_id(text)
        if position is None:
            raise StoreUnavailable("an entry with a strange id")
        try:
            event = Event.from_envelope(fields[b"d"])
        except (KeyError, ValueError):
            self._log.warning("chat_entry_unreadable")
            return position, None
        return position, replace(event, id=text)


def _key(channel: str) -> str:
    return f"sse:{channel}"

"""The leases of dialogues in Redis: which process answers in a channel, and until when it counts as alive.

The key `...:{C}:lease` of channel `C` is a hash: `holder` (the random id of the dialogue), `open` once it has
published something, and `stop` once a stop was requested. `...:{C}:ended:HOLDER` exists for a while after the
dialogue has ended. `...:chat:leases` is a sorted set of all channels by the time at which their leases lapse.

A lease that lapses is not deleted: it keeps the channel busy until a process ends the dialogue
(`orphans.py`). A lease that is missing and has not ended is taken again, because an emptied Redis must not
end answers.
"""

from typing import Final

from proxy.redis_connection import NAMESPACE, RedisConnection, expect, expect_list
from proxy.telemetry import get_logger

LEASES: Final = f"{NAMESPACE}:chat:leases"
LEASE_SECONDS: Final = 4.0
"""Time after its last renewal until a dialogue's process counts as dead."""
LAPSED_BATCH_MAX: Final = 100
"""Lapsed leases read at a time."""

HOLDS_LEASE: Final = """
local day, hour = 86400000, 3600000
local function now()
    local time = redis.call('time')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function extend(lease, leases, channel, milliseconds)
    redis.call('pexpire', lease, day)
    redis.call('zadd', leases, now() + milliseconds, channel)
    redis.call('pexpire', leases, day)
end
local function holds(lease, leases, ended, holder, channel, milliseconds)
    if redis.call('exists', ended) == 1 then return false end
    local current = redis.call('hget', lease, 'holder')
    if current and current ~= '' and current ~= holder then return false end
    redis.call('hset', lease, 'holder', holder)
    extend(lease, leases, channel, milliseconds)
    return true
end
local function release(lease, leases, ended, channel)
    redis.call('set', ended, 1, 'PX', hour)
    redis.call('del', lease)
    redis.call('zrem', leases, channel)
end
"""
"""Lua functions: `holds` renews a lease, unless it belongs to another holder or its dialogue has ended."""

_BEGIN: Final = f"""{HOLDS_LEASE}
if redis.call('hlen', KEYS[1]) > 0 then return 0 end
redis.call('zcard', KEYS[2])  -- a key of another type must be found before anything is written
redis.call('hset', KEYS[1], 'holder', ARGV[1])
extend(KEYS[1], KEYS[2], ARGV[2], ARGV[3])
return 1
"""
"""KEYS: lease, leases. ARGV: holder, channel, ms."""

_RENEW: Final = f"""{HOLDS_LEASE}
if not holds(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
return redis.call('hexists', KEYS[1], 'stop') == 1 and 2 or 1
"""
"""KEYS: lease, leases, ended. ARGV: holder, channel, ms. 0: lost, 1: renewed, 2: renewed, and must stop."""

_RELEASE: Final = f"""{HOLDS_LEASE}
if redis.call('hget', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
if redis.call('hexists', KEYS[1], 'open') == 1 then
    -- if the key of all leases is of another type, nobody would find this one
    if type(redis.pcall('zadd', KEYS[2], now(), ARGV[2])) == 'table' then redis.call('del', KEYS[1]) end
else
    release(KEYS[1], KEYS[2], KEYS[3], ARGV[2])
end
return 1
"""
"""KEYS: lease, leases, ended. ARGV: holder, channel. If the end of the dialogue was not published, the lease
lapses now, so that a process publishes it."""

_REQUEST_STOP: Final = """
local holder = redis.call('hget', KEYS[1], 'holder')
if not holder then return 0 end
redis.call('hset', KEYS[1], 'stop', 1)
redis.call('publish', ARGV[1], holder)
return 1
"""
"""KEYS: lease. ARGV: pub/sub channel of stops."""

_REOPEN: Final = f"""{HOLDS_LEASE}
if redis.call('exists', KEYS[1]) == 1 then return 0 end
local newest = redis.call('xrevrange', KEYS[3], '+', ARGV[3], 'COUNT', 1)
if newest[1] and newest[1][1] ~= ARGV[3] then return 0 end
redis.call('zcard', KEYS[2])  -- a key of another type must be found before anything is written
redis.call('hset', KEYS[1], 'holder', '', 'open', 1)
extend(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1
"""
"""KEYS: lease, leases, stream. ARGV: channel, ms, last event of the reader."""

_ABANDON: Final = f"""{HOLDS_LEASE}
local due = redis.call('zscore', KEYS[2], ARGV[1])
if not due or tonumber(due) > now() then return 0 end
redis.call('del', KEYS[1])
redis.call('zrem', KEYS[2], ARGV[1])
return 1
"""
"""KEYS: lease, leases. ARGV: channel."""

_LAPSED: Final = f"""{HOLDS_LEASE}
return redis.call('zrangebyscore', KEYS[1], '-inf', now(), 'LIMIT', 0, ARGV[1])
"""
"""KEYS: leases. ARGV: how many."""

LOST: Final = 0
STOPPING: Final = 2


class RedisLeases:
    """The leases of all processes with the same Redis. Every method may raise `StoreUnavailable`.

    Args:
        seconds: Time after its last renewal until a lease lapses.
    """

    def __init__(self, redis: RedisConnection, *, seconds: float = LEASE_SECONDS) -> None:
        self._redis = redis
        self.milliseconds = int(seconds * 1000)
        self._log = get_logger("chat")

    async def take(self, channel: str, holder: str) -> bool:
        """Take the lease of a channel; False while it has one, even if that has lapsed."""
        keys = (lease_key(channel), LEASES)
        return bool(await self._redis.run_script(_BEGIN, keys, holder, channel, self.milliseconds))

    async def renew(self, channel: str, holder: str) -> int:
        """Renew a lease: `LOST`, `STOPPING` if a stop was requested, or another number."""
        keys = (lease_key(channel), LEASES, ended_key(channel, holder))
        return expect(int, await self._redis.run_script(_RENEW, keys, holder, channel, self.milliseconds))

    async def release(self, channel: str, holder: str) -> None:
        """Release a lease, if this holder has it."""
        keys = (lease_key(channel), LEASES, ended_key(channel, holder))
        await self._redis.run_script(_RELEASE, keys, holder, channel)

    async def held(self, channel: str) -> bool:
        """Return whether a channel has a lease."""
        return bool(await self._redis.run("HLEN", lease_key(channel)))

    async def request_stop(self, channel: str, announce: str) -> None:
        """Note in the lease that its holder must stop, and publish the holder on a pub/sub channel."""
        await self._redis.run_script(_REQUEST_STOP, [lease_key(channel)], announce)

    async def reopen(self, channel: str, stream: str, last: str) -> None:
        """Create a lease of an unknown holder for an unfinished dialogue, if Redis has lost its lease.

        Args:
            stream: The key of its events.
            last: The last event, after which the dialogue was unfinished. If there are later ones, nothing
                happens.
        """
        keys = (lease_key(channel), LEASES, stream)
        await self._redis.run_script(_REOPEN, keys, channel, self.milliseconds, last)

    async def lapsed(self) -> list[str]:
        """Return channels whose leases have lapsed."""
        reply = await self._redis.run_script(_LAPSED, [LEASES], LAPSED_BATCH_MAX)
        found, foreign = list[str](), list[bytes]()
        for channel in expect_list(bytes, reply):
            try:
                found.append(channel.decode())
            except UnicodeDecodeError:
                foreign.append(channel)
        if foreign:  # They would take the places of lapsed leases in every batch.
            self._log.warning("chat_entry_unreadable")
            await self._redis.run("ZREM", LEASES, *foreign)
        return found

    async def abandon(self, channel: str) -> None:
        """Delete a lapsed lease whose dialogue cannot be ended, because its keys hold foreign values."""
        await self._redis.run_script(_ABANDON, (lease_key(channel), LEASES), channel)


def lease_key(channel: str) -> str:
    """Return the key of a channel's lease."""
    return f"{NAMESPACE}:{{{channel}}}:lease"


def ended_key(channel: str, holder: str) -> str:
    """Return the key that exists for a while after a dialogue has ended."""
    return f"{NAMESPACE}:{{{channel}}}:ended:{holder}"

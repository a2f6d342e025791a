"""What must be one step in Redis, in Lua: look, take the lease, store behind the fence, let go.

A record is `NUMBER SEALED`; the number is the fence. Numbers come from a counter, and an epoch beside it
tells whether the counter is still the same one: an emptied or replaced Redis begins a new epoch, and what an
old holder still wants to store there is refused.
"""

from typing import Final

LOOK: Final = """
return {redis.call('get', KEYS[1]), redis.call('pttl', KEYS[1]),
        redis.call('get', KEYS[2]), redis.call('pttl', KEYS[2])}
"""
"""KEYS: record, failure. Gives both with the milliseconds that each has left."""

TAKE: Final = """
if not redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return {0, '', redis.call('pttl', KEYS[1])}
end
redis.call('set', KEYS[3], ARGV[3], 'NX')
local number = redis.call('incr', KEYS[2])
redis.call('pexpire', KEYS[2], ARGV[4])
redis.call('pexpire', KEYS[3], ARGV[4])
return {number, redis.call('get', KEYS[3]), 0}
"""
"""KEYS: lease, counter, epoch. ARGV: owner, lease ms, a new epoch, ms that an unused counter stays.

Gives number and epoch; the number is 0 where somebody else holds the lease.
"""

KEEP: Final = """
if redis.call('get', KEYS[1]) == ARGV[1] then
    return {redis.call('pexpire', KEYS[1], ARGV[2])}
end
return {0}
"""
"""KEYS: lease. ARGV: owner, ms."""

STORE: Final = """
if redis.call('get', KEYS[2]) ~= ARGV[2] then return {0} end
local stored = redis.call('get', KEYS[1])
if stored and tonumber(string.match(stored, '^(%d+) ')) >= tonumber(ARGV[1]) then return {0} end
redis.call('set', KEYS[1], ARGV[1] .. ' ' .. ARGV[3], 'PX', ARGV[4])
redis.call('del', KEYS[3])
return {1}
"""
"""KEYS: record, epoch, failure. ARGV: number, epoch, sealed, ms. Gives 0 where a later number was there."""

FAIL: Final = """
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
"""
"""KEYS: failure. ARGV: kind, ms until the next attempt."""

LET_GO: Final = """
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end
return {}
"""
"""KEYS: lease. ARGV: owner."""

"""What must be one step in Redis, in Lua: take a token or the right to fetch one, and end a fetch.

A record is `EPOCH.NUMBER SEALED`. The number is the fence: it comes from a counter, and whoever holds a lower
one overwrites nothing. The epoch says whether the counter is still the same: an emptied or replaced Redis
begins another one.

KEYS are always those of `PARTS`, in this order. Every script that ends a fetch also ends its lease: a call of
its own for that could time out.
"""

from typing import Final

PARTS: Final = ("record", "lease", "counter", "epoch", "failure", "witness", "failures", "late")
"""record   the newest token, until its end
lease    who fetches now
counter  the number of the newest lease
epoch    of the counter
failure  why nobody may fetch for a while
witness  which member saw the issuer fail; `*` once a second one did
failures how often the issuer failed in a row
late     a fetch has begun and not ended, or not yet
"""

_RELEASE: Final = """
if redis.call('get', KEYS[2]) == ARGV[1] then redis.call('del', KEYS[2], KEYS[8]) end
"""

ACQUIRE: Final = """
local record = redis.call('get', KEYS[1])
if record and string.match(record, '^%S+') ~= ARGV[2] then
    return {'record', record, redis.call('pttl', KEYS[1])}
end
local failure = redis.call('get', KEYS[5])
if failure then return {'failure', failure, redis.call('pttl', KEYS[5])} end
local hold = ARGV[3]
if ARGV[4] ~= '' and redis.call('exists', KEYS[8]) == 1 then hold = ARGV[4] end
if not redis.call('set', KEYS[2], ARGV[1], 'NX', 'PX', hold) then
    return {'held', '', redis.call('pttl', KEYS[2])}
end
redis.call('set', KEYS[8], '1', 'PX', ARGV[7])
redis.call('set', KEYS[4], ARGV[5], 'NX')
local number = redis.call('incr', KEYS[3])
redis.call('pexpire', KEYS[3], ARGV[6])
redis.call('pexpire', KEYS[4], ARGV[6])
local failures = tonumber(redis.call('get', KEYS[7]) or '0')
return {'lease', redis.call('get', KEYS[4]), number, tonumber(hold), failures}
"""
"""ARGV: owner, tag of the record that is known, ms of the lease, ms of one that follows a late fetch (empty:
the same), a new epoch, ms that unused counters stay, ms that a fetch may be late.

Returns one of: `record`, the record, ms left; `failure`, why, ms left; `held`, nothing, ms left;
`lease`, epoch, number, ms, failures so far.
"""

LOOK: Final = """
local record = redis.call('get', KEYS[1])
if record and string.match(record, '^%S+') ~= ARGV[2] then return {record, redis.call('pttl', KEYS[1])} end
return {}
"""
"""ARGV: owner, tag of the record that is known. Returns another record and ms left, or nothing."""

KEEP: Final = """
if redis.call('get', KEYS[2]) == ARGV[1] then return redis.call('pexpire', KEYS[2], ARGV[2]) end
return 0
"""
"""ARGV: owner, ms. Returns whether the lease is still the owner's."""

STORE: Final = (
    _RELEASE
    + """
local epoch, number = redis.call('get', KEYS[4]), tonumber(ARGV[2])
local stored = redis.call('get', KEYS[1])
local known = stored and tonumber(string.match(stored, '^%S-%.(%d+) ') or '0')
if stored and (epoch ~= ARGV[3] or known >= number) then
    return {stored, redis.call('pttl', KEYS[1])}
end
if epoch ~= ARGV[3] then
    epoch = epoch or ARGV[3]
    redis.call('set', KEYS[4], epoch, 'PX', ARGV[6])
    number = redis.call('incr', KEYS[3])
    redis.call('pexpire', KEYS[3], ARGV[6])
end
local tag = epoch .. '.' .. string.format('%d', number)
redis.call('set', KEYS[1], tag .. ' ' .. ARGV[4], 'PX', ARGV[5])
redis.call('del', KEYS[5], KEYS[6], KEYS[7], KEYS[8])
return {tag}
"""
)
"""ARGV: owner, number, epoch, sealed, ms, ms that unused counters stay.

Returns the record's tag; or the record that was there, if it is a later one, and ms left. A Redis that was
emptied in the meantime, and has no record yet, takes the token under its own epoch.
"""

FAIL: Final = (
    _RELEASE
    + """
local first = redis.call('get', KEYS[6])
local confirmed = first and (first == '*' or first ~= ARGV[2])
redis.call('set', KEYS[6], confirmed and '*' or ARGV[2], 'PX', ARGV[6])
redis.call('incr', KEYS[7])
redis.call('pexpire', KEYS[7], ARGV[6])
local ms = confirmed and ARGV[4] or ARGV[5]
if tonumber(ms) > 0 then
    redis.call('set', KEYS[5], (confirmed and '1' or '0') .. ' ' .. ARGV[3], 'PX', ms)
end
return confirmed and 1 or 0
"""
)
"""ARGV: owner, member, kind of the failure, ms of pause once a second member has seen the issuer fail, ms
before that, ms that a witness is remembered. Returns whether a second member has."""

RELEASE: Final = _RELEASE + "return 1\n"
"""ARGV: owner."""

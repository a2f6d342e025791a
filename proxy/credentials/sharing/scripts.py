"""The Lua scripts of a fleet, each atomic: get a token or the lease to fetch one, and end a fetch.

A record is `EPOCH.NUMBER SEALED`. The number is a fencing token from a counter: a process with a lower
number cannot overwrite the record. The epoch identifies the counter: an emptied or replaced Redis starts a
new one.

KEYS are always those of `PARTS`, in this order. Every script that ends a fetch also releases its lease,
because a separate call could time out.
"""

from typing import Final

PARTS: Final = ("record", "lease", "counter", "epoch", "failure", "witness", "failures", "late")
"""record   the newest token, until it expires
lease    the owner of the lease
counter  the number of the newest lease
epoch    the epoch of the counter
failure  why no process may fetch for a while
witness  the host that saw the issuer fail; `*` if a second one did, too
failures the number of consecutive failures of the issuer
late     set while a fetch has started but not ended
"""

_RELEASE: Final = """
if redis.call('get', KEYS[2]) == ARGV[1] then redis.call('del', KEYS[2], KEYS[8]) end
"""

ACQUIRE: Final = """
local function limit(part, ms)
    local left = redis.call('pttl', KEYS[part])
    if left == -1 or left > tonumber(ms) then redis.call('del', KEYS[part]) end
end
limit(2, ARGV[9])
limit(5, ARGV[10])
for _, part in ipairs({6, 7, 8}) do limit(part, ARGV[6]) end
local record = redis.call('get', KEYS[1])
if record and string.match(record, '^[^ ]*') ~= ARGV[2] then
    return {'record', record, redis.call('pttl', KEYS[1])}
end
local failure = redis.call('get', KEYS[5])
if failure and string.sub(failure, 1, 2) ~= '1 ' then
    limit(5, ARGV[11])
    failure = redis.call('get', KEYS[5])
end
if failure and (ARGV[8] == '1' or failure ~= '1 refused') then
    return {'failure', failure, redis.call('pttl', KEYS[5])}
end
local hold = ARGV[3]
if ARGV[4] ~= '' and redis.call('exists', KEYS[8]) == 1 then hold = ARGV[4] end
if not redis.call('set', KEYS[2], ARGV[1], 'NX', 'PX', hold) then
    return {'held', '', redis.call('pttl', KEYS[2])}
end
redis.call('set', KEYS[8], '1', 'PX', ARGV[7])
local number = redis.call('incr', KEYS[3])
if number == 1 then redis.call('set', KEYS[4], ARGV[5]) else redis.call('set', KEYS[4], ARGV[5], 'NX') end
redis.call('pexpire', KEYS[3], ARGV[6])
redis.call('pexpire', KEYS[4], ARGV[6])
local failures = tonumber(redis.call('get', KEYS[7]) or '') or 0
return {'lease', redis.call('get', KEYS[4]), number, tonumber(hold), failures}
"""
"""ARGV: owner, tag of the known record, ms of the lease, ms of a lease after a late fetch (empty: the
same), a new epoch, ms to keep unused counters, ms that a fetch may be late, 1 if the process has failed
itself, and the longest ms of a lease, of a failure that applies to all, and of any other failure.

Returns one of: `record`, the record, ms left; `failure`, the reason, ms left; `held`, nothing, ms left;
`lease`, epoch, number, ms, failures so far.

A process that has not failed itself does not believe that the issuer rejects the request: it asks once.
Two hosts may share a firewall, and the first healthy process then serves them all.

Every part has an expiry. A lease or a failure without one, or with a longer one than this program sets,
comes from a restored copy or another program. It would block the fleet, and is deleted. A counter that begins
again, because Redis evicted it, begins a new epoch.
"""

LOOK: Final = """
local record = redis.call('get', KEYS[1])
if record and string.match(record, '^[^ ]*') ~= ARGV[2] then return {record, redis.call('pttl', KEYS[1])} end
return {}
"""
"""ARGV: owner, tag of the known record. Returns another record and ms left, or nothing."""

KEEP: Final = """
if redis.call('get', KEYS[2]) == ARGV[1] then return redis.call('pexpire', KEYS[2], ARGV[2]) end
return 0
"""
"""ARGV: owner, ms. Returns whether the owner still has the lease."""

STORE: Final = (
    _RELEASE
    + """
local epoch, number = redis.call('get', KEYS[4]), tonumber(ARGV[2])
local stored = redis.call('get', KEYS[1])
local of, known = string.match(stored or '', '^(%S-)%.(%d+) ')
if stored and (epoch ~= ARGV[3] or of == epoch and tonumber(known) >= number) then
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
"""ARGV: owner, number, epoch, sealed token, ms, ms to keep unused counters.

Returns the tag of the record; or the existing record and ms left, if that is a later one. A record of an
earlier epoch is not. If Redis was emptied in the meantime and has no record yet, it stores the token under
its new epoch.
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
"""ARGV: owner, witness, kind of the failure, ms of the pause if a second witness has seen the issuer fail,
ms of the pause otherwise, ms to remember the witness. Returns whether a second witness has seen it fail."""

RELEASE: Final = _RELEASE + "return 1\n"
"""ARGV: owner."""

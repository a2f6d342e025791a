"""The owners of channels and the dialogues in them, shared by several processes over Redis.

Keys: `...:{channel}:owner` contains the hash of a session's id, `...:{channel}:dialogue` the lease: the
random id of its holder, followed by ` stop` once a stop was requested. A stop is also published to all
processes, because the lease is read only when it is renewed; if that message is lost, the stop waits until
then.
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from proxy.chat.channels import (
    LEASE_SECONDS,
    OWNED_SECONDS,
    RENEW_SECONDS,
    Ownership,
    StopReason,
    is_channel_name,
)
from proxy.chat.live_feed import LiveFeed
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable
from proxy.telemetry import get_logger

STOPS: Final = f"{NAMESPACE}:chat:stops"
"""The pub/sub channel that announces lease holders that must stop. Visitors cannot use it."""

OWNERSHIP: Final = """
local owner = redis.call('get', KEYS[1])
if owner and owner ~= ARGV[1] then return 'taken' end
if owner or ARGV[3] == 'claim' then
    redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 'own'
end
return 'free'
"""
"""KEYS: owner. ARGV: session, ms, `claim` or `look`. One script, so that two sessions cannot both succeed."""

KEEP: Final = """
local value = redis.call('get', KEYS[1])
if not value then
    redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
end
if value ~= ARGV[1] and value ~= ARGV[1] .. ' stop' then return 0 end
redis.call('pexpire', KEYS[1], ARGV[2])
return value == ARGV[1] and 1 or 2
"""
"""KEYS: lease. ARGV: holder, ms. 0: another holder's, 1: renewed, 2: renewed, and a stop was requested.

A missing lease is taken again, because an emptied Redis must not end running answers.
"""

RELEASE: Final = """
local value = redis.call('get', KEYS[1])
if value == ARGV[1] or value == ARGV[1] .. ' stop' then redis.call('del', KEYS[1]) end
return 1
"""
"""KEYS: lease. ARGV: holder. Not a plain DEL: the lease may have expired and belong to another dialogue."""

REQUEST_STOP: Final = """
local value = redis.call('get', KEYS[1])
if not value then return 0 end
local holder = string.match(value, '^%S+')
redis.call('set', KEYS[1], holder .. ' stop', 'KEEPTTL')
redis.call('publish', ARGV[1], holder)
return 1
"""
"""KEYS: lease. ARGV: pub/sub channel of stops."""

_RENEWED: Final = 1
_STOPPING: Final = 2


@dataclass(slots=True)
class _Dialogue:
    """A dialogue that is running in this process."""

    holder: str = field(default_factory=lambda: secrets.token_hex(16))
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class RedisChannels:
    """Owners and dialogues of all processes with the same Redis.

    Args:
        redis: The connection for commands.
        feed: The connection that listens.
        owned: Seconds after its last use until a channel has no owner again.
        lease: Seconds after which a dialogue that does not renew its lease counts as dead.
        renew: Seconds between renewals.
    """

    def __init__(
        self,
        redis: RedisConnection,
        feed: LiveFeed,
        *,
        owned: float = OWNED_SECONDS,
        lease: float = LEASE_SECONDS,
        renew: float = RENEW_SECONDS,
    ) -> None:
        self._redis = redis
        self._owned_ms = int(owned * 1000)
        self._lease_ms = int(lease * 1000)
        self._renew = renew
        self._running: dict[str, _Dialogue] = {}
        self._log = get_logger("chat")
        feed.listen(STOPS, self)

    async def ownership(self, channel: str, session: str) -> Ownership:
        """Return who owns a channel. If it is this session, its ownership is extended.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._ownership(channel, session, "look")

    async def claim(self, channel: str, session: str) -> bool:
        """Make a session the owner of a channel, unless another session owns it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._ownership(channel, session, "claim") == "own"

    async def _ownership(self, channel: str, session: str, purpose: Literal["look", "claim"]) -> Ownership:
        if not is_channel_name(channel):
            return "taken"
        hashed = hashlib.sha256(session.encode()).hexdigest()
        answer: bytes = await self._redis.run_script(
            OWNERSHIP, [_key(channel, "owner")], hashed, self._owned_ms, purpose
        )
        return cast(Ownership, answer.decode())

    async def owned(self, channel: str) -> bool:
        """Return whether a channel has an owner.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(await self._redis.run("EXISTS", _key(channel, "owner")))

    async def begin(self, channel: str) -> bool:
        """Take the lease for a dialogue of this process; False while another dialogue has it.

        Raises:
            StoreUnavailable: Redis did not answer. If it granted the lease nevertheless, the lease expires.
        """
        if channel in self._running:
            return False
        dialogue = self._running[channel] = _Dialogue()
        taken = False
        try:
            taken = bool(
                await self._redis.run("SET", _lease(channel), dialogue.holder, "NX", "PX", self._lease_ms)
            )
        finally:
            if not taken:
                del self._running[channel]
        return taken

    async def renew(self, channel: str) -> bool:
        """Renew the lease; return False if it was lost.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        dialogue = self._running.get(channel)
        if dialogue is None:
            return False
        state = await self._redis.run_script(KEEP, [_lease(channel)], dialogue.holder, self._lease_ms)
        if state == _STOPPING:
            dialogue.stop.set()
        return state in {_RENEWED, _STOPPING}

    async def end(self, channel: str) -> None:
        """Release the lease, if this process has it. If Redis is unavailable, the lease expires."""
        dialogue = self._running.pop(channel, None)
        if dialogue is not None:
            try:
                await self._redis.run_script(RELEASE, [_lease(channel)], dialogue.holder)
            except StoreUnavailable as error:
                self._log.warning("chat_lease_release_failed", reason=str(error))

    async def busy(self, channel: str) -> bool:
        """Return whether a dialogue is running in a channel, in any process.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return channel in self._running or bool(await self._redis.run("EXISTS", _lease(channel)))

    async def request_stop(self, channel: str) -> None:
        """Ask the dialogue that is running in a channel, if any, to stop, in any process.

        Raises:
            StoreUnavailable: It is running in another process, and Redis did not answer.
        """
        if channel in self._running:
            self._running[channel].stop.set()
        else:
            await self._redis.run_script(REQUEST_STOP, [_lease(channel)], STOPS)

    async def wait_for_stop(self, channel: str) -> StopReason:
        """Wait until this process's dialogue in a channel must stop, and renew its lease meanwhile."""
        dialogue = self._running.get(channel)
        if dialogue is None:
            return "lost"
        while not dialogue.stop.is_set():
            try:
                async with asyncio.timeout(self._renew):
                    await dialogue.stop.wait()
            except TimeoutError:
                if not await self._still_held(channel):
                    return "lost"
        return "asked"

    def on_subscribed(self) -> None:
        """Do nothing: a stop that was missed is found at the next renewal."""

    def on_message(self, payload: bytes) -> None:
        """Stop the dialogue whose lease holder was announced."""
        for dialogue in self._running.values():
            if dialogue.holder.encode() == payload:
                dialogue.stop.set()

    async def _still_held(self, channel: str) -> bool:
        try:
            return await self.renew(channel)
        except StoreUnavailable as error:  # no other process can take it either
            self._log.warning("chat_lease_not_renewed", reason=str(error))
            return True


def _key(channel: str, part: str) -> str:
    return f"{NAMESPACE}:{{{channel}}}:{part}"


def _lease(channel: str) -> str:
    return _key(channel, "dialogue")

"""The owners of channels and the dialogues in them, shared by several processes over Redis.

The key `...:{channel}:owner` contains the hash of a session's id. The leases of dialogues are in
`redis_leases.py`. A stop is noted in the lease and published to all processes, because the lease is read only
when it is renewed; if that message is lost, the stop waits until then.
"""

import asyncio
import hashlib
import secrets
from typing import Final, Literal, cast

import msgspec

from proxy.chat.channels import OWNED_SECONDS, RENEW_SECONDS, Ownership, StopReason, is_channel_name
from proxy.chat.live_feed import LiveFeed
from proxy.chat.redis_leases import LOST, STOPPING, RedisLeases
from proxy.redis_connection import NAMESPACE, RedisConnection, StoreUnavailable, expect
from proxy.telemetry import get_logger

STOPS: Final = f"{NAMESPACE}:chat:stops"
"""The pub/sub channel that announces lease holders that must stop. Visitors cannot use it."""
_RETRY_SECONDS: Final = 0.3
"""Time until a failed renewal is repeated: once Redis is back, the lease has to be renewed soon."""

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


class _Dialogue(msgspec.Struct):
    """A dialogue that is running in this process."""

    holder: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))
    stop: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class RedisChannels:
    """Owners and dialogues of all processes with the same Redis.

    Args:
        feed: The connection that listens.
        owned: Seconds for which an unused channel keeps its owner.
        renew: Seconds between renewals of a lease.
    """

    def __init__(
        self,
        redis: RedisConnection,
        feed: LiveFeed,
        leases: RedisLeases,
        *,
        owned: float = OWNED_SECONDS,
        renew: float = RENEW_SECONDS,
    ) -> None:
        self._redis = redis
        self._leases = leases
        self._owned_ms = int(owned * 1000)
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

    async def claim(
        self,
        channel: str,
        session: str,
        address: str = "",  # noqa: ARG002  Redis has its own rule for what makes room
    ) -> bool:
        """Make a session the owner of a channel, unless another session owns it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._ownership(channel, session, "claim") == "own"

    async def _ownership(self, channel: str, session: str, purpose: Literal["look", "claim"]) -> Ownership:
        if not is_channel_name(channel):
            return "taken"
        hashed = hashlib.sha256(session.encode()).hexdigest()
        reply = await self._redis.run_script(
            OWNERSHIP, [_key(channel, "owner")], hashed, self._owned_ms, purpose
        )
        return cast(Ownership, expect(bytes, reply).decode())

    async def owned(self, channel: str) -> bool:
        """Return whether a channel has an owner.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return bool(await self._redis.run("EXISTS", _key(channel, "owner")))

    async def begin(self, channel: str) -> str | None:
        """Take the lease for a dialogue of this process and return its holder; None if there is a dialogue.

        Raises:
            StoreUnavailable: Redis did not answer. If it granted the lease nevertheless, the lease lapses.
        """
        if channel in self._running:
            return None
        dialogue = self._running[channel] = _Dialogue()
        taken = False
        try:
            taken = await self._leases.take(channel, dialogue.holder)
        finally:
            if not taken:
                del self._running[channel]
        return dialogue.holder if taken else None

    async def renew(self, channel: str) -> bool:
        """Renew the lease; return False if it was lost.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        dialogue = self._running.get(channel)
        if dialogue is None:
            return False
        state = await self._leases.renew(channel, dialogue.holder)
        if state == STOPPING:
            dialogue.stop.set()
        return state != LOST

    async def end(self, channel: str) -> None:
        """Release the lease, if this process has it. If Redis is unavailable, the lease lapses."""
        dialogue = self._running.pop(channel, None)
        if dialogue is not None:
            try:
                await self._leases.release(channel, dialogue.holder)
            except StoreUnavailable as error:
                self._log.warning("chat_lease_release_failed", reason=str(error))

    async def busy(self, channel: str) -> bool:
        """Return whether a dialogue is running in a channel, in any process.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return channel in self._running or await self._leases.held(channel)

    async def request_stop(self, channel: str) -> None:
        """Ask the dialogue that is running in a channel, if any, to stop, in any process.

        Raises:
            StoreUnavailable: It is running in another process, and Redis did not answer.
        """
        if channel in self._running:
            self._running[channel].stop.set()
        else:
            await self._leases.request_stop(channel, STOPS)

    async def wait_for_stop(self, channel: str) -> StopReason:
        """Wait until this process's dialogue in a channel must stop, and renew its lease meanwhile."""
        dialogue = self._running.get(channel)
        if dialogue is None:
            return "lost"
        pause = self._renew
        while not dialogue.stop.is_set():
            try:
                async with asyncio.timeout(pause):
                    await dialogue.stop.wait()
            except TimeoutError:
                try:
                    if not await self.renew(channel):
                        return "lost"
                    pause = self._renew
                except StoreUnavailable as error:  # no other process can take the lease either
                    self._log.warning("chat_lease_not_renewed", reason=str(error))
                    pause = min(self._renew, _RETRY_SECONDS)
        return "requested"

    def on_subscribed(self) -> None:
        """Do nothing: a stop that was missed is found at the next renewal."""

    def on_message(self, payload: bytes) -> None:
        """Stop the dialogue whose lease holder was announced."""
        for dialogue in self._running.values():
            if dialogue.holder.encode() == payload:
                dialogue.stop.set()


def _key(channel: str, part: str) -> str:
    return f"{NAMESPACE}:{{{channel}}}:{part}"

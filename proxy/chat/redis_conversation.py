"""The last turns of every channel in Redis, for all processes, sealed: it is what people wrote.

Key `...:{channel}:turns`, a list of sealed turns, the oldest first. A seal is bound to its channel.
"""

import json
from typing import Final

from proxy.chat.conversation import TURNS_SECONDS, Turn
from proxy.credentials.sharing.record import Seal, SealBroken
from proxy.redis_connection import NAMESPACE, RedisConnection
from proxy.telemetry import get_logger

APPEND: Final = """
redis.call('rpush', KEYS[1], ARGV[1])
redis.call('ltrim', KEYS[1], -ARGV[2], -1)
redis.call('pexpire', KEYS[1], ARGV[3])
return 1
"""
"""KEYS: turns. ARGV: sealed turn, how many are kept, ms they stay. In one step, so that no list stays."""


class RedisConversation:
    """The turns of all processes with the same Redis and keys.

    Args:
        redis: The way to Redis.
        seal: Seals what lies there.
        kept: Turns of a channel; 0 for none.
        expire: Seconds after the last turn until a conversation is forgotten.
    """

    def __init__(
        self, redis: RedisConnection, seal: Seal, kept: int, *, expire: float = TURNS_SECONDS
    ) -> None:
        self._redis = redis
        self._seal = seal
        self._kept = kept
        self._expire_ms = int(expire * 1000)
        self._log = get_logger("chat")

    async def turns(self, channel: str) -> list[Turn]:
        """The turns that are kept, the oldest first; what no key opens is left out.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        key = _key(channel)
        turns = []
        for sealed in await self._redis.run("LRANGE", key, 0, -1):
            try:
                prompt, answer = json.loads(self._seal.open(sealed, key))
            except (SealBroken, ValueError):
                self._log.warning("chat_turn_unreadable", meaning="sealed with a key that is not known here")
            else:
                turns.append(Turn(prompt, answer))
        return turns

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn; the oldest goes when there are too many.

        Raises:
            StoreUnavailable: Redis could not be asked; whether the turn was added is not known.
        """
        if self._kept:
            key = _key(channel)
            sealed = self._seal.close(json.dumps([turn.prompt, turn.answer]).encode(), key)
            await self._redis.run_script(APPEND, [key], sealed, self._kept, self._expire_ms)

    async def drop_last(self, channel: str) -> None:
        """Forget the last turn.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._redis.run("RPOP", _key(channel))

    async def clear(self, channel: str) -> None:
        """Forget all turns.

        Raises:
            StoreUnavailable: Redis could not be asked.
        """
        await self._redis.run("DEL", _key(channel))


def _key(channel: str) -> str:
    return f"{NAMESPACE}:{{{channel}}}:turns"

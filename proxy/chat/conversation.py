"""The last turns of each channel, which the model receives with the next question.

In Redis they are a list of encrypted turns under the key `...:{channel}:turns`, the oldest first, because
they are private. A turn is sealed for its channel and cannot be moved to another one.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from proxy.chat.shares import Shares, nobody
from proxy.credentials.sharing.record import Seal, SealBroken
from proxy.redis_connection import NAMESPACE, RedisConnection, expect_list
from proxy.telemetry import get_logger

TURNS_SECONDS: Final = 3600.0
"""Time after its last turn until a conversation is deleted."""
CONVERSATIONS_MAX: Final = 10_000
"""Maximum number of conversations in memory. The visitor whose conversations are longest makes room with the
one that has the oldest last turn."""
TOTAL_CHARS: Final = 64_000_000
"""Maximum length of all conversations in memory; see `CONVERSATIONS_MAX`."""

UNREADABLE: Final = "encrypted with an unknown key, or written by another program"
"""Why an entry cannot be read, for the log."""

APPEND: Final = """
if ARGV[4] == '1' then redis.call('rpop', KEYS[1]) end
redis.call('rpush', KEYS[1], ARGV[1])
redis.call('ltrim', KEYS[1], -ARGV[2], -1)
redis.call('pexpire', KEYS[1], ARGV[3])
return 1
"""
"""KEYS: turns. ARGV: sealed turn, turns to keep, expiry in ms, 1 to replace the last turn. Atomic, so that
every list expires."""


class Turn(msgspec.Struct, frozen=True):
    """A question of the visitor and the answer of the model, as plain text."""

    prompt: str
    answer: str


class Conversation(Protocol):
    """The last turns of every channel. With Redis, every method may raise `StoreUnavailable`."""

    async def turns(self, channel: str) -> list[Turn]:
        """Return the stored turns, the oldest first."""
        ...

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn, and delete the oldest ones if there are too many."""
        ...

    async def replace_last(self, channel: str, turn: Turn) -> None:
        """Replace the last turn, because its question has been answered."""
        ...

    async def clear(self, channel: str) -> None:
        """Delete all turns."""
        ...


class MemoryConversation:
    """Conversations in the memory of this process.

    Args:
        kept: Turns of a channel to keep; 0 for none.
        expire: Seconds after its last turn until a conversation is deleted.
        limit: Conversations to keep.
        total: Characters of all conversations to keep.
        visitor_of: Returns the visitor to whom a channel counts.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        kept: int,
        *,
        expire: float = TURNS_SECONDS,
        limit: int = CONVERSATIONS_MAX,
        total: int = TOTAL_CHARS,
        visitor_of: Callable[[str], str] = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._expire = expire
        self._limit = limit
        self._total = total
        self._chars = 0
        self._visitor_of = visitor_of
        self._shares = Shares()
        self._conversation_share = total // limit
        self._clock = clock
        self._turns: OrderedDict[str, tuple[tuple[Turn, ...], float]] = OrderedDict()

    async def turns(self, channel: str) -> list[Turn]:
        """Return the stored turns, the oldest first."""
        self._expire_old()
        return list(self._turns.get(channel, ((), 0.0))[0])

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn."""
        self._store(channel, (*await self.turns(channel), turn))

    async def replace_last(self, channel: str, turn: Turn) -> None:
        """Replace the last turn."""
        self._store(channel, (*(await self.turns(channel))[:-1], turn))

    async def clear(self, channel: str) -> None:
        """Delete all turns."""
        self._drop(channel)

    def _store(self, channel: str, turns: Sequence[Turn]) -> None:
        if not self._kept:
            return
        self._drop(channel)
        kept = tuple(turns[-self._kept :])
        self._turns[channel] = (kept, self._clock() + self._expire)
        self._chars += _count_chars(kept)
        self._shares.add(channel, self._weight(kept), self._visitor_of(channel))
        while len(self._turns) > self._limit or self._chars > self._total:
            oldest = self._shares.choose(self._turns, channel)
            if oldest is None:
                return
            self._drop(oldest)

    def _drop(self, channel: str) -> None:
        found = self._turns.pop(channel, None)
        if found is not None:
            self._chars -= _count_chars(found[0])
            self._shares.remove(channel, self._weight(found[0]))

    def _weight(self, turns: Sequence[Turn]) -> int:
        return _count_chars(turns) + self._conversation_share

    def _expire_old(self) -> None:
        now = self._clock()
        while self._turns and next(iter(self._turns.values()))[1] <= now:
            self._drop(next(iter(self._turns)))


def _count_chars(turns: Sequence[Turn]) -> int:
    return sum(len(turn.prompt) + len(turn.answer) for turn in turns)


class RedisConversation:
    """Conversations in Redis, shared by all processes with the same keys.

    Args:
        seal: Encrypts the turns.
        kept: Turns of a channel to keep; 0 for none.
        expire: Seconds after its last turn until a conversation is deleted.
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
        """Return the stored turns, the oldest first, without those that no key decrypts.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        key = _key(channel)
        turns = []
        for sealed in expect_list(bytes, await self._redis.run("LRANGE", key, -max(self._kept, 1), -1)):
            try:
                turn = _read_turn(self._seal.open(sealed, key))
            except (SealBroken, ValueError, RecursionError):
                self._log.warning("chat_turn_unreadable", meaning=UNREADABLE)
            else:
                turns.append(turn)
        return turns

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn, and delete the oldest ones if there are too many.

        Raises:
            StoreUnavailable: Redis did not answer; the turn may or may not have been added.
        """
        await self._append(channel, turn, replaces=False)

    async def replace_last(self, channel: str, turn: Turn) -> None:
        """Replace the last turn.

        Raises:
            StoreUnavailable: Redis did not answer; the turn may or may not have been replaced.
        """
        await self._append(channel, turn, replaces=True)

    async def _append(self, channel: str, turn: Turn, *, replaces: bool) -> None:
        if self._kept:
            key = _key(channel)
            sealed = self._seal.close(json.dumps([turn.prompt, turn.answer]).encode(), key)
            await self._redis.run_script(APPEND, [key], sealed, self._kept, self._expire_ms, int(replaces))

    async def clear(self, channel: str) -> None:
        """Delete all turns.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        await self._redis.run("DEL", _key(channel))


def _read_turn(plain: bytes) -> Turn:
    match json.loads(plain):
        case [str(prompt), str(answer)]:
            return Turn(prompt, answer)
    raise ValueError("no turn")


def _key(channel: str) -> str:
    return f"{NAMESPACE}:{{{channel}}}:turns"

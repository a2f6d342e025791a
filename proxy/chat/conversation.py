"""What was said in a channel: the last turns, which go to the model with the next question."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

TURNS_SECONDS: Final = 3600.0
"""After its last turn a conversation is forgotten."""
MOST_CONVERSATIONS: Final = 10_000
"""In memory at once; then the one that was silent longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, in the words of the visitor and of the model."""

    prompt: str
    answer: str


class Conversation(Protocol):
    """The last turns of every channel. With Redis each method raises `StoreUnavailable` when it cannot
    be asked.
    """

    async def turns(self, channel: str) -> list[Turn]:
        """The turns that are kept, the oldest first."""
        ...

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn; the oldest goes when there are too many."""
        ...

    async def drop_last(self, channel: str) -> None:
        """Forget the last turn, because it is to be answered anew."""
        ...

    async def clear(self, channel: str) -> None:
        """Forget all turns."""
        ...


class MemoryConversation:
    """The turns in this process.

    Args:
        kept: Turns of a channel; 0 for none.
        expire: Seconds after the last turn until a conversation is forgotten.
        most: Conversations.
        clock: Seconds.
    """

    def __init__(
        self,
        kept: int,
        *,
        expire: float = TURNS_SECONDS,
        most: int = MOST_CONVERSATIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._expire = expire
        self._most = most
        self._clock = clock
        self._turns: OrderedDict[str, tuple[tuple[Turn, ...], float]] = OrderedDict()

    async def turns(self, channel: str) -> list[Turn]:
        """The turns that are kept, the oldest first."""
        self._expire_old()
        return list(self._turns.get(channel, ((), 0.0))[0])

    async def append(self, channel: str, turn: Turn) -> None:
        """Add a turn."""
        if self._kept:
            turns = (*await self.turns(channel), turn)[-self._kept :]
            self._turns[channel] = (turns, self._clock() + self._expire)
            self._turns.move_to_end(channel)
            if len(self._turns) > self._most:
                self._turns.popitem(last=False)

    async def drop_last(self, channel: str) -> None:
        """Forget the last turn."""
        if channel in self._turns:
            turns, until = self._turns[channel]
            self._turns[channel] = (turns[:-1], until)

    async def clear(self, channel: str) -> None:
        """Forget all turns."""
        self._turns.pop(channel, None)

    def _expire_old(self) -> None:
        now = self._clock()
        while self._turns and next(iter(self._turns.values()))[1] <= now:
            self._turns.popitem(last=False)

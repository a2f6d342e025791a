"""The text and the states of one dialogue as events of its channel."""

import asyncio
import time
from typing import Final

from proxy.chat.broker import Mark
from proxy.chat.deltas import Delta
from proxy.chat.event import Event
from proxy.chat.notices import Notice
from proxy.chat.outbox import Outbox
from proxy.chat.paragraphs import ParagraphSplitter
from proxy.chat.render import BlockKind, render_block
from proxy.chat.states import MESSAGE, STATE, DialogueState

THREAD_CHARS: Final = 200
"""Longer pieces are rendered in a thread: code and formulas take 7 µs per character, the thread 100 µs."""
SLICE_CHARS: Final = 512
"""How much text is split at a time: 25 ms at worst, for lines of two characters, and much less for prose."""
ANSWER_CHARS_MAX: Final = 32_000
"""How much of an answer is kept for later questions."""

_KINDS: Final[dict[str, tuple[BlockKind, DialogueState]]] = {
    "reasoning": ("describe", "thinking"),
    "answer": ("left", "answering"),
}


async def block_event(kind: BlockKind, text: str, **fields: object) -> Event:
    """Render a block: the visitor's question, or a piece of the model's text.

    Args:
        kind: The kind of block.
        fields: What our page needs in addition.
    """
    if len(text) > THREAD_CHARS:
        block = await asyncio.to_thread(render_block, kind, text)
    else:
        block = render_block(kind, text)
    return Event({"message": block, **fields}, MESSAGE)


def error_event(notice: Notice) -> Event:
    """Return an error block, with the notice's code for our page."""
    return Event({"message": render_block("error", notice.text), **notice.fields}, MESSAGE)


def state_event(state: DialogueState, **fields: object) -> Event:
    """Return a change of state, which the page displays."""
    return Event({"state": state, "at": time.time_ns() // 1_000_000, **fields}, STATE)


class Publisher:
    """Publishes on one channel, in the order of the calls. Every method may raise what `Outbox.put` raises.

    Args:
        outbox: Publishes the events.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._splitter = ParagraphSplitter()
        self._kind: str | None = None
        self._answer: list[str] = []
        self._room = ANSWER_CHARS_MAX
        self._slice = 0

    @property
    def answer(self) -> str:
        """The beginning of the model's answer, without its reasoning."""
        return "".join(self._answer)

    @property
    def has_output(self) -> bool:
        """Whether the model has produced any text, including reasoning."""
        return self._kind is not None

    async def add(self, delta: Delta) -> None:
        """Add text of the model, and publish the pieces that are complete."""
        if delta.kind != self._kind:
            await self.flush()
            self._kind = delta.kind
            await self.publish_state(_KINDS[delta.kind][1])
        if delta.kind == "answer" and self._room:
            kept = delta.text[: self._room]
            self._answer.append(kept)
            self._room -= len(kept)
        for start in range(0, len(delta.text), SLICE_CHARS):
            text = delta.text[start : start + SLICE_CHARS]
            self._slice += len(text)
            if self._slice > SLICE_CHARS:
                self._slice = len(text)
                await asyncio.sleep(0)  # splitting takes time: let other tasks run
            await self._publish_pieces(self._splitter.feed(text))

    async def pause(self) -> None:
        """Publish what looks complete, because no text has arrived for a while."""
        await self._publish_pieces(self._splitter.pause())

    async def flush(self) -> None:
        """Publish the rest of the text."""
        await self._publish_pieces(self._splitter.flush())

    async def publish_block(self, kind: BlockKind, text: str) -> None:
        """Render and publish a block."""
        await self._outbox.put(await block_event(kind, text))

    async def publish_error(self, notice: Notice) -> None:
        """Publish an error block."""
        await self._outbox.put(error_event(notice))

    async def publish_state(
        self, state: DialogueState, *, mark: Mark | None = None, **fields: object
    ) -> None:
        """Publish a change of state."""
        await self._outbox.put(state_event(state, **fields), mark)

    async def _publish_pieces(self, pieces: list[str]) -> None:
        for piece in pieces:
            if self._kind is not None and piece.strip():
                await self.publish_block(_KINDS[self._kind][0], piece)

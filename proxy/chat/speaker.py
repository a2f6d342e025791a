"""The voice of one dialogue on its channel: text becomes blocks, what happens becomes states."""

import asyncio
import time
from typing import Final, Literal

from proxy.chat.broker import Broker
from proxy.chat.deltas import Delta
from proxy.chat.event import Event
from proxy.chat.paragraphs import ParagraphSplitter
from proxy.chat.render import Kind, render_block

MESSAGE: Final = "message_event"
"""What the article's page listens to."""
STATE: Final = "state_event"
ASIDE_CHARS: Final = 200
"""A longer piece is rendered in a thread: code and formulas cost 7 microseconds a character, the hop 100."""
SLICE_CHARS: Final = 1024
"""How much text is split at a time: 3 ms of prose, 30 ms at worst."""

State = Literal["waiting", "thinking", "answering", "done", "stopped", "failed", "regenerating", "reset"]
_SHOWN: Final[dict[str, tuple[Kind, State]]] = {
    "reasoning": ("describe", "thinking"),
    "answer": ("left", "answering"),
}


class Speaker:
    """Publishes what is said on one channel, in the order in which it is said.

    Args:
        broker: Where to.
        channel: The channel.
    """

    def __init__(self, broker: Broker, channel: str) -> None:
        self._broker = broker
        self._channel = channel
        self._cutter = ParagraphSplitter()
        self._kind: str | None = None
        self._answer: list[str] = []

    @property
    def answer(self) -> str:
        """What the model has answered so far, without its thoughts."""
        return "".join(self._answer)

    @property
    def spoke(self) -> bool:
        """Whether the model has said anything, its thoughts included."""
        return self._kind is not None

    async def hear(self, delta: Delta) -> None:
        """Take some more of the model's text; whole paragraphs go out."""
        if delta.kind != self._kind:
            await self.flush()
            self._kind = delta.kind
            await self.tell(_SHOWN[delta.kind][1])
        if delta.kind == "answer":
            self._answer.append(delta.text)
        for at in range(0, len(delta.text), SLICE_CHARS):
            if at:
                await asyncio.sleep(0)  # cutting takes time: others get their turn
            await self._show(self._cutter.feed(delta.text[at : at + SLICE_CHARS]))

    async def pause(self) -> None:
        """Let out what is whole, since nothing more has come for a while."""
        await self._show(self._cutter.pause())

    async def flush(self) -> None:
        """Let out what still waits for the end of its paragraph."""
        await self._show(self._cutter.flush())

    async def say(self, kind: Kind, text: str) -> None:
        """Publish a block: the visitor's words, a piece of the model's, or an error."""
        if len(text) > ASIDE_CHARS:
            block = await asyncio.to_thread(render_block, kind, text)
        else:
            block = render_block(kind, text)
        await self._broker.publish(self._channel, Event({"message": block}, MESSAGE))

    async def tell(self, state: State, **more: object) -> None:
        """Publish what happens, for a page that shows it."""
        data = {"state": state, "at": time.time_ns() // 1_000_000, **more}
        await self._broker.publish(self._channel, Event(data, STATE))

    async def _show(self, pieces: list[str]) -> None:
        for piece in pieces:
            if self._kind is not None and piece.strip():
                await self.say(_SHOWN[self._kind][0], piece)

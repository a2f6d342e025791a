"""One channel with a scripted model, in which questions can be asked."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any, cast

from proxy.chat.channels import MemoryChannels
from proxy.chat.conversation import MemoryConversation
from proxy.chat.conversation_list import MemoryConversationList
from proxy.chat.dialogues import Dialogues
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.notices import Notice
from proxy.chat.stores import Stores
from proxy.chat.upstream import ChatUpstream, Message, ModelAnswer
from proxy.chat.visitor_limits import VisitorBudget
from proxy.drain import Drain
from proxy.errors import ProxyError
from proxy.settings import Chat
from proxy.telemetry import ExchangeRecord
from tests.pace import PATIENCE


def said(text: str) -> bytes:
    return b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode()


class Model:
    """A model that sends these bytes; `None` waits for ever."""

    def __init__(self, *chunks: bytes | None, error: ProxyError | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.asked: list[Sequence[Message]] = []
        self.models: list[str] = []
        self.left = asyncio.Event()

    @contextlib.asynccontextmanager
    async def ask(
        self, messages: Sequence[Message], request_id: str, model: str
    ) -> AsyncIterator[ModelAnswer]:
        self.asked.append(messages)
        self.models.append(model)
        if self.error is not None:
            raise self.error
        body = cast(AsyncGenerator[bytes], self._body(self.chunks))
        yield ModelAnswer(200, streamed=True, body=body, record=ExchangeRecord(request_id, "POST", "/"))

    async def _body(self, chunks: Iterable[bytes | None]) -> AsyncIterator[bytes]:
        try:
            for chunk in chunks:
                if chunk is None:
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(0)
                    yield chunk
        finally:
            self.left.set()


def code(notice: Notice | None) -> str:
    """Return the code of a notice, or "" for none."""
    return "" if notice is None else notice.code


class Room:
    """One channel and its dialogues."""

    def __init__(self, model: Model, broker: MemoryBroker, channels: MemoryChannels, drain: Drain) -> None:
        self.model = model
        self.broker = broker
        self.channels = channels
        stores = Stores(broker, channels, MemoryConversation(3), MemoryConversationList(expire=60))
        upstream = cast(ChatUpstream, model)
        copies = VisitorBudget(1 << 20, 60)
        self.dialogues = Dialogues(Chat(turns=2), stores, upstream, drain, copies=copies, shared=False)

    async def ask(self, prompt: str = "hi") -> str:
        """Ask, and return the code of the notice, or ""."""
        return code(await self.dialogues.ask("c", prompt, "r"))

    async def turn(self) -> list[str]:
        """Return the published blocks and states, up to the end of the turn."""
        shown: list[str] = []
        async with self.broker.subscribe("c", "0-0") as subscription, asyncio.timeout(PATIENCE):
            while not shown or shown[-1] not in {"done", "stopped", "failed"}:
                data = cast(dict[str, Any], (await subscription.get()).data)
                shown.append(data.get("message") or data["state"])
        return shown


@contextlib.asynccontextmanager
async def room(
    model: Model,
    broker: MemoryBroker | None = None,
    channels: MemoryChannels | None = None,
    drain: Drain | None = None,
) -> AsyncIterator[Room]:
    found = Room(model, broker or MemoryBroker(), channels or MemoryChannels(), drain or Drain())
    async with found.dialogues:
        yield found


async def free(chat: Room, channel: str = "c") -> None:
    """Wait until no dialogue runs."""
    async with asyncio.timeout(PATIENCE):
        while await chat.channels.busy(channel):  # noqa: ASYNC110  there is no event for that
            await asyncio.sleep(0)

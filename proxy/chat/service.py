"""The chat of one worker: everything its routes need, opened together and closed in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from proxy.access import SiteRules
from proxy.access.counting import Counting
from proxy.chat.broker import Broker
from proxy.chat.channels import Channels
from proxy.chat.conversation_list import ConversationList
from proxy.chat.dialogues import COPIED_BYTES_MAX, Dialogues
from proxy.chat.page_files import PageFiles, read_page_files
from proxy.chat.readers import Readers
from proxy.chat.search import ConversationSearch
from proxy.chat.stores import open_stores
from proxy.chat.upstream import ChatUpstream
from proxy.chat.visitor_limits import ConcurrencyLimit, VisitorBudget, VisitorRate
from proxy.drain import Drain
from proxy.redis_connection import RedisConnection
from proxy.services import Services
from proxy.settings import Chat, Settings
from proxy.wire.forwarded import TrustedProxies

CLOSING_SECONDS: Final = 0.2
"""Time from the start of a drain until streams end, so that readers learn how their dialogues end."""

VISITS_PER_QUESTION: Final = 10
"""How many times the rate of questions a page may request the state of its channel."""


class ChatService(msgspec.Struct, frozen=True):
    """The objects that the routes of the chat use."""

    settings: Chat
    broker: Broker
    channels: Channels
    conversations: ConversationList
    """The conversations of each visitor."""
    search: ConversationSearch
    """Searches them."""
    dialogues: Dialogues
    rate: VisitorRate
    """Limits questions."""
    visits: VisitorRate
    """Limits the requests that a page makes by itself."""
    sites: SiteRules
    streams: ConcurrencyLimit
    """Limits event streams."""
    readers: Readers
    page: PageFiles
    proxies: TrustedProxies


@contextlib.asynccontextmanager
async def open_chat(
    settings: Settings,
    chat: Chat,
    current: Callable[[], Services],
    drain: Drain,
    redis: RedisConnection | None = None,
) -> AsyncIterator[ChatService]:
    """Open the chat: in memory, or over Redis.

    Args:
        settings: The configuration at the start.
        chat: Its `[chat]` section.
        current: Returns the services of the current configuration.
        drain: Its start ends the event streams.
        redis: The service's connection to the Redis of `[shared]`, if there is one.
    """
    upstream = ChatUpstream(chat, current)
    proxies = TrustedProxies(settings.access.trusted_proxies)
    # At least one turn is stored, so that it can be answered again, even if the model receives none.
    turns = max(chat.turns, 1)
    counting = Counting(redis)
    copies = VisitorBudget(COPIED_BYTES_MAX, chat.keep_seconds, counting, account="chat-copies")
    async with (
        open_stores(
            settings.shared,
            redis,
            turns=turns,
            kept=chat.keep,
            size=chat.keep_bytes,
            expire=chat.keep_seconds,
            longest=chat.max_seconds,
        ) as stores,
        Dialogues(
            chat, stores, upstream, drain, copies=copies, shared=settings.shared is not None
        ) as dialogues,
        _open_readers(drain, dialogues) as readers,
    ):
        yield ChatService(
            settings=chat,
            broker=stores.broker,
            channels=stores.channels,
            conversations=stores.conversations,
            search=ConversationSearch(stores.conversations, stores.broker),
            dialogues=dialogues,
            rate=VisitorRate(chat.rate, counting),
            visits=VisitorRate(chat.rate, counting, account="chat-visits", times=VISITS_PER_QUESTION),
            sites=SiteRules(settings.access.hosts),
            streams=ConcurrencyLimit(chat.max_streams, "streams of an address"),
            readers=readers,
            page=read_page_files(),
            proxies=proxies,
        )


@contextlib.asynccontextmanager
async def _open_readers(drain: Drain, dialogues: Dialogues) -> AsyncIterator[Readers]:
    readers = Readers()

    def start_closing() -> None:
        dialogues.drain()
        asyncio.get_running_loop().call_later(CLOSING_SECONDS, readers.close_all)

    drain.when_started(start_closing)
    yield readers
    readers.close_all()

"""The chat of one worker: everything that its routes need, opened together and closed in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from proxy.access import SiteRules
from proxy.access.counting import Counting
from proxy.chat.broker import Broker
from proxy.chat.channels import Channels
from proxy.chat.dialogues import Dialogues
from proxy.chat.page_files import PageFiles, read_page_files
from proxy.chat.places import Places
from proxy.chat.readers import Readers
from proxy.chat.stores import open_stores
from proxy.chat.upstream import ChatUpstream
from proxy.chat.visitor_rate import VisitorRate
from proxy.drain import Drain
from proxy.redis_connection import RedisConnection
from proxy.services import Services
from proxy.settings import Chat, Settings
from proxy.wire.forwarded import TrustedProxies

FAREWELL_SECONDS: Final = 0.2
"""Between the beginning of a drain and the end of the streams: readers still hear how their dialogues end."""

VISITS_A_QUESTION: Final = 10
"""Times the rate of questions at which a page may ask how its channel is doing."""


@dataclass(frozen=True, slots=True)
class ChatService:
    """What the routes of the chat are served with."""

    settings: Chat
    broker: Broker
    channels: Channels
    dialogues: Dialogues
    rate: VisitorRate
    """For questions."""
    visits: VisitorRate
    """For everything else that a visitor's page asks by itself."""
    sites: SiteRules
    places: Places
    """For streams."""
    readers: Readers
    page: PageFiles
    proxies: TrustedProxies


@contextlib.asynccontextmanager
async def open_chat(
    settings: Settings, current: Callable[[], Services], drain: Drain, redis: RedisConnection | None = None
) -> AsyncIterator[ChatService | None]:
    """Open the chat, if there is one: in memory, or over the fleet's Redis where there is one.

    Args:
        settings: The whole configuration at the start.
        current: What its model is asked with at the moment.
        drain: Its beginning sends the readers away.
        redis: The service's connection to the Redis of `[shared]`; None without one.
    """
    chat = settings.chat
    if chat is None:
        yield None
        return
    upstream = ChatUpstream(chat, current)
    proxies = TrustedProxies(settings.access.trusted_proxies)
    # One turn at least is remembered, since it may have to be answered again; how many of them the model is
    # told is decided where they are told.
    turns = max(chat.turns, 1)
    async with (
        open_stores(settings.shared, redis, turns=turns, kept=chat.keep, expire=chat.keep_seconds) as stores,
        Dialogues(chat, stores, upstream, drain, heard_elsewhere=settings.shared is not None) as dialogues,
        _open_readers(drain, dialogues) as readers,
    ):
        places = Places(chat.max_streams, "streams of an address")
        counting = Counting(redis)
        yield ChatService(
            settings=chat,
            broker=stores.broker,
            channels=stores.channels,
            dialogues=dialogues,
            rate=VisitorRate(chat.rate, counting),
            visits=VisitorRate(chat.rate, counting, account="chat-visits", times=VISITS_A_QUESTION),
            sites=SiteRules(settings.access.hosts),
            places=places,
            readers=readers,
            page=read_page_files(),
            proxies=proxies,
        )


@contextlib.asynccontextmanager
async def _open_readers(drain: Drain, dialogues: Dialogues) -> AsyncIterator[Readers]:
    readers = Readers()

    def say_farewell() -> None:
        dialogues.drain()
        asyncio.get_running_loop().call_later(FAREWELL_SECONDS, readers.send_away)

    drain.when_started(say_farewell)
    yield readers
    readers.send_away()

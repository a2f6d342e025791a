"""Search in the conversations of a visitor: in their titles, questions and answers.

Reading texts takes time, so a search reads a limited number of bytes, the latest conversations first, and
within a limited time. A worker runs one search of texts at a time.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from html import unescape
from typing import Final

from proxy.chat.broker import Broker
from proxy.chat.conversation_list import ConversationList, Listed
from proxy.chat.event import Event
from proxy.chat.states import replaces_answer
from proxy.chat.visitor_limits import ConcurrencyLimit

WORDS_CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 8 << 20
"""Characters of events that one search reads, with their markup."""
SEARCHES_MAX: Final = 3
"""Searches of an address that run or wait, so that nobody else waits for many of them."""
SEARCH_SECONDS: Final = 3.0
"""Time after which a search returns what it has found."""
_SLICE_CHARS: Final = 1 << 16
"""How many characters are read at a time, with markup: other tasks run in between."""
_QUESTION: Final = "<div class='right'>"
_ANSWER: Final = "<div class='left'>"
_TAG: Final = re.compile(r"<[^<>]*>")


class ConversationSearch:
    """Searches the conversations of each session.

    Args:
        conversations: The lists of conversations.
        broker: Stores the texts.
    """

    def __init__(self, conversations: ConversationList, broker: Broker) -> None:
        self._conversations = conversations
        self._broker = broker
        self._one_at_a_time = asyncio.Semaphore()
        self._limit = ConcurrencyLimit(SEARCHES_MAX, "searches of an address")

    async def find(self, session: str, words: str, address: str = "") -> list[Listed]:
        """Return the conversations whose title or text contains some words, the latest first.

        Args:
            address: The visitor's address.

        Raises:
            RateLimited: Too many searches are running for this address.
            StoreUnavailable: Redis did not answer.
        """
        with self._limit.slot(address):
            return await self._find(session, words)

    async def _find(self, session: str, words: str) -> list[Listed]:
        listed, wanted = await self._conversations.read(session), _normalise(words[:WORDS_CHARS_MAX])
        found = {conversation.channel for conversation in listed if wanted in _normalise(conversation.title)}
        others = [conversation.channel for conversation in listed if conversation.channel not in found]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEARCH_SECONDS), self._one_at_a_time:
                await self._search_texts(others, wanted, found)
        return [conversation for conversation in listed if conversation.channel in found]

    async def _search_texts(self, channels: list[str], wanted: str, found: set[str]) -> None:
        """Add the channels whose text contains the words."""
        remaining = TEXT_CHARS_MAX
        for channel in channels:
            if remaining <= 0:
                return
            text, unpaced = "", 0
            async with (
                contextlib.aclosing(self._broker.stored(channel)) as pages,
                contextlib.aclosing(_texts(pages, remaining)) as texts,
            ):
                async for chars, read in texts:
                    remaining -= chars
                    text = text[-WORDS_CHARS_MAX:] + read  # the words may begin in the previous text
                    if wanted in _normalise(text):
                        found.add(channel)
                        break
                    unpaced += chars + len(read)
                    if unpaced >= _SLICE_CHARS:
                        unpaced = 0
                        await asyncio.sleep(0)


async def _texts(pages: AsyncIterator[Sequence[Event]], limit: int) -> AsyncGenerator[tuple[int, str]]:
    """Yield questions and answers, with the number of characters read since the last one.

    An answer comes later than it was read, because another one may replace it.

    Args:
        limit: The number of characters after which no further event is read.
    """
    answer = list[str]()
    async for page in pages:
        if limit <= 0:
            break
        for event in page:
            if limit <= 0:
                break
            message = event.data.get("message") if isinstance(event.data, dict) else None
            if not isinstance(message, str):
                if replaces_answer(event):
                    answer.clear()
                continue
            text = ""
            if message.startswith(_QUESTION):
                for piece in answer:
                    yield 0, piece
                answer.clear()
                text = _without_markup(message)
            elif message.startswith(_ANSWER):
                answer.append(_without_markup(message))
            limit -= len(message)
            yield len(message), text
    for piece in answer:
        yield 0, piece


def _without_markup(message: str) -> str:
    return unescape(_TAG.sub("", message))


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split())

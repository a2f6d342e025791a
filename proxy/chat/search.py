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

WORDS_CHARS_MAX: Final = 200
TEXT_BYTES_MAX: Final = 8 << 20
"""Bytes of texts that one search reads."""
SEARCH_SECONDS: Final = 3.0
"""Time after which a search returns what it has found."""
_SLICE_CHARS: Final = 1 << 16
"""How much text is read at a time: other tasks run in between."""
_SEARCHED_BLOCKS: Final = ("<div class='right'>", "<div class='left'>")
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

    async def find(self, session: str, words: str) -> list[Listed]:
        """Return the conversations whose title or text contains some words, the latest first.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        listed, wanted = await self._conversations.read(session), _normalise(words[:WORDS_CHARS_MAX])
        found = {conversation.channel for conversation in listed if wanted in _normalise(conversation.title)}
        others = [conversation.channel for conversation in listed if conversation.channel not in found]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEARCH_SECONDS), self._one_at_a_time:
                await self._search_texts(others, wanted, found)
        return [conversation for conversation in listed if conversation.channel in found]

    async def _search_texts(self, channels: list[str], wanted: str, found: set[str]) -> None:
        """Add the channels whose text contains the words."""
        remaining = TEXT_BYTES_MAX
        for channel in channels:
            if remaining <= 0:
                return
            text = ""
            async with (
                contextlib.aclosing(self._broker.stored(channel)) as pages,
                contextlib.aclosing(_slices(pages)) as slices,
            ):
                async for read in slices:
                    remaining -= len(read)
                    text = text[-WORDS_CHARS_MAX:] + read  # the words may begin in the previous slice
                    if wanted in _normalise(text):
                        found.add(channel)
                        break
                    if remaining <= 0:
                        break


async def _slices(pages: AsyncIterator[Sequence[Event]]) -> AsyncGenerator[str]:
    """Yield the text of events in slices, and let other tasks run in between."""
    async for page in pages:
        texts, chars = list[str](), 0
        for event in page:
            texts.append(_text(event))
            chars += len(texts[-1])
            if chars >= _SLICE_CHARS:
                yield "".join(texts)
                texts, chars = [], 0
                await asyncio.sleep(0)
        yield "".join(texts)


def _text(event: Event) -> str:
    """Return the question, or the piece of an answer, that an event contains, without markup."""
    message = event.data.get("message") if isinstance(event.data, dict) else None
    if not isinstance(message, str) or not message.startswith(_SEARCHED_BLOCKS):
        return ""
    return unescape(_TAG.sub("", message))


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split())

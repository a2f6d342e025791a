"""Use the service with LlamaIndex's OpenAILike, and print the results."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, KEY = sys.argv[1:3]
WHO = "你是谁"
DIALOGUE = [ChatMessage(role="user", content=WHO)]


def model(name: str = "m", key: str = KEY, *, is_chat_model: bool = True) -> Any:
    return OpenAILike(
        model=name, api_base=URL + "/v1", api_key=key, is_chat_model=is_chat_model, max_retries=0
    )


def chat() -> Any:
    return model().chat(DIALOGUE).message.content


def stream() -> Any:
    return [piece.delta for piece in model().stream_chat(DIALOGUE)]


def complete() -> Any:
    """Complete with `/completions`, which is the default."""
    return model(is_chat_model=False).complete(WHO).text


def fails(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:  # any of several libraries'
        return [type(error).__name__, str(error)]


def wrong_key() -> Any:
    return fails(lambda: model(key="wrong").chat(DIALOGUE).message.content)


def cut() -> Any:
    return fails(lambda: [piece.delta for piece in model("odd:cut").stream_chat(DIALOGUE)])


async def asynchronous() -> Any:
    whole = (await model().achat(DIALOGUE)).message.content
    return [whole, "".join([piece.delta async for piece in await model().astream_chat(DIALOGUE)])]


async def main() -> None:
    parts = (chat, stream, complete, wrong_key, cut)
    answers = await asyncio.gather(*(asyncio.to_thread(part) for part in parts), asynchronous())
    print(json.dumps(dict(zip([*(part.__name__ for part in parts), "asynchronous"], answers, strict=True))))


asyncio.run(main())

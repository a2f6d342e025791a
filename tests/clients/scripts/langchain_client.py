"""Use the service with LangChain's OpenAI classes, and print the results."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL, KEY = sys.argv[1:3]
WHO = "你是谁"
TEXTS = ["一", "two words"]

# LlamaIndex contains the table of tokens that LangChain would download.
_core = importlib.util.find_spec("llama_index.core")
assert _core is not None
assert _core.origin is not None
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(_core.origin).parent / "_static/tiktoken_cache")

import tiktoken  # noqa: E402  it must see the environment
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # noqa: E402


def model(name: str = "m", key: str = KEY, **more: Any) -> Any:
    return ChatOpenAI(model=name, base_url=URL + "/v1", api_key=key, max_retries=0, **more)


def chat() -> Any:
    return model().invoke(WHO).content


def stream() -> Any:
    return [chunk.content for chunk in model().stream(WHO)]


def usage() -> Any:
    total = None
    for chunk in model(stream_usage=True).stream(WHO):
        total = chunk if total is None else total + chunk
    return total and total.usage_metadata


def embeddings() -> Any:
    """Embed texts, and token ids, which is LangChain's default."""
    options: Any = {"model": "e", "base_url": URL + "/v1", "api_key": KEY, "max_retries": 0}
    encoding = tiktoken.get_encoding("cl100k_base")
    return {
        "tokens": [encoding.encode(text) for text in TEXTS],
        "by_texts": OpenAIEmbeddings(check_embedding_ctx_length=False, **options).embed_documents(TEXTS),
        "by_tokens": OpenAIEmbeddings(**options).embed_documents(TEXTS),
    }


def fails(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:  # any of several libraries'
        return [type(error).__name__, str(error)]


def wrong_key() -> Any:
    return fails(lambda: model(key="wrong").invoke(WHO))


def cut() -> Any:
    return fails(lambda: list(model("odd:cut").stream(WHO)))


async def asynchronous() -> Any:
    whole = (await model().ainvoke(WHO)).content
    return [whole, "".join([chunk.content async for chunk in model().astream(WHO)])]


async def main() -> None:
    parts = (chat, stream, usage, embeddings, wrong_key, cut)
    answers = await asyncio.gather(*(asyncio.to_thread(part) for part in parts), asynchronous())
    print(json.dumps(dict(zip([*(part.__name__ for part in parts), "asynchronous"], answers, strict=True))))


asyncio.run(main())

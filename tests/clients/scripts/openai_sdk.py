"""Use the service with the OpenAI SDK for Python, the newest or the oldest, and print the results."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import openai

URL, KEY = sys.argv[1:3]
WHO: Any = [{"role": "user", "content": "你是谁"}]
STATUSES = (400, 403, 404, 409, 422, 429, 500, 503)


def sdk(path: str = "/v1", key: str = KEY, max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=URL + path, api_key=key, max_retries=max_retries)


def chat() -> Any:
    return sdk().chat.completions.create(model="m", messages=WHO).choices[0].message.content


def stream() -> Any:
    chunks = sdk().chat.completions.create(model="m", messages=WHO, stream=True)
    return [chunk.choices[0].delta.content or "" for chunk in chunks]


async def chat_async() -> Any:
    async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0) as client:
        return (await client.chat.completions.create(model="m", messages=WHO)).choices[0].message.content


async def stream_async() -> Any:
    async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0) as client:
        chunks = await client.chat.completions.create(model="m", messages=WHO, stream=True)
        return [chunk.choices[0].delta.content or "" async for chunk in chunks]


def embeddings() -> Any:
    """Request vectors as numbers, and with the default of the SDK, which is base64 if it can."""
    own = sdk()
    numbers = own.embeddings.create(model="e", input=["一", "二"], encoding_format="float")
    packed = own.embeddings.create(model="e", input=["一", "二"])
    return {
        name: [item.embedding for item in answer.data]
        for name, answer in (("float", numbers), ("default", packed))
    }


def models() -> Any:
    own = sdk()
    return [[model.id for model in own.models.list()], own.models.retrieve("mock-gpt-model").id]


def upload() -> Any:
    """Upload a file that is too large to be held; print the sent and the received bytes."""
    sound = ("声.wav", b"RIFF" + bytes(range(256)) * (3 << 12), "audio/wav")
    own = sdk("/v1/echo").audio.transcriptions.with_raw_response
    answer = own.create(model="whisper", file=sound).http_response
    body: Any = answer.request.stream
    sent = b"".join(body)
    return {"sent": hashlib.sha256(sent).hexdigest(), "bytes": len(sent), "seen": answer.json()}


def fails(act: Callable[[], Any]) -> Any:
    """Return the class, status and code of an error; for an error in a stream, its message."""
    try:
        return act()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.response.status_code, error.response.json()["error"]["code"]]
    except openai.APIError as error:
        return [type(error).__name__, None, error.message]


def ask(model: str, max_retries: int = 0) -> Any:
    own = sdk(max_retries=max_retries)
    return own.chat.completions.create(model=model, messages=WHO).choices[0].message.content


def errors() -> Any:
    return {status: fails(partial(ask, f"odd:status_{status}"))[0] for status in STATUSES}


def wrong_key() -> Any:
    return fails(lambda: sdk(key="wrong").chat.completions.create(model="m", messages=WHO))


def refused() -> Any:
    return fails(lambda: ask("odd:status_401", max_retries=2))


def flaky() -> Any:
    return fails(lambda: ask("odd:flaky", max_retries=2))


def cut() -> Any:
    pieces: list[Any] = []
    error = fails(
        lambda: pieces.extend(sdk().chat.completions.create(model="odd:cut", messages=WHO, stream=True))
    )
    return {"pieces": len(pieces), "error": error}


def leave() -> Any:
    """Read the first pieces and leave; the gateway sends more only after that."""
    chunks = sdk().chat.completions.create(model="odd:held", messages=WHO, stream=True)
    pieces = [next(chunks).choices[0].delta.content for _ in range(2)]
    chunks.response.close()
    return pieces


async def main() -> None:
    """Run everything concurrently, each synchronous part in a thread."""
    parts = (chat, stream, embeddings, models, upload, errors, wrong_key, refused, flaky, cut, leave)
    started: dict[str, Coroutine[Any, Any, Any]] = {part.__name__: asyncio.to_thread(part) for part in parts}
    started |= {"chat_async": chat_async(), "stream_async": stream_async()}
    answers = await asyncio.gather(*started.values())
    print(json.dumps({"version": openai.__version__, **dict(zip(started, answers, strict=True))}))


asyncio.run(main())

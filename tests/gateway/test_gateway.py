"""The gateway on a real socket, with OpenAI's SDK as its client."""

import asyncio
import logging
from dataclasses import replace

import httpx2
import pytest
from openai import (
    APIConnectionError,
    AsyncOpenAI,
    AsyncStream,
    AuthenticationError,
    NotFoundError,
    RateLimitError,
)
from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam

from proxy.gateway import DemoGateway
from proxy.gateway.echo import LAST_MESSAGE, split_pieces
from tests.gateway.caller import ManualClock
from tests.loopback import SERVER_LOG, until
from tests.pace import PATIENCE

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "你是谁, my friend"}]
ECHO = LAST_MESSAGE + "你是谁, my friend"


async def test_a_plain_answer(openai: AsyncOpenAI) -> None:
    completion = await openai.chat.completions.create(model="mock-gpt-model", messages=HELLO)
    assert completion.choices[0].message.content == ECHO
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "mock-gpt-model"


async def test_a_stream_with_usage(openai: AsyncOpenAI, gateway: DemoGateway) -> None:
    stream = await openai.chat.completions.create(
        model="mock-gpt-model", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *said, counted = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == ECHO
    assert said[0].choices[0].delta.role == "assistant"
    assert said[-1].choices[0].finish_reason == "stop"
    assert counted.usage is not None
    assert counted.usage.completion_tokens == len(split_pieces(ECHO))
    assert len({chunk.id for chunk in chunks}) == 1
    await until(lambda: gateway.stats.streams_open == 0)
    assert gateway.stats.streams_closed_early == 0


async def test_plain_completions(openai: AsyncOpenAI) -> None:
    whole = await openai.completions.create(model="mock-gpt-model", prompt="hi", max_tokens=3)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("As a mock ", "length")
    stream = await openai.completions.create(model="mock-gpt-model", prompt="hi", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == LAST_MESSAGE + "hi"


async def test_embeddings_are_the_same_in_both_encodings(openai: AsyncOpenAI) -> None:
    packed = await openai.embeddings.create(model="bge", input=["a", "你"], dimensions=8)  # base64 by default
    floats = await openai.embeddings.create(
        model="bge", input=["a", "你"], dimensions=8, encoding_format="float"
    )
    assert [item.embedding for item in packed.data] == [item.embedding for item in floats.data]
    assert len(packed.data[1].embedding) == 8


async def test_models(openai: AsyncOpenAI) -> None:
    names = [model.id async for model in openai.models.list()]
    assert names == ["mock-gpt-model", "mock-embedding-model"]
    assert (await openai.models.retrieve("mock-gpt-model")).owned_by == "gateway"
    with pytest.raises(NotFoundError):
        await openai.models.retrieve("other")


async def test_errors_raise_the_clients_own_classes(openai: AsyncOpenAI, gateway: DemoGateway) -> None:
    gateway.options = replace(gateway.options, status=429)
    with pytest.raises(RateLimitError):
        await openai.models.list()
    gateway.options = replace(gateway.options, status=200)
    gateway.tokens.revoke_all()
    with pytest.raises(AuthenticationError, match="token expired or unknown"):
        await openai.models.list()


async def test_a_token_of_the_endpoint_works_and_expires(
    address: str, clock: ManualClock, openai: AsyncOpenAI
) -> None:
    async with httpx2.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE) as client:
        reply = await client.post("/token", json={"appId": "demo", "appSecret": "demo-secret"})
    fresh = openai.with_options(api_key=reply.json()["data"]["token"])
    await fresh.models.list()
    clock.now += 300.0
    with pytest.raises(AuthenticationError):
        await fresh.models.list()


@pytest.mark.parametrize("after", [0, 3])
async def test_a_cut_stream_is_an_error_in_the_client(
    openai: AsyncOpenAI, gateway: DemoGateway, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    gateway.options = replace(gateway.options, cut_after=after)
    received = 0

    async def read(stream: AsyncStream[ChatCompletionChunk]) -> None:
        nonlocal received
        async for _ in stream:
            received += 1

    with caplog.at_level(logging.WARNING):
        stream = await openai.chat.completions.create(model="mock-gpt-model", messages=HELLO, stream=True)
        with pytest.raises(APIConnectionError):
            await read(stream)
    assert received == after
    assert [record for record in caplog.records if record.name in {SERVER_LOG, "asyncio"}] == []
    assert (await openai.models.list()).data  # the server continues


async def test_a_cut_stream_lacks_its_last_chunk(address: str, gateway: DemoGateway) -> None:
    gateway.options = replace(gateway.options, cut_after=2)
    host, _, port = address.removeprefix("http://").partition(":")
    body = b'{"stream": true, "messages": []}'
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {gateway.tokens.issue(60.0)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"transfer-encoding: chunked" in raw.lower()
    assert raw.count(b"data: ") == 2
    assert not raw.endswith(b"0\r\n\r\n")


async def test_a_caller_who_leaves_is_counted(openai: AsyncOpenAI, gateway: DemoGateway) -> None:
    gateway.options = replace(gateway.options, stall_after=2)
    stream = await openai.chat.completions.create(model="mock-gpt-model", messages=HELLO, stream=True)
    await anext(stream.__aiter__())
    assert gateway.stats.streams_open == 1
    await stream.close()
    await until(lambda: gateway.stats.streams_open == 0)
    assert gateway.stats.streams_closed_early == 1


async def test_a_large_upload_gets_its_early_answer(address: str) -> None:
    async with httpx2.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE) as client:
        reply = await client.post("/v1/echo", content=b"x" * 8_000_000)
    assert reply.status_code == 401


async def test_a_large_upload_arrives_whole(address: str, openai: AsyncOpenAI) -> None:
    async with httpx2.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE) as client:
        headers = {"Authorization": f"Bearer {openai.api_key}"}
        reply = await client.put("/v1/echo/up?a=%2F", content=b"x" * 20_000_000, headers=headers)
    assert reply.json()["body_bytes"] == 20_000_000
    assert reply.json()["target"] == "/v1/echo/up?a=%2F"

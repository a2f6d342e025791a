"""Bytes: requests reach the upstream, and responses the caller, exactly as they were sent."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import KEY, RunningGateway, RunProxy
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream, stream_from

ODD_JSON = (
    b'{ "stream":true,"z":1.10,"a":1E5 , "model":"m\\u00e9","unknown":{"b":[],"a":null},'
    b'"messages":[{"role":"user","content":"\xe4\xbd\xa0\xe5\xa5\xbd \\n"}], "n": 10000000000000000000000 }\n'
)
ODD_STREAM = [
    b": a comment first\n\n",
    b'data:{"no_space":1.10,"a":1E5}\r\n\r\n',
    b'data: {"b":null}\n\nevent: x\nid: 7\ndata: y\n\n',
    b"retry: 3\r\rdata: \xe4\xbd",
    b"\xa0\xe5\xa5\xbd\n\n",
    b"\n\ndata: [DONE]\n\n: after the end\n\n",
]


async def test_a_json_body_is_forwarded_byte_for_byte(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}", "Content-Type: application/json")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(
            "POST", "/v1/chat/completions?a=%20b&c", "Content-Type: application/json", body=ODD_JSON
        )
        assert (await caller.answer()).status == 200
    assert upstream.requests[0].body == ODD_JSON
    assert upstream.requests[0].target == b"/v1/chat/completions?a=%20b&c"


async def test_headers_are_forwarded_with_the_live_token_instead_of_the_callers_key(
    run_proxy: RunProxy,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(
            "GET", "/v1/models", "X-Custom: a", "x-custom: b", "User-Agent: RAGFlow", "Cookie: s=1",
            "Accept-Encoding: gzip", "X-Forwarded-For: 10.0.0.1", "X-Request-Id: trace-7",
            "Connection: X-Hop", "X-Hop: 1",
        )  # fmt: skip
        answer = await caller.answer()
    request = upstream.requests[0]
    assert request.header("authorization") == ["Bearer static-upstream-token"]
    assert request.header("x-custom") == ["a", "b"]
    assert request.header("user-agent") == ["RAGFlow"]
    assert request.header("accept-encoding") == ["identity"]
    assert request.header("x-request-id") == answer.header("x-request-id") == ["trace-7"]
    for name in ("cookie", "x-forwarded-for", "x-hop", "remote-addr", "content-type", "x-stainless-lang"):
        assert request.header(name) == []
    assert len(request.header("host")) == 1
    assert KEY.encode() not in request.head


async def test_a_stream_is_forwarded_byte_for_byte(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream("X-Vendor: v", "Set-Cookie: a=b", "Server: nginx", "Cache-Control: max-age=9")
        for piece in ODD_STREAM:
            await talk.chunk(piece)
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", "Content-Type: application/json", body=b"{}")
        answer = await caller.answer()
        body = await caller.body(answer)
    assert body == b"".join(ODD_STREAM)
    assert answer.header("content-type") == ["text/event-stream"]
    assert answer.header("cache-control") == ["no-store, no-cache, no-transform"]
    assert answer.header("x-accel-buffering") == ["no"]
    assert answer.header("x-vendor") == ["v"]
    assert answer.header("set-cookie") == answer.header("server") == []


async def test_each_event_is_forwarded_before_the_next_one_is_created(run_proxy: RunProxy) -> None:
    go_on = asyncio.Queue[bytes]()
    async with (
        raw_upstream(stream_from(go_on)) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b"{}")
        for number in range(5):
            event = b"data: %d\n\n" % number
            go_on.put_nowait(event)
            if number == 0:
                assert (await caller.answer()).status == 200
            assert await caller.chunk() == event  # the upstream has not sent the next one yet
        go_on.put_nowait(b"data: [DONE]\n\n")
        go_on.put_nowait(b"")
        assert await caller.chunk() == b"data: [DONE]\n\n"
        assert await caller.chunk() == b""


async def test_half_an_event_waits_for_its_other_half(run_proxy: RunProxy) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\ndata: ha")
        await go_on.wait()
        await talk.chunk(b"lf\n\ndata: [DONE]\n\n")
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b"{}")
        await caller.answer()
        assert await caller.chunk() == b"data: 1\n\n"
        go_on.set()
        assert await caller.chunk() == b"data: half\n\ndata: [DONE]\n\n"


async def test_an_encoded_slash_arrives_encoded(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models/BAAI%2Fbge-m3?x=%2F&y=a+b")
        await caller.answer()
    assert upstream.requests[0].target == b"/v1/models/BAAI%2Fbge-m3?x=%2F&y=a+b"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "POST"])
async def test_any_method_is_forwarded_with_its_body(run_proxy: RunProxy, method: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"ok", status="207 Multi")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(method, "/v1/new/thing", "Content-Type: application/octet-stream", body=b"\x00\xff")
        answer = await caller.answer()
        assert (answer.status, await caller.body(answer)) == (207, b"ok")
    assert upstream.requests[0].head.startswith(method.encode())
    assert upstream.requests[0].body == b"\x00\xff"


async def test_head_has_the_upstreams_length_and_no_body(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nContent-Type: text/plain\r\n\r\n")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("HEAD", "/v1/files/x")
        assert (await caller.answer()).header("content-length") == ["999"]
        await caller.send("HEAD", "/v1/files/y")  # and the connection stays open
        assert (await caller.answer()).status == 200


async def test_a_compressed_response_is_forwarded_unchanged(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"\x1f\x8b-not-really", "Content-Encoding: gzip", "Content-Type: application/json")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models")
        answer = await caller.answer()
        assert answer.header("content-encoding") == ["gzip"]
        assert await caller.body(answer) == b"\x1f\x8b-not-really"


async def test_a_large_upload_is_streamed_and_not_held(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    block, count = bytes(range(256)) * 256, 320  # 20 MiB

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield block

    async with (
        run_proxy(gateway.url, credential=gateway.credential) as proxy,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(
            f"{proxy.url}/v1/echo/upload", data=blocks(), headers={"Content-Type": "application/octet-stream"}
        ) as response,
    ):
        seen = await response.json()
    assert seen["body_bytes"] == len(block) * count
    assert seen["body_sha256"] == hashlib.sha256(block * count).hexdigest()


async def test_multipart_arrives_as_sent(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = head + b"RIFF\x00\xff\r\n--b--\r\n"
    async with (
        run_proxy(gateway.url, credential=gateway.credential) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/echo", "Content-Type: multipart/form-data; boundary=b", body=body)
        answer = await caller.answer()
        seen = json.loads(await caller.body(answer))
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert ["content-type", "multipart/form-data; boundary=b"] in seen["headers"]

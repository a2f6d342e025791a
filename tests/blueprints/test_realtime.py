"""WebSockets at `/v1/realtime`: relayed both ways with the current token, and closed on both sides."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from wsproto.utilities import generate_accept_token
from yarl import URL

from proxy.access.caller import Caller
from proxy.access.load import Load
from proxy.upstream.websocket import REJECTION_BYTES_MAX, ArrivingMessages
from proxy.wire.websocket import MESSAGE_BYTES_MAX
from tests.conftest import KEY, RunningGateway, RunningProxy, RunProxy
from tests.loopback import until
from tests.pace import PATIENCE
from tests.ports import free_port
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.signing_keys import certificate_pem, pem
from tests.socket_upstream import socket_upstream

MOUNTS = ["/v1/realtime", "/agent/api/llm_proxy/v1/realtime"]
BEARER = {"Authorization": f"Bearer {KEY}"}
SOCKETS = int(os.environ.get("PROXY_TEST_SOCKETS", "100"))
MESSAGES = int(os.environ.get("PROXY_TEST_MESSAGES", "100"))
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)


@contextlib.asynccontextmanager
async def connected(
    proxy: RunningProxy, path: str = MOUNTS[0], headers: dict[str, str] = BEARER, **more: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open the WebSocket of a caller."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            URL(proxy.url + path, encoded=True), headers=headers, max_msg_size=64 * 1024 * 1024, **more
        ) as caller,
    ):
        yield caller


async def refused(
    proxy: RunningProxy, path: str = MOUNTS[0], *more: str, key: str = KEY
) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of a handshake that is rejected with an HTTP response."""
    lines = "".join(f"{line}\r\n" for line in (f"Authorization: Bearer {key}", *more))
    async with raw_caller(proxy.url) as caller:
        await caller.write(HANDSHAKE.format(path=path, more=lines).encode())
        answer = await caller.answer()
        return answer.status, json.loads(await caller.body(answer))


async def the_line(proxy: RunningProxy) -> dict[str, Any]:
    """Return the only log line of the only exchange."""
    await until(lambda: bool(proxy.exchanges))
    (line,) = proxy.exchanges
    assert "defect" not in [each["event"] for each in proxy.lines]
    return dict(line)


@pytest.mark.parametrize("path", MOUNTS)
async def test_text_and_binary_pass_unaltered_with_the_token_of_the_proxy(
    run_proxy: RunProxy, path: str
) -> None:
    every_byte, text = bytes(range(256)) * 300, '{"type": "session.update", "你": "\\u4f60"}\n'
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy, f"{path}?model=gpt-realtime&x=%2F+1", protocols=["realtime"]) as caller:
            await caller.send_str(text)
            assert await caller.receive_str() == text
            await caller.send_bytes(every_byte)
            assert await caller.receive_bytes() == every_byte
            await caller.send_bytes(b"")
            assert await caller.receive_bytes() == b""
            assert caller.protocol == "realtime"
        line = await the_line(proxy)
    (handshake,) = upstream.handshakes
    assert handshake.raw_path == "/v1/realtime?model=gpt-realtime&x=%2F+1"
    assert handshake.headers["Authorization"] == "Bearer static-upstream-token"
    assert KEY not in str(handshake.headers)
    assert (line["status"], line["endpoint"], line["outcome"]) == (101, "realtime", "ok")
    assert (line["model"], line["caller"], line["upstream"]) == ("gpt-realtime", "tester", "chat")
    assert line["bytes_up"] == line["bytes_down"] == len(every_byte) + len(text.encode())
    assert "session.update" not in str(proxy.lines)


async def test_an_open_websocket_does_not_count_as_a_request_that_waits_for_its_response(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, begin, begin_response = 0, Load.begin, Load.begin_response

    def count(load: Load, caller: Caller, max_lag: float) -> None:
        nonlocal waiting
        begin(load, caller, max_lag)
        waiting += 1

    def uncount(load: Load, caller: Caller) -> None:
        nonlocal waiting
        begin_response(load, caller)
        waiting -= 1

    monkeypatch.setattr(Load, "begin", count)
    monkeypatch.setattr(Load, "begin_response", uncount)
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            await caller.send_str("a")
            await caller.receive_str()
            assert waiting == 0
        await the_line(proxy)
    assert waiting == 0


async def test_many_sockets_lose_nothing_and_keep_the_order(run_proxy: RunProxy) -> None:
    async def talk(proxy: RunningProxy, number: int) -> None:
        expected = [f"{number}:{count}" for count in range(MESSAGES)]
        async with connected(proxy) as caller, asyncio.TaskGroup() as group:

            async def speak() -> None:
                for message in expected:
                    await caller.send_str(message)

            group.create_task(speak())
            assert [await caller.receive_str() for _ in expected] == expected

    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with asyncio.TaskGroup() as group:
            for number in range(SOCKETS):
                group.create_task(talk(proxy, number))
        await until(lambda: len(proxy.exchanges) == SOCKETS)
    assert {line["outcome"] for line in proxy.exchanges} == {"ok"}


@pytest.mark.parametrize(("said", "arrives"), [(1000, 1000), (1001, 1001), (4321, 4321)])
async def test_the_callers_close_reaches_the_upstream(run_proxy: RunProxy, said: int, arrives: int) -> None:
    reasons = list[str]()

    async def script(socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        reasons.append(str(message.extra))

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            await caller.close(code=said, message="完了".encode())
        async with asyncio.timeout(PATIENCE):
            assert await upstream.closes.get() == arrives
        line = await the_line(proxy)
    assert reasons == ["完了"]
    assert line["outcome"] == "ok"


@pytest.mark.parametrize("code", [1000, 1008, 1011, 3000, 4999])
async def test_the_upstreams_close_reaches_the_caller(run_proxy: RunProxy, code: int) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_str("last words")
        await socket.close(code=code, message="完了".encode())

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            assert await caller.receive_str() == "last words"
            message = await caller.receive()
        line = await the_line(proxy)
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, code, "完了")
    assert line["outcome"] == "ok"


async def test_the_upstreams_close_reaches_a_caller_who_keeps_sending(run_proxy: RunProxy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for _ in range(3):
            await socket.receive()
        await socket.close(code=4001)

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller, asyncio.TaskGroup() as group:

            async def speak() -> None:
                with contextlib.suppress(ConnectionError):
                    for _ in range(64):
                        await caller.send_bytes(bytes(1024 * 1024))

            group.create_task(speak())
            await upstream.closes.get()
            message = await caller.receive()
        line = await the_line(proxy)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 4001)
    assert line["outcome"] == "ok"


async def test_a_lost_caller_closes_the_upstream(run_proxy: RunProxy) -> None:
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.write(HANDSHAKE.format(path=MOUNTS[0], more=f"x-api-key: {KEY}\r\n").encode())
            assert (await caller.answer()).status == 101
        async with asyncio.timeout(PATIENCE):
            assert await upstream.closes.get() == 1001
        line = await the_line(proxy)
        assert proxy.drain.running == 0
    assert (line["status"], line["outcome"]) == (101, "client_gone")


async def test_a_caller_who_leaves_an_upstream_that_reads_nothing_is_noticed(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.websocket.LEFT_SECONDS", 0.0)
    is_sending, left, send = asyncio.Event(), asyncio.Event(), ArrivingMessages.send

    async def reported(socket: ArrivingMessages, message: str | bytes) -> None:
        is_sending.set()
        await send(socket, message)

    async def script(talk: Conversation) -> None:
        (key,) = talk.request.header("Sec-WebSocket-Key")
        accept = generate_accept_token(key.encode())
        head = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await talk.say(head + b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
        await left.wait()

    monkeypatch.setattr(ArrivingMessages, "send", reported)
    async with raw_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.write(HANDSHAKE.format(path=MOUNTS[0], more=f"x-api-key: {KEY}\r\n").encode())
            assert (await caller.answer()).status == 101
            size = MESSAGE_BYTES_MAX - 1
            await caller.write(b"\x82\xff" + size.to_bytes(8) + bytes(4) + bytes(size))
            async with asyncio.timeout(PATIENCE):
                await is_sending.wait()
        line = await the_line(proxy)
        left.set()
    assert (line["status"], line["outcome"]) == (101, "client_gone")


async def test_a_lost_upstream_closes_the_caller(run_proxy: RunProxy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_str("half")
        transport = socket.get_extra_info("socket")
        assert transport is not None
        assert socket._req is not None
        assert socket._req.transport is not None
        socket._req.transport.abort()

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            assert await caller.receive_str() == "half"
            message = await caller.receive()
        line = await the_line(proxy)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1011)
    assert (line["status"], line["outcome"]) == (101, "upstream_aborted")


async def test_a_caller_who_leaves_during_the_handshake_frees_the_upstream(run_proxy: RunProxy) -> None:
    gone = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.caller_left()
        gone.set()

    async with raw_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.write(HANDSHAKE.format(path=MOUNTS[0], more=f"api-key: {KEY}\r\n").encode())
            await until(lambda: bool(upstream.requests))
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        line = await the_line(proxy)
    assert line["outcome"] == "client_gone"


@pytest.mark.parametrize("path", MOUNTS)
async def test_a_wrong_key_is_rejected_in_the_envelope(run_proxy: RunProxy, path: str) -> None:
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        status, body = await refused(proxy, path, key="wrong")
        line = await the_line(proxy)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert (line["status"], line["outcome"]) == (401, "invalid_api_key")
    assert not upstream.handshakes


async def test_the_key_of_a_browser_is_not_forwarded(run_proxy: RunProxy) -> None:
    offered = [
        "realtime",
        f"openai-insecure-api-key.{KEY}",
        "openai-organization.o",
        "openai-beta.realtime-v1",
    ]
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy, headers={}, protocols=offered) as caller:
            assert caller.protocol == "realtime"
        status, body = await refused(
            proxy, MOUNTS[0], "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.other"
        )
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    (handshake,) = upstream.handshakes
    assert handshake.headers["Sec-WebSocket-Protocol"] == "realtime,openai-beta.realtime-v1"


LIMITED = """
[[access.keys]]
name = "limited"
key = "sk-limited"
models = ["gpt-realtime*"]
max_streams = 1

[[routes.models]]
match = "gpt-realtime-old"
upstream = "embed"
rename = "the/new one"
"""


async def test_limits_and_routes_count_by_the_model_of_the_query(run_proxy: RunProxy) -> None:
    async with socket_upstream() as upstream, run_proxy(upstream.url, more=LIMITED) as proxy:
        status, body = await refused(proxy, MOUNTS[0] + "?model=gpt-4o", key="sk-limited")
        assert (status, body["error"]["code"]) == (403, "model_forbidden")
        two = MOUNTS[0] + "?model=gpt-realtime&mod%65l=gpt-4o"
        status, body = await refused(proxy, two, key="sk-limited")
        assert (status, body["error"]["param"]) == (400, "model")
        status, body = await refused(proxy, MOUNTS[0], key="sk-limited")  # the upstream would choose
        assert (status, body["error"]["code"]) == (403, "model_forbidden")
        assert not upstream.handshakes
        path, key = MOUNTS[0] + "?a=%2f&model=gpt-realtime-old&b", {"api-key": "sk-limited"}
        async with connected(proxy, path, headers=key):
            status, body = await refused(proxy, MOUNTS[0] + "?model=gpt-realtime", key="sk-limited")
            assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        await until(lambda: len(proxy.exchanges) == 5)
    assert upstream.handshakes[0].raw_path == "/v1/realtime?a=%2f&model=the%2Fnew%20one&b"
    assert proxy.exchanges[-1]["upstream"] == "embed"


@pytest.mark.parametrize(
    ("origin", "cors", "status"),
    [
        ("https://evil.example", "", 403),
        ("null", "", 403),
        ("https://app.example", '[cors]\norigins = ["https://app.example"]\n', 101),
        ("https://evil.example", '[cors]\norigins = ["https://app.example"]\n', 403),
        ("https://evil.example", '[cors]\norigins = ["*"]\n', 101),
        ("{own}", "", 101),
    ],
)
async def test_in_open_mode_no_foreign_page_opens_a_websocket(
    run_proxy: RunProxy, origin: str, cors: str, status: int
) -> None:
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, access='mode = "open"', more=cors) as proxy,
    ):
        headers = {"origin": origin.replace("{own}", proxy.url)}
        if status == 101:
            async with connected(proxy, headers=headers) as caller:
                await caller.send_str("hello")
                assert await caller.receive_str() == "hello"
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                async with connected(proxy, headers=headers):
                    pass
            assert refusal.value.status == status
            assert not upstream.handshakes


async def test_a_rejected_token_is_replaced_unseen(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    seen = list[str]()

    def gate(request: web.Request) -> web.Response | None:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401, text="no") if len(set(seen)) == 1 else None

    async with (
        socket_upstream(gate=gate) as upstream,
        run_proxy(upstream.url, credential=gateway.credential) as proxy,
    ):
        async with connected(proxy) as caller:
            await caller.send_str("hello")
            assert await caller.receive_str() == "hello"
        line = await the_line(proxy)
    assert len(set(seen)) == 2
    assert (line["status"], line["outcome"], line["replays"]) == (101, "ok", len(seen) - 1)
    assert all(token.removeprefix("Bearer ") not in str(proxy.lines) for token in seen)


async def test_a_rejection_whose_body_never_ends_delays_no_new_token(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    seen = list[str]()

    async def script(talk: Conversation) -> None:
        seen.append(*talk.request.header("Authorization"))
        if len(set(seen)) == 1:
            await talk.say(b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\n\r\nno")
        else:
            await talk.answer(b"{}", status="403 Forbidden")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=gateway.credential) as proxy,
    ):
        assert await refused(proxy) == (403, {})
    assert len(set(seen)) == 2


@pytest.mark.parametrize("ending", ["cut", "too large"])
async def test_a_rejection_that_cannot_be_read_is_502(run_proxy: RunProxy, ending: str) -> None:
    size = REJECTION_BYTES_MAX + 1 if ending == "too large" else 1

    async def script(talk: Conversation) -> None:
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % (2 * size)
        await talk.say(head + bytes(size))
        talk.writer.close()

    async with raw_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        status, body = await refused(proxy)
        line = await the_line(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_bad_response")
    assert line["outcome"] == "upstream_bad_response"


async def test_a_token_that_is_always_rejected_is_502(run_proxy: RunProxy) -> None:
    async with (
        socket_upstream(gate=lambda _: web.Response(status=401)) as upstream,
        run_proxy(upstream.url) as proxy,
    ):
        status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_auth_failed")


@pytest.mark.parametrize("status", [429, 499, 520])
async def test_another_status_is_relayed_with_its_body(run_proxy: RunProxy, status: int) -> None:
    def gate(_: web.Request) -> web.Response:
        return web.json_response({"error": {"code": "own"}}, status=status, headers={"Retry-After": "7"})

    async with socket_upstream(gate=gate) as upstream, run_proxy(upstream.url) as proxy:
        answer = await refused(proxy)
        line = await the_line(proxy)
    assert answer == (status, {"error": {"code": "own"}})
    assert (line["status"], line["outcome"]) == (status, "ok")


async def test_over_tls_only_a_trusted_upstream_gets_the_token(run_proxy: RunProxy, tmp_path: Path) -> None:
    certificate, key = tmp_path / "upstream.pem", tmp_path / "upstream.key"
    certificate.write_text(certificate_pem("p256"))
    key.write_text(pem("p256"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with socket_upstream(tls=tls) as upstream:
        trusting = run_proxy(upstream.url, options=f'ca_file = "{certificate}"')
        async with trusting as proxy, connected(proxy) as caller:
            await caller.send_str("hello")
            assert await caller.receive_str() == "hello"
        async with run_proxy(upstream.url) as proxy:
            status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_unreachable")
    assert len(upstream.handshakes) == 1


async def test_a_redirect_is_not_followed(run_proxy: RunProxy) -> None:
    def gate(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with socket_upstream(gate=gate) as upstream, run_proxy(upstream.url) as proxy:
        status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_bad_response")
    assert len(upstream.handshakes) == 1


async def test_handshake_faults_get_the_errors_of_requests(run_proxy: RunProxy) -> None:
    async def garbage(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await talk.caller_left()

    async with raw_upstream(garbage) as upstream, run_proxy(upstream.url) as proxy:
        status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_bad_response")

    async def silence(talk: Conversation) -> None:
        await talk.caller_left()

    options = "timeouts = { first_byte = 0.2 }"
    async with raw_upstream(silence) as upstream, run_proxy(upstream.url, options=options) as proxy:
        status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (504, "upstream_timeout")
    port = free_port()
    async with run_proxy(f"http://127.0.0.1:{port}") as proxy:
        status, body = await refused(proxy)
    assert (status, body["error"]["code"]) == (502, "upstream_unreachable")


async def test_the_drain_closes_both_sides_with_going_away(run_proxy: RunProxy) -> None:
    async with socket_upstream() as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            await caller.send_str("hello")
            assert await caller.receive_str() == "hello"
            assert proxy.drain.running == 1
            proxy.drain.stop_all()
            message = await caller.receive()
        async with asyncio.timeout(PATIENCE):
            assert await upstream.closes.get() == 1001
        line = await the_line(proxy)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    assert line["outcome"] == "shutting_down"


async def test_a_message_over_the_limit_is_rejected_in_either_direction(run_proxy: RunProxy) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if (await socket.receive()).type is WSMsgType.TEXT:
            await socket.send_bytes(bytes(MESSAGE_BYTES_MAX + 1))
            await socket.receive()

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with connected(proxy) as caller:
            await caller.send_str("large, please")
            message = await caller.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
        await upstream.closes.get()
        async with connected(proxy) as caller:
            try:
                await caller.send_bytes(bytes(MESSAGE_BYTES_MAX + 1))
                await caller.receive()
            except ConnectionError:
                pass
        async with asyncio.timeout(PATIENCE):
            assert await upstream.closes.get() == 1009
        await until(lambda: len(proxy.exchanges) == 2)


BUFFERED_MIB_MAX = 256
"""Bytes that the kernel may hold on both hops: Linux lets the buffers of a socket grow to 36 MiB and more."""


async def test_a_caller_who_does_not_read_pauses_the_upstream(run_proxy: RunProxy) -> None:
    sent = 0

    async def script(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                await socket.send_bytes(bytes(1024 * 1024))
                sent += 1

    async with socket_upstream(script) as upstream, run_proxy(upstream.url) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.write(HANDSHAKE.format(path=MOUNTS[0], more=f"x-api-key: {KEY}\r\n").encode())
            before = -1
            while before != sent or not sent:  # until it does not change any more
                before = sent
                assert sent < BUFFERED_MIB_MAX
                for _ in range(2000):
                    await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await upstream.closes.get()

"""The service behind a real nginx with the shipped location file: nothing changes for callers."""

import asyncio
import hashlib
import json
import re
from pathlib import Path

import aiohttp
import pytest

from proxy.wire.endpoints import BARE_SEGMENTS, COHERE_RERANK
from tests.conftest import KEY, RunningGateway, RunProxy
from tests.documents import DOCUMENTS, fences, in_both_languages
from tests.loopback import until
from tests.nginx import LOCATIONS, SHIPPED_ADDRESS, caller_through, nginx_before, nginx_serving
from tests.raw_upstream import Conversation, raw_upstream, stream_from
from tests.socket_upstream import socket_upstream

MOUNTS = ["/v1", "/agent/api/llm_proxy/v1"]
PLAIN_SERVER = """
server {{
    listen unix:{home}/nginx.sock;
    location / {{ proxy_pass {proxy}; proxy_buffering off; {version} }}
}}
"""
MORE_KEYS = '[[access.keys]]\nname = "original"\nkey = "fake key"'


@pytest.mark.parametrize("mount", MOUNTS)
async def test_each_event_passes_nginx_before_the_next_one_is_sent(
    run_proxy: RunProxy, tmp_path: Path, mount: str
) -> None:
    go_on = asyncio.Queue[bytes]()
    async with (
        raw_upstream(stream_from(go_on)) as upstream,
        run_proxy(upstream.url) as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", f"{mount}/chat/completions", body=b"{}")
        for number in range(3):
            event = b"data: %d\n\n" % number
            go_on.put_nowait(event)
            if number == 0:
                answer = await caller.answer()
            assert await caller.chunk() == event
        go_on.put_nowait(b"data: [DONE]\n\n")
        go_on.put_nowait(b"")
        assert await caller.chunk() == b"data: [DONE]\n\n"
        assert await caller.chunk() == b""
    assert answer.status == 200
    assert answer.header("content-type") == ["text/event-stream"]


@pytest.mark.parametrize("name", in_both_languages("docs/status"))
async def test_the_status_page_passes_nginx(run_proxy: RunProxy, tmp_path: Path, name: str) -> None:
    (location,) = fences(DOCUMENTS[name], "nginx")
    key = "status-key-8f3a-5b20"
    form = ("Content-Type: application/x-www-form-urlencoded", "Origin: http://status.corp.example:8080")
    access = 'hosts = ["status.corp.example"]'
    async with (
        run_proxy("http://127.0.0.1:1", access=access, more=f'[status]\nkey = "{key}"') as proxy,
        nginx_before(
            proxy.url, tmp_path, edit=lambda text: text + location.replace(SHIPPED_ADDRESS, proxy.url)
        ) as nginx,
        caller_through(nginx) as caller,
    ):
        body = f"key={key}".encode()
        lines = ["POST /status/sign-in HTTP/1.1", "Host: status.corp.example:8080", *form]
        lines += [f"Content-Length: {len(body)}", "", ""]
        await caller.write("\r\n".join(lines).encode() + body)
        answer = await caller.answer()
        assert answer.status == 303
        cookie = answer.header("set-cookie")[0].partition(";")[0]
        await caller.body(answer)
        await caller.send("GET", "/status/events", f"Cookie: {cookie}", key=None)
        assert (await caller.answer()).status == 200
        read = b""
        while b'id="problems"' not in read:
            read += await caller.chunk()


@pytest.mark.parametrize("mount", MOUNTS)
async def test_a_websocket_passes_nginx(run_proxy: RunProxy, tmp_path: Path, mount: str) -> None:
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url) as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(nginx))) as session,
        session.ws_connect(f"ws://x{mount}/realtime", headers={"x-api-key": KEY}) as caller,
    ):
        await caller.send_str("hello")
        assert await caller.receive_str() == "hello"


async def test_a_default_key_is_rejected_through_nginx_and_a_real_one_is_not(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    async with (
        run_proxy(gateway.url, credential=gateway.credential, more=MORE_KEYS) as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("GET", "/v1/models", key="fake key")
        refused = await caller.answer()
        assert refused.status == 401
        assert json.loads(await caller.body(refused))["error"]["message"] == "Invalid API key"
        await caller.send("GET", "/v1/models")
        answer = await caller.answer()
        assert answer.status == 200
    assert answer.header("x-request-id") == [proxy.exchanges[-1]["request_id"]]  # the id that nginx generated


@pytest.mark.parametrize(
    "path", ["/chat/completions", f"/{COHERE_RERANK}", *(f"/{segment}" for segment in BARE_SEGMENTS)]
)
def test_every_path_without_v1_is_in_the_location(path: str) -> None:
    (pattern,) = re.findall(r'location ~ "(.*)" \{', LOCATIONS.read_text())
    assert re.match(pattern, path)
    assert re.match(pattern, path + "/x?y=z")
    assert not re.match(pattern, path + "x")
    assert not re.match(pattern, "/other" + path)


async def test_the_proxys_own_413_passes_nginx(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        run_proxy("http://127.0.0.1:9", more="[limits]\nmax_body_bytes = 1000") as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", "/embeddings", body=b"x" * 1001)
        answer = await caller.answer()
        assert answer.status == 413
        assert json.loads(await caller.body(answer))["error"]["code"] == "request_too_large"


async def test_a_large_upload_passes_nginx(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    body = bytes(range(256)) * 4096 * 20  # 20 MiB
    async with (
        run_proxy(gateway.url, credential=gateway.credential) as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", "/v1/echo", "Content-Type: application/octet-stream", body=body)
        answer = await caller.answer()
        seen = json.loads(await caller.body(answer))
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert not any((tmp_path / "body").iterdir())  # no request body is on nginx's disk


async def test_a_caller_who_leaves_nginx_closes_the_upstream(run_proxy: RunProxy, tmp_path: Path) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        nginx_before(proxy.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b"{}")
        await caller.answer()
        caller.leave()
        await until(lambda: upstream.connections == 0)
        await until(lambda: bool(proxy.exchanges))
    assert proxy.exchanges[-1]["outcome"] == "client_gone"


@pytest.mark.parametrize("version", ["", "proxy_http_version 1.1;"], ids=["default", "1.1"])
@pytest.mark.parametrize("begun", [False, True], ids=["before the response", "within a silent stream"])
async def test_a_caller_who_leaves_an_nginx_of_any_version_closes_the_upstream(
    run_proxy: RunProxy, tmp_path: Path, version: str, *, begun: bool
) -> None:
    """By default, nginx speaks HTTP/1.0 to the proxy."""

    async def script(talk: Conversation) -> None:
        if begun:
            await talk.start_stream()
            await talk.chunk(b"data: 1\n\n")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        nginx_serving(tmp_path, PLAIN_SERVER.format(home=tmp_path, proxy=proxy.url, version=version)),
        caller_through(tmp_path / "nginx.sock") as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b'{"stream": true}')
        if begun:
            await caller.answer()
        await until(lambda: upstream.connections == 1)
        caller.leave()
        await until(lambda: upstream.connections == 0)
        await until(lambda: bool(proxy.exchanges))
    assert proxy.exchanges[-1]["outcome"] == "client_gone"

"""nginx relays simple requests itself, with a token from the proxy: config/nginx/offload.conf."""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest
from structlog.typing import EventDict

from proxy.app import reload
from proxy.settings import load_settings
from proxy.wire.headers import NOT_FORWARDED, NOT_RETURNED, OPENAI_ACCOUNT
from tests.conftest import KEY, STATIC, RunningGateway, RunningProxy, RunProxy
from tests.loopback import until
from tests.nginx import caller_through, nginx_serving
from tests.pace import PATIENCE, paced
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, Script, raw_upstream, stream_from
from tests.tls_servers import listening, make_certificate
from tests.waiting import look_again

CONFIG = Path(__file__).parents[2] / "config/nginx"
DISK_IN_MEMORY = "/dev/shm"  # noqa: S108  a path in the file under test
CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
ASKED = "/internal/credential"
SECRET = "offload-secret-of-the-tests"
OFFLOAD = f'[offload]\nsecret = "{SECRET}"\nupstreams = ["chat", "embed"]\ncache_seconds = 60'
SHORT = OFFLOAD.replace("60", "2")
"""For tests that wait until nginx asks again."""


@asynccontextmanager
async def nginx_relaying(
    proxy: str, upstream: str, home: Path, edits: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Path]:
    """Run nginx with the shipped files, edited as their comments describe; yield its socket.

    Args:
        proxy: The address of the proxy.
        upstream: The address of the upstream.
        home: The folder of this nginx.
        edits: What else to replace in `offload.conf`.
    """
    http = (CONFIG / "offload-http.conf").read_text()
    server = (CONFIG / "offload.conf").read_text()
    block = "upstream corp { server llm.corp.example:443; keepalive 256; keepalive_timeout 4s; }"
    http_edits = {
        "replace-by-the-secret-in-offload": SECRET,
        "127.0.0.1:5002": urlsplit(proxy).netloc,
        block: "".join(
            block.replace("corp ", f"{name} ", 1).replace("llm.corp.example:443", urlsplit(upstream).netloc)
            for name in ("chat", "embed")
        ),
        DISK_IN_MEMORY: str(home),
    }
    for old, new in http_edits.items():
        assert old in http
        http = http.replace(old, new)
    assert "access_log /var/log/nginx/llm-token-proxy.log" in server
    server = server.replace("/var/log/nginx", str(home)).replace(DISK_IN_MEMORY, str(home))
    for old, new in edits.items():
        assert old in server
        server = server.replace(old, new)
    (home / "offload.conf").write_text(server)
    served = f"{http}\nserver {{ listen unix:{home}/nginx.sock; include {home}/offload.conf; }}"
    async with nginx_serving(home, served) as socket:
        yield socket


async def ask(
    caller: RawCaller, *headers: str, key: str = KEY, body: bytes = b"{}", path: str = CHAT
) -> tuple[RawAnswer, bytes]:
    """Send a request and read the whole response."""
    await caller.send("POST", path, JSON, *headers, key=key, body=body)
    answer = await caller.answer()
    return answer, await caller.body(answer)


def relayed(proxy: RunningProxy) -> list[EventDict]:
    """Return the exchanges that the proxy relayed instead of nginx."""
    return [line for line in proxy.exchanges if line["path"] != ASKED]


async def offload_log(home: Path, count: int) -> list[EventDict]:
    """Return the first lines that nginx logs of the requests that it relays."""
    log = home / "llm-token-proxy.log"
    await until(lambda: log.read_text().count("}\n") >= count)
    return [json.loads(line) for line in log.read_text().splitlines()]


COMPLETION = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'


def says(text: bytes = COMPLETION, *headers: str, status: str = "200 OK") -> Script:
    """Return an upstream that always sends the same response."""

    async def script(talk: Conversation) -> None:
        await talk.answer(text, JSON, *headers, status=status)

    return script


async def test_nginx_relays_with_the_token_and_asks_the_proxy_once(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        for number in range(5):
            body = b'{"number":%d}' % number
            answer, text = await ask(caller, body=body)
            assert (answer.status, text) == (200, COMPLETION)
            assert upstream.requests[-1].body == body
            assert upstream.requests[-1].header("authorization") == ["Bearer static-upstream-token"]
            assert upstream.requests[-1].target == b"/v1/chat/completions"
            assert upstream.requests[-1].header("x-request-id") == answer.header("x-request-id")
        assert upstream.accepted == 1
    assert relayed(proxy) == []
    assert len(proxy.exchanges) == 1
    assert "static-upstream-token" not in (tmp_path / "access.log").read_text()


async def test_nginx_logs_what_it_relays_with_the_fields_of_the_proxy(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
        raw_caller(proxy.url) as direct,
    ):
        answer, _ = await ask(caller)
        await ask(direct)
        (line,) = await offload_log(tmp_path, 1)
    (ours,) = relayed(proxy)
    assert line["request_id"] == answer.header("x-request-id")[0]
    assert set(line) - set(ours) == {"timestamp", "level"}
    for name in (
        "event",
        "method",
        "path",
        "status",
        "outcome",
        "bytes_down",
        "caller",
        "endpoint",
        "upstream",
    ):
        assert line[name] == ours[name], name
    assert 0 <= line["duration_ms"] < paced(10_000)


async def test_each_event_is_forwarded_before_the_next_one_is_sent(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    go_on = asyncio.Queue[bytes]()
    async with (
        raw_upstream(stream_from(go_on)) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream":true}')
        go_on.put_nowait(b"data: 0\n\n")
        answer = await caller.answer()
        assert await caller.chunk() == b"data: 0\n\n"
        go_on.put_nowait(b"data: [DONE]\n\n")
        assert await caller.chunk() == b"data: [DONE]\n\n"
        go_on.put_nowait(b"")
        assert await caller.chunk() == b""
        assert answer.header("cache-control") == ["no-store, no-cache, no-transform"]
        await caller.send("POST", CHAT, JSON, body=b'{"stream":true}')
        go_on.put_nowait(b"data: 0\n\n")
        await caller.answer()
        caller.leave()
        await until(lambda: upstream.connections <= 1)
    assert relayed(proxy) == []


async def test_an_unknown_key_gets_the_error_of_the_proxy(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await ask(caller)
        answer, text = await ask(caller, key="wrong-key")
        assert (answer.status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
        answer, _ = await ask(caller, "X-Api-Key: other", key=KEY)
        assert answer.status == 401
    assert len(upstream.requests) == 1


async def test_a_revoked_token_is_replaced_behind_nginx(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).encode()
    async with (
        run_proxy(gateway.url, credential=gateway.credential, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, gateway.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        for expected in (0, 1):
            answer, _ = await ask(caller, body=body)
            assert answer.status == 200
            assert len(relayed(proxy)) == expected
            gateway.gateway.tokens.revoke_all()


async def test_a_removed_key_is_rejected_within_the_cache_time(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=SHORT) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller)
        assert answer.status == 200
        text = (tmp_path / "proxy.toml").read_text().replace(KEY, "sk-another-key-of-the-tests")
        (tmp_path / "proxy.toml").write_text(text)
        await reload(proxy.app, load_settings(tmp_path / "proxy.toml", {}))
        async with asyncio.timeout(paced(4)):
            while answer.status != 401:
                answer, _ = await ask(caller)
                await look_again()


async def test_the_cached_response_is_used_while_the_proxy_is_unavailable(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    async with AsyncExitStack() as running, AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(raw_upstream(says()))
        proxy = await running.enter_async_context(run_proxy(upstream.url, more=SHORT))
        nginx = await stack.enter_async_context(nginx_relaying(proxy.url, upstream.url, tmp_path))
        caller = await stack.enter_async_context(caller_through(nginx))
        await ask(caller)
        await running.aclose()
        async with asyncio.timeout(PATIENCE):
            while "connect() failed" not in (tmp_path / "error.log").read_text():  # nginx has to ask again
                answer, _ = await ask(caller)
                assert answer.status == 200
                await look_again()
        answer, _ = await ask(caller)
        assert answer.status == 200
        answer, text = await ask(caller, path="/v1/embeddings")
        assert (answer.status, json.loads(text)["error"]["code"]) == (503, "shutting_down")
        assert answer.header("retry-after") == ["1"]


@pytest.mark.parametrize(
    "status",
    [
        "302 Found",
        "400 Bad Request",
        "407 Proxy Authentication Required",
        "429 Too Many Requests",
        "498 Invalid Token",
        "500 Oops",
        "502 Bad Gateway",
        "529 Overloaded",
        "599 Oops",
    ],
)
async def test_the_proxy_relays_the_errors_of_the_upstream(
    run_proxy: RunProxy, tmp_path: Path, status: str
) -> None:
    error = b'{"error":{"message":"for static-upstream-token"}}'
    async with (
        raw_upstream(says(error, "Location: http://127.0.0.1/internal", status=status)) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, text = await ask(caller)
    assert len(upstream.requests) == 2
    assert upstream.requests[0].body == upstream.requests[1].body
    assert len(relayed(proxy)) == 1
    assert b"static-upstream-token" not in text
    assert answer.header("location") == []
    assert answer.status == (502 if status.startswith("302") else int(status[:3]))


@pytest.mark.parametrize("status", ["408 Request Timeout", "444 No Response", "504 Gateway Timeout"])
async def test_errors_that_nginx_cannot_hand_over_reach_no_caller(
    run_proxy: RunProxy, tmp_path: Path, status: str
) -> None:
    async with (
        raw_upstream(says(b"for static-upstream-token", status=status)) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await caller.send("POST", CHAT, JSON, "Connection: close", body=b"{}")
        received = await caller.closed()
        (line,) = await offload_log(tmp_path, 1)
    assert (len(upstream.requests), relayed(proxy)) == (1, [])
    assert line["status"] == int(status[:3])
    if status.startswith("504"):
        assert line["outcome"] == "upstream_timeout"
        assert received.startswith(b"HTTP/1.1 504 ")
        assert b'"code":"upstream_timeout"' in received
        assert b"static-upstream-token" not in received
    else:
        assert received == b""


async def break_after(sent: bytes, talk: Conversation) -> None:
    """Reset the connection after these bytes of a response."""
    await talk.say(sent)
    talk.reset()


@pytest.mark.parametrize("sent", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX\0: 1\r\n\r\n", id="a malformed head"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX-Large: %b\r\n\r\n" % (b"x" * 100_000), id="an endless head"),
])  # fmt: skip
async def test_a_request_that_the_upstream_may_have_received_is_not_sent_twice(
    run_proxy: RunProxy, tmp_path: Path, sent: bytes
) -> None:
    async with (
        raw_upstream(partial(break_after, sent)) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        for number in (1, 2):
            answer, text = await ask(caller)
            assert (answer.status, json.loads(text)["error"]["code"]) == (502, "upstream_bad_response")
            assert len(upstream.requests) == number
        (line, _) = await offload_log(tmp_path, 2)
    assert (line["outcome"], line["upstream"]) == ("upstream_bad_response", "chat")
    assert line["caller"] == "tester"
    assert relayed(proxy) == []


async def test_a_request_on_a_connection_that_just_closed_is_not_sent_twice(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    async def answer_once_on_each_connection(talk: Conversation) -> None:
        if len(upstream.requests) > 1:
            talk.reset()
        else:
            await talk.answer(COMPLETION, JSON)

    async with (
        raw_upstream(answer_once_on_each_connection) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        assert [(await ask(caller))[0].status for _ in range(2)] == [200, 502]
        assert (upstream.accepted, len(upstream.requests)) == (1, 2)
    assert relayed(proxy) == []


async def test_the_proxy_takes_over_if_nginx_reaches_no_upstream(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, "http://127.0.0.1:9", tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller)
    assert (answer.status, len(relayed(proxy)), len(upstream.requests)) == (200, 1, 1)


async def test_response_headers_of_sixteen_kilobytes_are_relayed(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with (
        raw_upstream(says(COMPLETION, f"X-Large: {'x' * 15_000}")) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller)
    assert (answer.status, relayed(proxy)) == (200, [])


async def test_a_token_that_an_unusual_status_rejects_is_replaced(
    run_proxy: RunProxy, gateway: RunningGateway, tmp_path: Path
) -> None:
    rejected = set[str]()

    async def reject_the_first_token(talk: Conversation) -> None:
        (token,) = talk.request.header("authorization")
        if not rejected or token in rejected:
            rejected.add(token)
            await talk.answer(b"{}", JSON, status="498 Invalid Token")
        else:
            await talk.answer(COMPLETION, JSON)

    credential = gateway.credential + "\ninvalidate_on = [{ status = 498 }]"
    async with (
        raw_upstream(reject_the_first_token) as upstream,
        run_proxy(upstream.url, credential=credential, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller)
    assert (answer.status, len(relayed(proxy))) == (200, 1)


async def test_a_large_body_is_relayed_and_stays_in_memory(run_proxy: RunProxy, tmp_path: Path) -> None:
    body = json.dumps({"input": "x" * 5_000_000}).encode()
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller, body=body, path="/v1/embeddings")
        assert answer.status == 200
        assert hashlib.sha256(upstream.requests[0].body).digest() == hashlib.sha256(body).digest()
        assert not any((tmp_path / "llm-token-proxy-bodies").iterdir())
    assert relayed(proxy) == []


UNTESTABLE = {
    *(b"connection", b"transfer-encoding", b"upgrade", b"host", b"content-length", b"expect"),
    *(b"authorization", b"api-key", b"x-api-key", b"origin"),
}
"""Headers that change the request itself, or who relays it."""
BY_PREFIX = {
    "browsers": "access-control-request-headers access-control-request-method",
    "private networks": "access-control-request-private-network access-control-request-external",
    "RFC 9209, Windows": "proxy-status proxy-features proxy-instruction",
    "load balancers": (
        "x-forwarded-by x-forwarded-for x-forwarded-host x-forwarded-method x-forwarded-path x-forwarded-port"
        " x-forwarded-prefix x-forwarded-proto x-forwarded-proto-version x-forwarded-protocol"
        " x-forwarded-scheme x-forwarded-server x-forwarded-ssl x-forwarded-uri x-forwarded-url"
    ),
    "oauth2-proxy": (
        "x-forwarded-access-token x-forwarded-email x-forwarded-groups x-forwarded-preferred-username"
        " x-forwarded-user"
    ),
    "Envoy, Traefik": (
        "x-forwarded-client-cert x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info"
    ),
    "ingress-nginx": (
        "x-original-forwarded-for x-original-forwarded-host x-original-forwarded-proto x-original-method"
        " x-original-remote-addr x-original-uri x-original-url"
    ),
    "ASP.NET Core, Azure": (
        "x-original-for x-original-host x-original-path x-original-prefix x-original-proto"
    ),
}
"""Request headers that the proxy removes by the beginnings of their names, and who uses them."""
REQUEST_HEADERS = sorted(
    {name.decode() for name in (NOT_FORWARDED | OPENAI_ACCOUNT) - UNTESTABLE}
    | {name for names in BY_PREFIX.values() for name in names.split()}
    | {"accept", "idempotency-key", "openai-beta", "traceparent", "user-agent", "via", "x-stainless-lang"}
)
RESPONSE_HEADERS = sorted(
    {name.decode() for name in NOT_RETURNED - {b"connection", b"transfer-encoding"}}
    | {f"access-control-allow-{name}" for name in ("credentials", "external", "headers", "methods", "origin")}
    | {"access-control-allow-private-network", "access-control-expose-headers", "access-control-max-age"}
    | {f"x-accel-{name}" for name in ("buffering", "charset", "expires", "limit-rate", "redirect")}
    | {"openai-model", "retry-after", "x-ratelimit-remaining-requests"}
)
DIFFERING = frozenset(
    {"host", "connection", "x-request-id", "content-length", "date", "server", "transfer-encoding"}
)


async def test_headers_are_those_that_the_proxy_would_write(run_proxy: RunProxy, tmp_path: Path) -> None:
    """Compare a request and its response through nginx alone with those through the proxy."""
    sent = [f"{name}: 1" for name in sorted(REQUEST_HEADERS)]
    returned = [f"{name}: 1" for name in sorted(RESPONSE_HEADERS)]
    seen: list[tuple[set[str], set[tuple[str, str]]]] = []
    async with (
        raw_upstream(says(b"{}", *returned)) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
    ):
        for connect in (caller_through(nginx), raw_caller(proxy.url)):
            async with connect as caller:
                answer, _ = await ask(caller, *sent)
            lines = upstream.requests[-1].head.decode("latin-1").lower().split("\r\n")[1:-2]
            pairs = {(name.lower(), value) for name, value in answer.headers}
            seen.append(
                (
                    {line for line in lines if line.partition(":")[0] not in DIFFERING},
                    {(name, value) for name, value in pairs if name not in DIFFERING},
                )
            )
    assert len(relayed(proxy)) == 1
    assert seen[0] == seen[1]


@pytest.mark.parametrize("options", [
    pytest.param({"access": 'mode = "open"'}, id="open"),
    pytest.param({"options": 'repairs = ["ragflow"]'}, id="repairs"),
    pytest.param({"options": "heartbeat = 5"}, id="heartbeat"),
    pytest.param({"options": 'renames = { a = "b" }'}, id="renames"),
    pytest.param({"options": 'headers = { x-team = "a" }'}, id="headers"),
    pytest.param({"options": 'fallback = "embed"'}, id="fallback"),
    pytest.param({"options": "retries = { attempts = 1 }"}, id="retries"),
    pytest.param({"options": "timeouts = { total = 600 }"}, id="total timeout"),
    pytest.param({"credential": STATIC + 'inject = { query = "key" }'}, id="query"),
    pytest.param({"credential": STATIC + 'inject = { header = "x-other" }'}, id="header"),
    pytest.param({"more": f"{OFFLOAD}\n[logs]\nbodies = true"}, id="bodies"),
    pytest.param({"more": OFFLOAD.replace('"chat", ', "")}, id="other upstream"),
    pytest.param({"more": ""}, id="no offload"),
])  # fmt: skip
async def test_the_proxy_relays_what_it_has_to_change_or_count(
    run_proxy: RunProxy, tmp_path: Path, options: dict[str, str]
) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, **{"more": OFFLOAD, **options}) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        for _ in range(2):
            answer, _ = await ask(caller)
            assert answer.status == 200
    assert len(relayed(proxy)) == 2
    assert len(proxy.exchanges) == (3 if "more" not in options or options["more"] else 4)  # nginx asked once


@pytest.mark.parametrize(
    "limit", ['models = ["m*"]', 'rate = "9/minute"', 'tokens = "9/day"', "max_streams = 3", "heartbeat = 5"]
)
async def test_the_proxy_relays_for_keys_with_limits(run_proxy: RunProxy, tmp_path: Path, limit: str) -> None:
    more = f'[[access.keys]]\nname = "limited"\nkey = "sk-of-a-limited-key"\n{limit}\n{OFFLOAD}'
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        answer, _ = await ask(caller, key="sk-of-a-limited-key", body=b'{"model":"m1"}')
        assert answer.status == 200
    assert [line["caller"] for line in relayed(proxy)] == ["limited"]


@pytest.mark.parametrize(
    "target",
    [
        "/v1/./chat/completions",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions?x=1",
        "/v1/responses",
        "/v1/models",
    ],
)
async def test_the_proxy_answers_every_other_path(run_proxy: RunProxy, tmp_path: Path, target: str) -> None:
    async with (
        raw_upstream(says()) as upstream,
        run_proxy(upstream.url, more=OFFLOAD) as proxy,
        nginx_relaying(proxy.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as caller,
    ):
        await ask(caller, path=target)
        await until(lambda: bool(relayed(proxy)) or not upstream.requests)
    assert len(upstream.requests) == sum(line["status"] == 200 for line in relayed(proxy))


async def test_requests_that_arrive_together_wait_only_a_moment_for_the_first_answer(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    took = []
    for timeout in ("50ms", "2s"):  # with the second one, nginx looks again after half a second
        (home := tmp_path / timeout).mkdir()
        edits = {"proxy_cache_lock_timeout 50ms": f"proxy_cache_lock_timeout {timeout}"}
        async with (
            raw_upstream(says()) as upstream,
            run_proxy(upstream.url, more=OFFLOAD) as proxy,
            nginx_relaying(proxy.url, upstream.url, home, edits) as nginx,
            AsyncExitStack() as stack,
        ):
            callers = [await stack.enter_async_context(caller_through(nginx)) for _ in range(20)]
            began = time.monotonic()
            answers = await asyncio.gather(*map(ask, callers))
            took.append(time.monotonic() - began)
            assert {answer.status for answer, _ in answers} == {200}
        assert relayed(proxy) == []
    assert took[0] < took[1]


async def test_while_one_request_asks_for_the_next_answer_the_others_use_the_last(tmp_path: Path) -> None:
    asked_again, go_on = asyncio.Event(), asyncio.Event()

    async def answer_as_the_proxy(talk: Conversation) -> None:
        if len(asked.requests) > 1:
            asked_again.set()
            await go_on.wait()
        lifetime = f"max-age=1, stale-while-revalidate={math.ceil(PATIENCE)}"
        headers = (f"Cache-Control: {lifetime}", f"Url-Offload: http://chat{CHAT}", "Upstream-Offload: chat")
        await talk.answer(b"", *headers)

    async def ask_until_it_takes_long(caller: RawCaller) -> None:
        while not asked_again.is_set():
            await ask(caller)
            await look_again()

    async with (
        raw_upstream(says()) as upstream,
        raw_upstream(answer_as_the_proxy) as asked,
        nginx_relaying(asked.url, upstream.url, tmp_path) as nginx,
        caller_through(nginx) as first,
        AsyncExitStack() as stack,
        asyncio.timeout(PATIENCE),
        asyncio.TaskGroup() as group,
    ):
        others = [await stack.enter_async_context(caller_through(nginx)) for _ in range(10)]
        group.create_task(ask_until_it_takes_long(first))
        await asked_again.wait()
        answers = await asyncio.gather(*map(ask, others))
        go_on.set()
    assert {(answer.status, text) for answer, text in answers} == {(200, COMPLETION)}
    assert len(asked.requests) == 2


async def test_nginx_checks_the_certificate_of_the_upstream(run_proxy: RunProxy, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    trusting = {"/etc/ssl/certs/ca-certificates.crt": str(certificate)}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"host: localhost:{port}\r\n".encode() in head.lower()
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with listening(serve, certificate=certificate) as port:
        async with (
            run_proxy(f"https://localhost:{port}", more=OFFLOAD) as proxy,
            nginx_relaying(proxy.url, f"https://127.0.0.1:{port}", tmp_path, trusting) as nginx,
            caller_through(nginx) as caller,
        ):
            answer, text = await ask(caller)
        assert (answer.status, text, relayed(proxy)) == (200, b"{}", [])
        (other := tmp_path / "other").mkdir()
        async with (
            run_proxy(f"https://127.0.0.1:{port}", more=OFFLOAD) as proxy,
            nginx_relaying(proxy.url, f"https://127.0.0.1:{port}", other, trusting) as nginx,
            caller_through(nginx) as caller,
        ):
            await ask(caller)
        assert len(relayed(proxy)) == 1  # the certificate is for another name

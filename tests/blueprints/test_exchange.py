"""Requests that the proxy rejects before it contacts the upstream, and the errors that the caller gets."""

import asyncio
import contextlib
import gzip
import io
import json
from pathlib import Path

import aiohttp
import pytest

from proxy.app import create_app
from proxy.settings import load_settings
from proxy.wire.request_json import MODEL_CHARACTERS_MAX
from tests.conftest import KEY, SETTINGS, STATIC, RunProxy
from tests.loopback import serve_on_loopback, until
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
SMALL_LIMIT = "[limits]\nmax_body_bytes = 1000"


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


async def code_of(caller: RawCaller, answer: RawAnswer) -> str:
    """Return the code in the envelope."""
    assert answer.header("content-type") == ["application/json"]
    error = json.loads(await caller.body(answer))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/chat", 404, "not_found"),
        ("TRACE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("GET", "/v1//models", 400, "invalid_request"),
        ("GET", "/v1/models/", 400, "invalid_request"),
        ("GET", "/v1/../readyz", 400, "invalid_request"),
        ("GET", "/v1/%2e%2e/readyz", 400, "invalid_request"),
        ("GET", "//v1/models", 400, "invalid_request"),
        ("GET", "http://other.test/v1/models", 400, "invalid_request"),
    ],
)
async def test_malformed_and_unknown_targets(
    run_proxy: RunProxy, method: str, target: str, status: int, code: str
) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(method, target)
        answer = await caller.answer()
        assert answer.status == status
        assert await code_of(caller, answer) == code
    assert upstream.requests == []


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b'{"a": NaN}', b"{", b"[" * 200_000, b'{"a": "\\ud800"}'])
async def test_invalid_json_is_400_and_is_not_forwarded(run_proxy: RunProxy, body: bytes) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=body)
        answer = await caller.answer()
        assert answer.status == 400
        assert await code_of(caller, answer) == "invalid_request"
    assert upstream.requests == []


def form(model: str) -> bytes:
    """Return a form with a model."""
    return f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--b--\r\n'.encode()


@pytest.mark.parametrize("key", ["", 'models = ["*a*", "m"]'], ids=["any key", "a key limited to models"])
@pytest.mark.parametrize("place", ["json", "form", "path"])
async def test_a_model_with_a_long_name_is_400_wherever_it_is_named(
    run_proxy: RunProxy, place: str, key: str
) -> None:
    """Its name is compared with patterns on the event loop."""
    key = f'[[access.keys]]\nname = "other"\nkey = "sk-other-5d21"\n{key}'
    route = '[[routes.models]]\nmatch = "*a*"\nupstream = "embed"'
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=f"{key}\n{route}") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for length, status in ((MODEL_CHARACTERS_MAX, 200), (MODEL_CHARACTERS_MAX + 1, 400)):
            model = "a" * length
            method, target, header, body = {
                "json": ("POST", CHAT, JSON, json.dumps({"model": model}).encode()),
                "form": ("POST", "/v1/audio/transcriptions", FORM, form(model)),
                "path": ("GET", f"/v1/models/{model}", JSON, b""),
            }[place]
            await caller.send(method, target, header, body=body, key="sk-other-5d21")
            answer = await caller.answer()
            told = await caller.body(answer)
            assert (answer.status, b"more than 1000 characters" in told) == (status, status == 400)
        await until(lambda: len(proxy.exchanges) == 2)
    assert len(upstream.requests) == 1
    assert "a" * (MODEL_CHARACTERS_MAX + 1) not in repr(proxy.exchanges[1].get("model"))


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
async def test_a_compressed_json_body_is_relayed_unread(run_proxy: RunProxy, content_type: str) -> None:
    body = gzip.compress(b'{"model": "m", "stream": true}')
    headers = (f"Content-Type: {content_type}", "Content-Encoding: gzip")
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, *headers, body=body)
        assert (await caller.answer()).status == 200
    assert [request.body for request in upstream.requests] == [body]


ROUTE = '[[routes.models]]\nmatch = "m"\nupstream = "embed"'
BUDGET = 'tokens = "9/day"'
COMPRESSED = "Content-Encoding: gzip"


@pytest.mark.parametrize(
    ("options", "key", "more", "headers"),
    [
        ("", BUDGET, "", (JSON, COMPRESSED)),
        ("", BUDGET, "", ("Content-Type: text/plain", COMPRESSED)),
        ("", BUDGET, "", (JSON, "Content-Encoding: identity", COMPRESSED)),
        ("", BUDGET, "", ("Content-Type: text/plain", "Content_Encoding: gzip")),
        ("", 'repairs = ["ragflow"]', "", (JSON, COMPRESSED)),
        ('repairs = ["ragflow"]', "", "", (JSON, COMPRESSED)),
        ('renames = {m = "n"}', "", "", (JSON, COMPRESSED)),
        ('fallback = "embed"', "", '[upstreams.embed.renames]\nm = "n"', (JSON, COMPRESSED)),
        ("", "", ROUTE, (JSON, COMPRESSED)),
        ("", "", ROUTE, ("Content-Type: multipart/form-data; boundary=b", COMPRESSED)),
    ],
)
async def test_a_compressed_body_that_has_to_be_read_is_400(
    run_proxy: RunProxy, options: str, key: str, more: str, headers: tuple[str, ...]
) -> None:
    more = f'{more}\n[[access.keys]]\nname = "other"\nkey = "sk-other-5d21"\n{key}'
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, options=options, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for body in (gzip.compress(b'{"model": "m"}'), b""):
            await caller.send("POST", CHAT, *headers, body=body, key="sk-other-5d21")
            answer = await caller.answer()
            told = await caller.body(answer)
            assert (b"Content-Encoding" in told, answer.status == 400) == (bool(body), bool(body))
    assert [request.body for request in upstream.requests] == [b""]


async def test_a_compressed_body_of_a_request_that_costs_nothing_is_relayed(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(
            upstream.url, more=f'[[access.keys]]\nname = "other"\nkey = "sk-other-5d21"\n{BUDGET}'
        ) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        headers = ("Content-Type: application/octet-stream", COMPRESSED)
        await caller.send("POST", "/v1/files", *headers, body=gzip.compress(b"a"), key="sk-other-5d21")
        assert (await caller.answer()).status == 200


async def test_an_announced_body_over_the_limit_is_413(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=SMALL_LIMIT) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b" " * 1001)
        answer = await caller.answer()
        assert answer.status == 413
        assert await code_of(caller, answer) == "request_too_large"
    assert upstream.requests == []


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
async def test_a_streamed_body_over_the_limit_is_413(run_proxy: RunProxy, content_type: str) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=SMALL_LIMIT + "\nheld_body_bytes = 100") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.write(
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(6):
            await caller.write(b"c8\r\n" + b" " * 200 + b"\r\n")
        answer = await caller.answer()
        assert answer.status == 413
        assert await code_of(caller, answer) == "request_too_large"


async def test_a_body_that_never_arrives_is_408(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more="[limits]\nbody_timeout = 0.2") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{JSON}\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        answer = await caller.answer()
        assert answer.status == 408
        assert await code_of(caller, answer) == "request_timeout"
    assert upstream.requests == []


async def test_two_framings_are_400_and_the_connection_closes(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 4\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        answer = await caller.answer()
        assert answer.status == 400
        await caller.body(answer)
        assert await caller.closed() == b""
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([f"Authorization: Bearer {KEY}"], 200),
        ([f"authorization: bearer {KEY}"], 200),
        ([f"x-api-key: {KEY}"], 200),
        ([f"api-key: {KEY}"], 200),
        ([f"Authorization: Bearer {KEY}", f"x-api-key: {KEY}"], 200),
        ([f"Authorization: Bearer {KEY}", "x-api-key: other"], 401),
        ([f"Authorization: Bearer {KEY}", "Authorization: Bearer other"], 401),
        ([f"Authorization: Basic {KEY}"], 401),
        (["Authorization: Bearer "], 401),
        (["x-api-key:"], 401),
        ([], 401),
    ],
)
async def test_a_key_is_accepted_in_any_of_its_headers(
    run_proxy: RunProxy, headers: list[str], status: int
) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models", *headers, key=None)
        answer = await caller.answer()
        assert answer.status == status
        if status == 401:
            assert json.loads(await caller.body(answer))["error"]["message"] == "Invalid API key"
            assert answer.header("www-authenticate") == ["Bearer"]
    assert len(upstream.requests) == (status == 200)


@pytest.mark.parametrize("key", ["sk-local", "fake key"])
@pytest.mark.parametrize(
    "forwarding", [None, "X-Forwarded-For: 127.0.0.1", "Forwarded: for=x", "X-Real-IP: 1"]
)
async def test_default_keys_are_accepted_only_from_direct_callers(
    tmp_path: Path, key: str, forwarding: str | None
) -> None:
    async with raw_upstream(ok) as upstream:
        path = tmp_path / "proxy.toml"
        path.write_text(
            SETTINGS.format(key=key, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        async with serve_on_loopback(create_app(load_settings(path, {}))) as url, raw_caller(url) as caller:
            await caller.send("GET", "/v1/models", *([forwarding] if forwarding else []), key=key)
            assert (await caller.answer()).status == (401 if forwarding else 200)


async def test_probes_need_no_key(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for probe in ("/livez", "/readyz", "/healthz"):
            await caller.send("GET", probe, key=None)
            answer = await caller.answer()
            assert (answer.status, await caller.body(answer)) == (200, b"ok\n")
        proxy.drain.started = True
        await caller.send("GET", "/readyz", key=None)
        assert (await caller.answer()).status == 503


async def test_readiness_follows_the_default_credential(run_proxy: RunProxy) -> None:
    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"{}", status="500 No")

    async with raw_upstream(refuse) as issuer:
        credential = f'source = "http"\nurl = "{issuer.url}/token"\ntoken = "token"'
        async with run_proxy(issuer.url, credential=credential) as proxy, raw_caller(proxy.url) as caller:
            await until(lambda: not proxy.services.credentials["corp"].source.healthy)
            await caller.send("GET", "/readyz", key=None)
            assert (await caller.answer()).status == 503


async def test_an_upload_rejected_early_still_gets_its_response(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        aiohttp.ClientSession(headers={"Authorization": "Bearer wrong"}) as session,
    ):
        for _ in range(3):
            async with session.post(f"{proxy.url}/v1/files", data=io.BytesIO(b"x" * 8_000_000)) as answer:
                assert answer.status == 401


async def test_open_mode_requires_no_key(tmp_path: Path) -> None:
    async with raw_upstream(ok) as upstream:
        path = tmp_path / "proxy.toml"
        text = SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        path.write_text(text.replace("[access]", '[access]\nmode = "open"'))
        async with serve_on_loopback(create_app(load_settings(path, {}))) as url, raw_caller(url) as caller:
            await caller.send("GET", "/v1/models", "X-Forwarded-For: 10.0.0.1", key=None)
            assert (await caller.answer()).status == 200


async def test_a_pipelined_request_waits_its_turn(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        request = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
        await caller.write(request * 3)
        for _ in range(3):
            answer = await caller.answer()
            assert await caller.body(answer) == b"{}"
    assert len(upstream.requests) == 3


async def test_many_callers_never_get_each_others_responses(run_proxy: RunProxy) -> None:
    async def echo(talk: Conversation) -> None:
        await asyncio.sleep(0)
        await talk.answer(talk.request.body)

    async with (
        raw_upstream(echo) as upstream,
        run_proxy(upstream.url) as proxy,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
    ):

        async def ask(number: int) -> None:
            request = session.post(f"{proxy.url}/v1/echo", data=b"nonce-%d" % number)
            if number % 3 == 0:  # a third of them leave at some point
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(number / 30_000), request:
                        pass
                return
            async with request as response:
                assert await response.read() == b"nonce-%d" % number

        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(ask(number))

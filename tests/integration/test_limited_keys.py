"""Keys that are limited to models and endpoints: no other request reaches the upstream."""

import asyncio
import gzip
import json

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.conftest import KEY, RunProxy
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, Script, raw_upstream
from tests.socket_upstream import socket_upstream

LIMITED_KEY = "sk-limited-5d21-90ab"
LIMITED = f"""
[[access.keys]]
name = "limited"
key = "{LIMITED_KEY}"
models = ["cheap*"]
"""
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
DEAR = b'{"model": "dear"}'
CHEAP = b'{"model": "cheap"}'


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    body = b"" if talk.request.head.startswith(b"HEAD") else b"{}"
    await talk.answer(body, JSON)


async def asked(caller: RawCaller, *request: str, body: bytes = b"", key: str = LIMITED_KEY) -> RawAnswer:
    """Send a request; return the head of the response, with the code of an error as a header."""
    await caller.send(*request, body=body, key=key)
    answer = await caller.answer()
    told = await caller.body(answer)
    error = json.loads(told)["error"] if answer.status >= 400 else {"code": "", "message": ""}
    answer.headers.extend([("code", str(error["code"])), ("message", str(error["message"]))])
    return answer


EVASIONS: dict[str, tuple[tuple[str, ...], bytes]] = {
    "JSON labelled as a form": (("POST", "/v1/chat/completions", FORM), DEAR),
    "JSON labelled as text": (("POST", "/v1/chat/completions", "Content-Type: text/plain"), DEAR),
    "JSON without a label": (("POST", "/v1/chat/completions"), DEAR),
    "JSON labelled as bytes": (
        ("POST", "/v1/chat/completions", "Content-Type: application/octet-stream"),
        DEAR,
    ),
    "two types": (("POST", "/v1/chat/completions", FORM, JSON), DEAR),
    "two types in one": (
        ("POST", "/v1/chat/completions", "Content-Type: multipart/form-data, application/json"),
        DEAR,
    ),
    "gzip labelled as a form": (
        ("POST", "/v1/chat/completions", FORM, "Content-Encoding: gzip"),
        gzip.compress(DEAR),
    ),
    "another case": (("POST", "/v1/chat/completions", JSON), b'{"model": "cheap", "Model": "dear"}'),
    "twice": (("POST", "/v1/chat/completions", JSON), b'{"model": "cheap", "model": "dear"}'),
    "with an escape": (("POST", "/v1/chat/completions", JSON), b'{"model": "cheap", "mod\\u0065l": "dear"}'),
    "an escape alone": (("POST", "/v1/chat/completions", JSON), b'{"mod\\u0065l": "dear"}'),
    "models": (("POST", "/v1/chat/completions", JSON), b'{"model": "cheap", "models": ["dear"]}'),
    "in the query": (("POST", "/v1/chat/completions?model=dear", JSON), CHEAP),
    "in a header": (("POST", "/v1/chat/completions", JSON, "X-Model: dear"), CHEAP),
    "in a tool": (("POST", "/v1/responses", JSON), b'{"model": "cheap", "tools": [{"model": "dear"}]}'),
    "a name that some servers cut": (
        ("POST", "/v1/chat/completions", JSON),
        b'{"model": "cheap\\u0000dear"}',
    ),
    "a type with an underscore": (("POST", "/v1/chat/completions", JSON, f"Content_{FORM[8:]}"), CHEAP),
    "a coding with an underscore": (("POST", "/v1/chat/completions", JSON, "Content_Encoding: gzip"), CHEAP),
    "a prompt that names it": (("POST", "/v1/responses", JSON), b'{"prompt": {"id": "p"}}'),
    "a path": (("GET", "/v1/models/dear"), b""),
    "an encoded path": (("GET", "/v1/models/d%65ar"), b""),
    "a path with parameters": (("GET", "/v1/models/cheap;x"), b""),
    "generateContent": (("POST", "/v1/models/dear:generateContent", JSON), CHEAP),
    "generateContent of an allowed one": (("POST", "/v1/models/cheap:generateContent", JSON), CHEAP),
    "engines": (("POST", "/v1/engines/dear/completions", JSON), CHEAP),
    "deployments": (("POST", "/v1/deployments/dear/chat/completions", JSON), CHEAP),
    "openai's deployments": (("POST", "/v1/openai/deployments/dear/chat/completions", JSON), CHEAP),
    "batches": (("POST", "/v1/batches", JSON), b'{"input_file_id": "f"}'),
    "runs": (("POST", "/v1/threads/runs", JSON), CHEAP),
    "assistants": (("POST", "/v1/assistants", JSON), CHEAP),
    "evals": (("POST", "/v1/evals", JSON), CHEAP),
    "fine tuning": (("POST", "/v1/fine_tuning/jobs", JSON), CHEAP),
    "a secret of a client": (
        ("POST", "/v1/realtime/client_secrets", JSON),
        b'{"session": {"model": "dear"}}',
    ),
    "agents": (("POST", "/agents", JSON), CHEAP),
    "an unknown path": (("POST", "/v1/some/new/api", JSON), CHEAP),
    "another method": (("PUT", "/v1/chat/completions", JSON), CHEAP),
    "a method in a header": (
        ("GET", "/v1/chat/completions", JSON, "X-HTTP-Method-Override: POST"),
        DEAR,
    ),
    "a doubled version": (("POST", "/v1/v1/v1/batches", JSON), CHEAP),
    "another case of a path": (("POST", "/v1/Batches", JSON), CHEAP),
    "an encoded path to batches": (("POST", "/v1/b%61tches", JSON), CHEAP),
    "organization": (("POST", "/v1/organization/admin_api_keys", JSON), b"{}"),
}


@pytest.mark.parametrize("name", EVASIONS)
async def test_a_limited_key_reaches_no_other_model(run_proxy: RunProxy, name: str) -> None:
    request, body = EVASIONS[name]
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await asked(caller, *request, body=body)
    assert answer.status == 403
    assert answer.header("code") in (["model_forbidden"], ["endpoint_forbidden"])
    assert answer.header("message")[0].startswith("this key ")
    assert upstream.requests == []


PLAIN: dict[str, tuple[tuple[str, ...], bytes]] = {
    "chat": (("POST", "/v1/chat/completions", JSON), CHEAP),
    "chat at the original's mount": (("POST", "/agent/api/llm_proxy/v1/chat/completions", JSON), CHEAP),
    "chat with a charset": (
        ("POST", "/chat/completions", "Content-Type: application/json; charset=utf-8"),
        CHEAP,
    ),
    "embeddings": (("POST", "/v1/embeddings", JSON), CHEAP),
    "rerank": (("POST", "/v2/rerank", JSON), CHEAP),
    "responses": (("POST", "/v1/responses", JSON), CHEAP),
    "a stored response": (("GET", "/v1/responses/r-1"), b""),
    "models": (("GET", "/v1/models"), b""),
    "a model": (("GET", "/v1/models/cheap-1"), b""),
    "files": (("POST", "/v1/files", FORM), b"--b--\r\n"),
    "a transcription": (
        ("POST", "/v1/audio/transcriptions", FORM),
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        + b"x" * (3 << 20)
        + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ncheap\r\n--b--\r\n',
    ),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_requests_of_a_limited_key_pass_byte_for_byte(run_proxy: RunProxy, name: str) -> None:
    request, body = PLAIN[name]
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert (await asked(caller, *request, body=body)).status == 200
    (sent,) = upstream.requests
    assert sent.body == body


@pytest.mark.parametrize(
    ("request_lines", "body"),
    [
        (("POST", "/v1/chat/completions", JSON, FORM), CHEAP),
        (("POST", "/v1/chat/completions", JSON, JSON), CHEAP),
        (("POST", "/v1/chat/completions", JSON, f"Content_{FORM[8:]}"), CHEAP),
        (("GET", "/v1/files", JSON, "content-type: text/plain"), b""),
        (("POST", "/v1/some/new/api", JSON), b'{"model": "a", "model": "b"}'),
        (("POST", "/v1/chat/completions", JSON), b'{"model": "a", "mod\\u0065l": "a"}'),
        (("POST", "/v1/chat/completions", JSON), b'{"stream": false, "stream": true}'),
        (("POST", "/v1/chat/completions", JSON), b'{"stream": false, "\\u0073tream": true}'),
        (
            ("POST", "/v1/audio/transcriptions", FORM),
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n' * 2 + b"--b--\r\n",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["keys", "open"])
async def test_ambiguous_requests_are_rejected_for_every_caller(
    run_proxy: RunProxy, mode: str, request_lines: tuple[str, ...], body: bytes
) -> None:
    access = 'mode = "open"' if mode == "open" else ""
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, access=access) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await asked(caller, *request_lines, body=body, key=KEY)
    assert (answer.status, answer.header("code")) == (400, ["invalid_request"])
    assert upstream.requests == []


@pytest.mark.parametrize("body", [b'{"Model": "a", "model": "b", "models": ["c"]}', b'{"mod\\u0065l": "a"}'])
async def test_unusual_requests_are_accepted_from_other_callers(run_proxy: RunProxy, body: bytes) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await asked(caller, "POST", "/v1/chat/completions?model=x", JSON, body=body, key=KEY)
    assert answer.status == 200
    assert upstream.requests[0].body == body


# --- endpoints


@pytest.mark.parametrize(
    ("listed", "method", "path", "status"),
    [
        ('["embeddings"]', "POST", "/v1/embeddings", 200),
        ('["embeddings"]', "POST", "/v1/EMBEDDINGS", 200),
        ('["embeddings"]', "POST", "/v1/embeddings/x", 200),
        ('["embeddings"]', "POST", "/v1/chat/completions", 403),
        ('["embeddings"]', "GET", "/v1/models", 403),
        ('["embeddings"]', "POST", "/v1/embeddingsx", 403),
        ('["embeddings"]', "POST", "/v1/x/embeddings", 403),
        ('["audio"]', "POST", "/v1/audio/speech", 200),
        ('["audio/speech"]', "POST", "/v1/audio/transcriptions", 403),
        ('["chat/completions"]', "GET", "/v1/chat/completions/c-1", 200),
        ('["batches"]', "POST", "/v1/batches", 200),
        ('["*"]', "POST", "/v1/some/new/api", 200),
        ("[]", "GET", "/v1/models", 403),
    ],
)
async def test_a_key_may_use_the_endpoints_that_it_names(
    run_proxy: RunProxy, listed: str, method: str, path: str, status: int
) -> None:
    more = LIMITED.replace('models = ["cheap*"]', f"endpoints = {listed}")
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer = await asked(caller, method, path, JSON, body=CHEAP if method == "POST" else b"")
    assert answer.status == status
    assert answer.header("code") == ["endpoint_forbidden" if status == 403 else ""]
    assert len(upstream.requests) == (status == 200)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/vector_stores", b"{}", 200),
        ("/v1/chat/completions", CHEAP, 200),
        ("/v1/chat/completions", DEAR, 403),
        ("/v1/batches", b"{}", 403),
        ("/v1/some/new/api", CHEAP, 403),
    ],
)
async def test_the_models_of_a_key_apply_at_all_endpoints(
    run_proxy: RunProxy, path: str, body: bytes, status: int
) -> None:
    more = LIMITED + 'endpoints = ["*"]\n'
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert (await asked(caller, "POST", path, JSON, body=body)).status == status


async def test_the_proxys_list_of_models_is_an_endpoint_like_any_other(run_proxy: RunProxy) -> None:
    models = '[models]\nlist = "configured"\nknown = [{ id = "cheap" }]\n'
    more = models + LIMITED.replace('models = ["cheap*"]', 'endpoints = ["embeddings"]')
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert (await asked(caller, "GET", "/v1/models")).status == 403
        assert (await asked(caller, "GET", "/v1/models", key=KEY)).status == 200


# --- the list of models


LISTED = b'{"object": "list", "data": [%s], "models": ["dear", "cheap"]}'
CHEAP_ENTRY = b'{"id": "cheap-1",  "root": null, "permission": [1.10]}'
DEAR_ENTRIES = b'{"id": "dear"}, {"name": "dear"}, {"id": 1}, "dear"'


def answering(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    """Return an upstream that answers every request with this body."""

    async def answer(talk: Conversation) -> None:
        await talk.answer(body, JSON, *headers, status=status)

    return answer


async def listed(caller: RawCaller, *request: str, key: str = LIMITED_KEY) -> tuple[int, bytes]:
    """Return the status and the body of a response."""
    await caller.send("GET", *request, key=key)
    answer = await caller.answer()
    return answer.status, await caller.body(answer)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/models", "/v1/MODELS", "/v1/models;x", "/v1/models?limit=9"]
)
async def test_a_relayed_list_has_only_the_models_of_the_key(run_proxy: RunProxy, path: str) -> None:
    body = LISTED % (CHEAP_ENTRY + b", " + DEAR_ENTRIES)
    async with (
        raw_upstream(answering(body)) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        status, told = await listed(caller, path)
        assert status == 200
        assert told == b'{"object":"list","data":[' + CHEAP_ENTRY + b'],"models":["cheap"]}'
        assert await listed(caller, path, key=KEY) == (200, body)


@pytest.mark.parametrize(
    ("upstream_answer", "status"),
    [
        (answering(b'["dear", "cheap"]'), 200),
        (answering(b'{"models": {"dear": {"id": "cheap"}}, "data": [["dear"], {"id": "cheap"}]}'), 200),
        (answering(b'"dear"'), 502),
        (answering(b"<p>dear</p>"), 502),
        (answering(gzip.compress(LISTED % DEAR_ENTRIES), "Content-Encoding: gzip"), 502),
        (
            answering(
                b'{"data": [{"id": "dear"', "Content-Range: bytes 0-21/99", status="206 Partial Content"
            ),
            502,
        ),
        (answering(LISTED % (b'{"id": "dear"},' * 400_000 + b"0")), 502),
        (answering(b"[" * 100_000), 502),
    ],
)
async def test_no_other_form_of_a_list_shows_another_model(
    run_proxy: RunProxy, upstream_answer: Script, status: int
) -> None:
    async with (
        raw_upstream(upstream_answer) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        found, told = await listed(caller, "/v1/models", "Range: bytes=0-21")
    assert found == status
    assert b"dear" not in told


@pytest.mark.parametrize("source", ["configured", "merged"])
async def test_the_proxys_list_has_only_the_models_of_the_key(run_proxy: RunProxy, source: str) -> None:
    more = f'[models]\nlist = "{source}"\nknown = [{{ id = "cheap" }}, {{ id = "dear" }}]\n' + LIMITED
    async with (
        raw_upstream(answering(LISTED % b"")) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        _, told = await listed(caller, "/v1/models")
        assert [model["id"] for model in json.loads(told)["data"]] == ["cheap"]
        assert (await listed(caller, "/v1/models/cheap"))[0] == 200
        assert (await listed(caller, "/v1/models/dear"))[0] == 403
        assert (await listed(caller, "/v1/models/dear", key=KEY))[0] == 200


# --- streams at once


STREAMS = LIMITED.replace('models = ["cheap*"]', "max_streams = 1")


async def endless(talk: Conversation) -> None:
    """Stream until the caller leaves, whatever the request."""
    await talk.start_stream()
    await talk.chunk(b"data: 1\n\n")
    await talk.caller_left()


@pytest.mark.parametrize(
    ("request_lines", "body"),
    [
        (("POST", "/v1/chat/completions", JSON), b'{"stream": true}'),
        (("POST", "/v1/chat/completions", JSON), b'{"Stream": true}'),
        (("POST", "/v1/chat/completions", JSON), b"{}"),
        (("POST", "/v1/chat/completions", "Content-Type: text/plain"), b'{"stream": true}'),
        (("POST", "/v1/chat/completions", FORM), b'{"stream": true}'),
        (("POST", "/v1/chat/completions"), b'{"stream": true}'),
        (("POST", "/v1/Chat/Completions", JSON), b'{"stream": true}'),
        (("POST", "/v1/some/new/api", "Content-Type: text/plain"), b'{"stream": true}'),
        (("POST", "/v1/audio/transcriptions", FORM), b"--b--\r\n"),
        (("GET", "/v1/responses/r-1?stream=true"), b""),
        (("POST", "/v1/files", FORM), b"--b--\r\n"),
    ],
)
async def test_no_content_type_hides_a_stream_from_the_limit(
    run_proxy: RunProxy, request_lines: tuple[str, ...], body: bytes
) -> None:
    async with (
        raw_upstream(endless) as upstream,
        run_proxy(upstream.url, more=STREAMS) as proxy,
        raw_caller(proxy.url) as first,
        raw_caller(proxy.url) as second,
    ):
        await first.send(*request_lines, body=body, key=LIMITED_KEY)
        assert (await first.answer()).status == 200
        answer = await asked(second, *request_lines, body=body)
        assert (answer.status, answer.header("code")) == (429, ["rate_limit_exceeded"])
        await until(lambda: upstream.connections == 1)
        first.leave()
        await until(lambda: upstream.connections == 0)
        async with raw_caller(proxy.url) as third:
            await third.send(*request_lines, body=body, key=LIMITED_KEY)
            assert (await third.answer()).status == 200


# --- WebSockets


@pytest.mark.parametrize(
    "query", ["", "?model=dear", "?model=cheap&Model=dear", "?model=cheap&deployment=dear"]
)
async def test_a_websocket_of_a_limited_key_names_an_allowed_model(run_proxy: RunProxy, query: str) -> None:
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(f"{proxy.url}/v1/realtime{query}", headers={"x-api-key": LIMITED_KEY})
    assert upstream.handshakes == []


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "session.update", "session": {"model": "dear"}}',
        '{"type": "session.update", "session": {"mod\\u0065l": "dear"}}',
        '{"type": "session.update", "session": {"Model": "dear"}}',
        '{"session": {"input_audio_transcription": {"model": "dear"}}}',
        '{"session": {"models": ["dear"]}}',
        b'{"session": {"model": "dear"}}',
    ],
)
async def test_a_message_that_names_another_model_closes_the_websocket(
    run_proxy: RunProxy, message: str | bytes
) -> None:
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{proxy.url}/v1/realtime?model=cheap", headers={"x-api-key": LIMITED_KEY}
        ) as caller,
    ):
        allowed = '{"type": "session.update", "session": {"model": "cheap", "instructions": "a model"}}'
        await caller.send_str(allowed)
        assert await caller.receive_str() == allowed  # an echo
        await (caller.send_str(message) if isinstance(message, str) else caller.send_bytes(message))
        async with asyncio.timeout(PATIENCE):
            closed = await caller.receive()
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1008)
        await until(lambda: bool(proxy.exchanges))
    assert proxy.exchanges[0]["outcome"] == "model_forbidden"


BUDGET = LIMITED.replace('models = ["cheap*"]', 'tokens = "100/day"')


async def test_a_websocket_counts_each_response_and_ends_with_the_budget(run_proxy: RunProxy) -> None:
    usage = {"input_tokens": 30, "output_tokens": 20}
    done = json.dumps({"type": "response.done", "response": {"usage": usage}})
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, more=BUDGET) as proxy,
        aiohttp.ClientSession() as session,
        asyncio.timeout(PATIENCE),
    ):
        url, headers = f"{proxy.url}/v1/realtime?model=cheap", {"x-api-key": LIMITED_KEY}
        async with (
            session.ws_connect(url, headers=headers) as first,
            session.ws_connect(url, headers=headers) as second,
        ):
            await first.send_str(done)
            assert await first.receive_str() == done
            for talk in (second, first):
                await talk.send_str(done)
                assert await talk.receive_str() == done
                closed = await talk.receive()
                assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1008)
                assert closed.extra == "token quota of this key used up"
        await until(lambda: len(proxy.exchanges) == 2)
    assert {line["outcome"] for line in proxy.exchanges} == {"rate_limit_exceeded"}
    assert sorted(line["completion_tokens"] for line in proxy.exchanges) == [20, 40]


@pytest.mark.parametrize("is_reported", [True, False])
async def test_a_websocket_counts_against_the_budget(run_proxy: RunProxy, *, is_reported: bool) -> None:
    usage = {"usage": {"input_tokens": 30, "output_tokens": 20}} if is_reported else {}
    done = json.dumps({"type": "response.done", "response": usage})
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, more=BUDGET) as proxy,
        aiohttp.ClientSession() as session,
        raw_caller(proxy.url) as caller,
    ):
        url = f"{proxy.url}/v1/realtime?model=cheap"
        async with session.ws_connect(url, headers={"x-api-key": LIMITED_KEY}) as talk:
            for _ in range(2 if is_reported else 99):
                await talk.send_str(done)
                await talk.receive_str()
        await until(lambda: bool(proxy.exchanges))
        assert (await asked(caller, "POST", "/v1/chat/completions", JSON, body=CHEAP)).status == 429
    line = proxy.exchanges[0]
    assert line["prompt_tokens"] + line["completion_tokens"] == 100
    assert line.get("usage_estimated", False) is not is_reported

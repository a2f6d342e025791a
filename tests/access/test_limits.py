"""The limits of a caller: its models, its requests per time, and its concurrent streams."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from limits import RateLimitItem, RateLimitItemPerDay

from proxy.access import Caller, CallerLimits
from proxy.access.counting import Counting
from proxy.errors import RateLimited
from proxy.upstream.relay import Attempt
from proxy.upstream.transport import UpstreamResponse
from proxy.wire.endpoints import CHAT_COMPLETIONS, REALTIME
from tests.conftest import RunProxy
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.redis_server import redis_server
from tests.upstream.build import build_record
from tests.waiting import delay

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
FORM = "multipart/form-data; boundary=b"
LIMITED = """
[[access.keys]]
name = "limited"
key = "sk-limited-5d21"
models = ["gpt-*", "bge-m3"]
rate = "3/hour"
max_streams = 1
"""
KEY = "sk-limited-5d21"
STREAM = b'{"model": "gpt-4o", "stream": true}'


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", JSON)


async def endless(talk: Conversation) -> None:
    """Stream until the caller leaves."""
    await talk.start_stream()
    await talk.chunk(b"data: 1\n\n")
    await talk.caller_left()


async def ask(
    caller: RawCaller, body: bytes = b'{"model": "gpt-4o"}', key: str = KEY
) -> tuple[RawAnswer, str | None]:
    """Send a request; return the response, and the code of its error."""
    await caller.send("POST", CHAT, JSON, body=body, key=key)
    answer = await caller.answer()
    told = json.loads(await caller.body(answer))
    return answer, told["error"]["code"] if "error" in told else None


async def test_what_an_exchange_has_used_is_counted_once() -> None:
    budget, counting = RateLimitItemPerDay(100), Counting()
    caller, limits = Caller("limited", budget=budget), CallerLimits(counting)
    record = build_record()
    for _ in range(2):
        record.add_usage(20, 5)
        await limits.count_usage_so_far(caller, record)
    await limits.count_usage(caller, record, REALTIME)
    assert (await counting.amount_left(budget, "tokens", "limited")).remaining == 50
    record.add_usage(40, 10)
    with pytest.raises(RateLimited, match="token quota"):
        await limits.count_usage_so_far(caller, record)


async def test_requests_that_run_at_once_may_exceed_the_budget_together() -> None:
    caller, limits = Caller("limited", budget=RateLimitItemPerDay(100)), CallerLimits()
    for _ in range(3):
        await limits.count_request(caller)
    for _ in range(3):
        record = build_record()
        record.add_usage(60, 30)
        await limits.count_usage(caller, record, CHAT_COMPLETIONS)
    with pytest.raises(RateLimited, match="token quota"):
        await limits.count_request(caller)


@pytest.mark.parametrize(("reported", "unreported"), [((20, 5), 0), ((20, 5), 30)])
async def test_what_the_reported_usage_does_not_include_is_estimated(
    reported: tuple[int, int], unreported: int
) -> None:
    budget, counting = RateLimitItemPerDay(100), Counting()
    caller, limits = Caller("limited", budget=budget), CallerLimits(counting)
    record = build_record()
    record.succeeded, record.events, record.events_unreported = True, 40, unreported
    record.add_usage(*reported)
    await limits.count_usage_so_far(caller, record)
    await limits.count_usage(caller, record, REALTIME)
    assert (await counting.amount_left(budget, "tokens", "limited")).remaining == 75 - unreported
    assert record.usage_estimated is (unreported > 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "gpt-4o"}', 200),
        (b'{"model": "bge-m3"}', 200),
        (b'{"model": "bge-m3-large"}', 403),
        (b'{"model": "GPT-4o"}', 403),
        (b'{"model": ""}', 403),
        (b"{}", 403),
        (b'{"model": ["gpt-4o"]}', 403),
    ],
)
async def test_a_key_allows_only_its_models(run_proxy: RunProxy, body: bytes, status: int) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        answer, code = await ask(caller, body)
    assert (answer.status, code) == (status, None if status == 200 else "model_forbidden")
    assert len(upstream.requests) == (status == 200)


def form(*fields: tuple[str, str]) -> bytes:
    """Return a form without a file."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields
    ]
    return "".join([*parts, "--b--\r\n"]).encode()


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status"),
    [
        ("audio/transcriptions", FORM, form(("model", "gpt-4o-transcribe"), ("file", "x")), 200),
        ("audio/transcriptions", FORM, form(("file", "x"), ("model", "whisper-1")), 403),
        ("audio/transcriptions", FORM, form(("model", "gpt-4o"), ("model", "whisper-1")), 403),
        ("audio/transcriptions", FORM, form(("file", "x" * (1 << 20)), ("model", "whisper-1")), 403),
        ("audio/transcriptions", FORM, form(("model", "gpt-4o"), ("file", "x" * (1 << 20))), 200),
        ("images/variations", FORM, form(("image", "x")), 403),
        ("files", FORM, form(("file", "x" * (1 << 20))), 200),
        ("chat/completions", "text/plain", b'{"model": "other"}', 403),
    ],
)
async def test_a_model_in_a_form_is_checked_and_a_hidden_one_is_rejected(
    run_proxy: RunProxy, path: str, content_type: str, body: bytes, status: int
) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", f"/v1/{path}", f"Content-Type: {content_type}", body=body, key=KEY)
        assert (await caller.answer()).status == status
    assert [request.body for request in upstream.requests] == [body] * (status == 200)


async def test_a_request_over_the_rate_is_429_with_retry_after(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=LIMITED) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        assert [(await ask(caller))[0].status for _ in range(3)] == [200] * 3
        answer, code = await ask(caller)
        assert (answer.status, code) == (429, "rate_limit_exceeded")
        assert answer.header("ratelimit-limit") == ["3"]
        assert answer.header("ratelimit-remaining") == ["0"]
        assert 3500 < int(answer.header("retry-after")[0]) <= 3600
        assert answer.header("ratelimit-reset") == answer.header("retry-after")
        await caller.send("POST", CHAT, JSON, body=b"{}")  # another key is another account
        assert (await caller.answer()).status == 200
    assert len(upstream.requests) == 4


async def test_a_stream_over_the_limit_is_429_until_another_ends(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(endless) as upstream,
        run_proxy(upstream.url, more=LIMITED.replace("3/hour", "100/hour")) as proxy,
        raw_caller(proxy.url) as first,
        raw_caller(proxy.url) as second,
    ):
        await first.send("POST", CHAT, JSON, body=STREAM, key=KEY)
        await first.answer()
        answer, code = await ask(second, STREAM)
        assert (answer.status, code) == (429, "rate_limit_exceeded")
        assert answer.header("retry-after") == ["1"]
        first.leave()
        await until(lambda: upstream.connections == 0)
        await second.send("POST", CHAT, JSON, body=STREAM, key=KEY)
        assert (await second.answer()).status == 200


@pytest.mark.parametrize("stream", [b"1", b'"true"'])
async def test_values_that_some_upstreams_read_as_true_count_as_streams(
    run_proxy: RunProxy, stream: bytes
) -> None:
    body = b'{"model": "gpt-4o", "stream": ' + stream + b"}"
    async with (
        raw_upstream(endless) as upstream,
        run_proxy(upstream.url, more=LIMITED.replace("3/hour", "100/hour")) as proxy,
        raw_caller(proxy.url) as first,
        raw_caller(proxy.url) as second,
    ):
        await first.send("POST", CHAT, JSON, body=body, key=KEY)
        await first.answer()
        assert (await ask(second, body))[0].status == 429


async def test_usage_is_counted_even_if_the_caller_disconnects_at_once(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Counting.add

    async def slow(self: Counting, limit: RateLimitItem, *account: str, amount: int) -> None:
        await delay(0.05)
        await count(self, limit, *account, amount=amount)

    monkeypatch.setattr(Counting, "add", slow)
    async with raw_upstream(costs) as upstream, run_proxy(upstream.url, more=BUDGET) as proxy:
        for asked in range(2):
            async with raw_caller(proxy.url) as caller:
                await caller.send("POST", CHAT, JSON, body=b"{}", key=KEY)
                await caller.body(await caller.answer())
                caller.reset()
            await until(lambda: len(proxy.exchanges) > asked)  # noqa: B023
        async with raw_caller(proxy.url) as caller:
            assert (await ask(caller))[0].status == 429
        assert [line["outcome"] for line in proxy.exchanges[:2]] == ["ok", "ok"]


async def test_concurrent_callers_are_counted_correctly(run_proxy: RunProxy) -> None:
    async def one(url: str) -> int:
        async with raw_caller(url) as caller:
            return (await ask(caller))[0].status

    more = LIMITED.replace("3/hour", "20/hour")
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url, more=more) as proxy:
        statuses = await asyncio.gather(*(one(proxy.url) for _ in range(50)))
    assert sorted(statuses) == [200] * 20 + [429] * 30


BUDGET = """
[[access.keys]]
name = "limited"
key = "sk-limited-5d21"
tokens = "100/day"
"""


async def costs(talk: Conversation) -> None:
    """Answer with a usage of 60 tokens, as a stream if the request asks for one."""
    usage = b'"usage": {"prompt_tokens": 40, "completion_tokens": 20}'
    if b"stream" not in talk.request.body:
        await talk.answer(b'{"choices": [], ' + usage + b"}", JSON)
        return
    await talk.start_stream()
    await talk.chunk(b'data: {"choices": [], ' + usage + b"}\n\ndata: [DONE]\n\n")
    await talk.end()


@pytest.mark.parametrize("body", [b"{}", b'{"stream": true}'])
async def test_a_key_has_a_token_budget_per_period(run_proxy: RunProxy, body: bytes) -> None:
    async with raw_upstream(costs) as upstream, run_proxy(upstream.url, more=BUDGET) as proxy:
        for spent in range(3):
            async with raw_caller(proxy.url) as caller:
                await caller.send("POST", CHAT, JSON, body=body, key=KEY)
                answer = await caller.answer()
                told = await caller.body(answer)
                await until(lambda: len(proxy.exchanges) > spent)  # noqa: B023
        assert answer.status == 429
        assert json.loads(told)["error"]["message"] == "token quota of this key used up"
        assert answer.header("ratelimit-limit") == ["100"]
        assert answer.header("ratelimit-remaining") == ["0"]
        assert 86_000 < int(answer.header("retry-after")[0]) <= 86_400
        assert answer.header("x-should-retry") == ["false"]
    assert len(upstream.requests) == 2


async def test_callers_are_counted_in_redis_if_configured(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with redis_server(tmp_path) as redis, raw_upstream(ok) as upstream:
        shared = f'[shared]\nredis_url = "{redis.url}"\nencryption_key = "{"0" * 64}"\n'
        shared += f"redis_timeout = {PATIENCE}\n"
        more = LIMITED + shared
        statuses = []
        for _ in range(2):  # two processes, one after the other; the second continues the count
            async with (
                run_proxy(upstream.url, access='sharing = "redis"', more=more) as proxy,
                raw_caller(proxy.url) as caller,
            ):
                statuses += [(await ask(caller))[0].status for _ in range(2)]
        assert statuses == [200, 200, 200, 429]


async def test_usage_is_requested_and_hidden_if_configured(run_proxy: RunProxy) -> None:
    async def tells_if_asked(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
        if b'"include_usage":true' in talk.request.body:
            await talk.chunk(b'data: {"choices": [], "usage": {"prompt_tokens": 200}}\n\n')
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    more = BUDGET + 'repairs = ["ask_usage", "drop_unasked_chunks"]\n'
    async with (
        raw_upstream(tells_if_asked) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}', key=KEY)
        told = await caller.body(await caller.answer())
        assert b"usage" not in told
        await until(lambda: bool(proxy.exchanges))
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}', key=KEY)
        assert (await caller.answer()).status == 429
    assert proxy.exchanges[0]["prompt_tokens"] == 200


LONG = json.dumps({"messages": "x" * 500}).encode()
STREAMED = json.dumps({"messages": "x" * 500, "stream": True}).encode()
CHUNK = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\n'
USAGE = b'"usage": {"prompt_tokens": 1, "completion_tokens": 1}'


async def silent(talk: Conversation) -> None:
    """Answer without usage, as a stream if the request asks for one."""
    if b'"stream"' not in talk.request.body:
        await talk.answer(b'{"choices": []}', JSON)
        return
    await talk.start_stream()
    await talk.chunk(CHUNK + b"data: [DONE]\n\n")
    await talk.end()


async def zeros(talk: Conversation) -> None:
    """Answer with a usage of zero."""
    await talk.answer(b'{"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}', JSON)


async def repeats(talk: Conversation) -> None:
    """Answer with a part of the request, which contains a usage."""
    await talk.answer(b'{"choices": [], "tools": [{' + USAGE + b"}]}", JSON)


async def buries(talk: Conversation) -> None:
    """Send a response in pieces, in which more bytes follow the usage than the proxy searches."""
    await talk.start_stream(content_type="application/json")
    await talk.chunk(b'{"choices": [], ' + USAGE + b', "prompt_logprobs": [')
    await talk.chunk(b"0, " * 20_000 + b"0]}")
    await talk.end()


async def cuts(talk: Conversation) -> None:
    """Break off a stream."""
    await talk.start_stream()
    await talk.chunk(CHUNK)
    talk.reset()


@pytest.mark.parametrize(
    ("path", "content_type", "body", "script"),
    [
        ("/v1/chat/completions", "application/json", LONG, silent),
        ("/v1/chat/completions", "application/json", STREAMED, silent),
        ("/v1/chat/completions", "application/json", LONG, zeros),
        ("/v1/embeddings", "application/json", LONG, zeros),
        ("/v1/chat/completions", "application/json", LONG, repeats),
        ("/v1/chat/completions", "application/json", LONG, buries),
        ("/v1/chat/completions", "application/json", STREAMED, cuts),
        ("/v1/chat/completions", "text/plain", LONG, silent),
        ("/v1/chat/completions", "multipart/form-data; boundary=b", LONG, silent),
        ("/v1/Chat/%43ompletions", "application/json", LONG, silent),
        ("/v1/chat;x=y/completions", "application/json", LONG, silent),
        ("/v1/v1/v1/chat/completions", "application/json", LONG, silent),
        ("/v1/completions", "application/json", LONG, silent),
        ("/v1/embeddings", "application/json", LONG, silent),
        ("/v1/rerank", "application/json", LONG, silent),
        ("/v1/responses", "application/json", STREAMED, silent),
        ("/v1/audio/speech", "application/json", b"{}", silent),
        ("/v1/images/edits", "multipart/form-data; boundary=b", b"", silent),
        ("/v1/assistants", "application/json", LONG, silent),
        ("/v1/engines/x/completions", "application/json", LONG, silent),
        ("/v1/some/new/api", "application/json", LONG, silent),
    ],
)
async def test_the_usage_of_a_response_without_usage_is_estimated(
    run_proxy: RunProxy,
    path: str,
    content_type: str,
    body: bytes,
    script: Callable[[Conversation], Awaitable[None]],
) -> None:
    repairs = 'repairs = ["fill_usage"]\n' if script is zeros else ""  # a repair invents zeros, too
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=BUDGET + repairs) as proxy,
        raw_caller(proxy.url) as caller,
        raw_caller(proxy.url) as again,
    ):
        await caller.send("POST", path, f"Content-Type: {content_type}", body=body, key=KEY)
        await caller.body(await caller.answer())
        await until(lambda: bool(proxy.exchanges))
        assert (await ask(again))[0].status == 429
    line = proxy.exchanges[0]
    assert line["usage_estimated"] is True
    assert line["prompt_tokens"] + line["completion_tokens"] >= 100
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("chunks", [0, 1])
async def test_a_caller_who_disconnects_is_charged_an_estimate(run_proxy: RunProxy, chunks: int) -> None:
    async def script(talk: Conversation) -> None:
        if chunks:
            await talk.start_stream()
            await talk.chunk(CHUNK)
        await talk.caller_left()

    async with raw_upstream(script) as upstream, run_proxy(upstream.url, more=BUDGET) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=STREAMED, key=KEY)
            await until(lambda: bool(upstream.requests))
            if chunks:
                await caller.answer()
                await caller.chunk()
            caller.reset()
        await until(lambda: bool(proxy.exchanges))
        async with raw_caller(proxy.url) as caller:
            assert (await ask(caller))[0].status == 429
    line = proxy.exchanges[0]
    assert (line["outcome"], line["usage_estimated"]) == ("client_gone", True)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (len(STREAMED) // 4, chunks)


@pytest.mark.parametrize("repairs", ["", 'repairs = ["ragflow"]\n'])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_caller_who_disconnects_between_headers_and_body_is_charged_for_a_success(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch, repairs: str, status: int
) -> None:
    has_headers = asyncio.Event()
    begin = Attempt._begin

    async def begun(attempt: Attempt, response: UpstreamResponse) -> Any:
        has_headers.set()
        return await begin(attempt, response)

    monkeypatch.setattr(Attempt, "_begin", begun)

    async def script(talk: Conversation) -> None:
        await talk.say(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n" % status
        )
        if repairs:  # which wait for the whole response
            await talk.say(b"{")
        await talk.caller_left()

    async with raw_upstream(script) as upstream, run_proxy(upstream.url, more=BUDGET + repairs) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=LONG, key=KEY)
            async with asyncio.timeout(PATIENCE):
                await has_headers.wait()
            caller.reset()
        await until(lambda: bool(proxy.exchanges))
    line = proxy.exchanges[0]
    assert line["outcome"] == "client_gone"
    assert ("prompt_tokens" in line) == (status == 200)


async def test_a_caller_who_disconnects_after_the_usage_is_charged_that_usage(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b'data: {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 2}}\n\n')
        await talk.caller_left()

    async with raw_upstream(script) as upstream, run_proxy(upstream.url, more=BUDGET) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=STREAMED, key=KEY)
            await caller.answer()
            await caller.chunk()
            caller.reset()
        await until(lambda: bool(proxy.exchanges))
    line = proxy.exchanges[0]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (40, 2)
    assert "usage_estimated" not in line


async def test_a_caller_who_leaves_pays_for_the_events_after_an_early_usage(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(events)
        await talk.caller_left()

    events = b'data: {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 1}}\n\n'
    events += b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": null}]}\n\n' * 50

    async with raw_upstream(script) as upstream, run_proxy(upstream.url, more=BUDGET) as proxy:
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=STREAMED, key=KEY)
            await caller.answer()
            received = b""
            while received != events:
                received += await caller.chunk()
            caller.reset()
        await until(lambda: bool(proxy.exchanges))
    line = proxy.exchanges[0]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (40, 51)
    assert line["usage_estimated"] is True


async def refuses(talk: Conversation) -> None:
    """Answer with an error status, which costs nothing."""
    await talk.answer(b'{"error": {"message": "no"}}', JSON, status="400 Bad Request")


async def errs(talk: Conversation) -> None:
    """Answer with status 200 and an error."""
    await talk.answer(b'{"error": {"message": "no"}}', JSON)


@pytest.mark.parametrize(
    ("method", "path", "script"),
    [
        ("POST", "/v1/chat/completions", refuses),
        ("POST", "/v1/chat/completions", errs),
        ("GET", "/v1/chat/completions", costs),
        ("GET", "/v1/chat/completions/c-1", costs),
        ("GET", "/v1/responses/r-1", costs),
        ("GET", "/v1/models", silent),
        ("POST", "/v1/files", silent),
        ("GET", "/v1/assistants/a-1", silent),
        ("GET", "/v1/some/new/api", silent),
    ],
)
async def test_endpoints_without_a_model_cost_nothing(
    run_proxy: RunProxy, method: str, path: str, script: Callable[[Conversation], Awaitable[None]]
) -> None:
    more = BUDGET + 'repairs = ["true_errors"]\n'
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=more) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send(method, path, body=LONG if method == "POST" else b"", key=KEY)
        await caller.body(await caller.answer())
        await until(lambda: bool(proxy.exchanges))
    assert "prompt_tokens" not in proxy.exchanges[0]


async def never_answers(talk: Conversation) -> None:
    """Send nothing."""
    await talk.caller_left()


async def answers_without_a_body(talk: Conversation) -> None:
    """Send the head of a response only."""
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n")
    await talk.caller_left()


async def disconnects(talk: Conversation) -> None:
    """Close the connection instead of an answer."""
    talk.writer.close()


async def breaks_off(talk: Conversation) -> None:
    """Close the connection after the head of a response."""
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n")
    talk.writer.close()


async def speaks_no_http(talk: Conversation) -> None:
    """Send something else than a response."""
    await talk.say(b"garbage\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (never_answers, 504),
        (answers_without_a_body, 504),
        (disconnects, 502),
        (breaks_off, 502),
        (speaks_no_http, 502),
    ],
    ids=["no answer", "no body", "no answer and closed", "no body and closed", "not HTTP"],
)
async def test_a_request_that_an_upstream_received_and_did_not_answer_is_charged_its_prompt(
    run_proxy: RunProxy, script: Callable[[Conversation], Awaitable[None]], status: int
) -> None:
    options = "timeouts = { first_byte = 0.2 }"
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more=BUDGET, options=options) as proxy,
        raw_caller(proxy.url) as caller,
        raw_caller(proxy.url) as again,
    ):
        await caller.send("POST", CHAT, JSON, body=LONG, key=KEY)
        assert (await caller.answer()).status == status
        await until(lambda: bool(proxy.exchanges))
        assert (await ask(again))[0].status == 429
    line = proxy.exchanges[0]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (len(LONG) // 4, 0)
    assert line["usage_estimated"] is True


async def test_an_attempt_that_was_not_answered_is_charged_although_the_fallback_rejects_the_request(
    run_proxy: RunProxy,
) -> None:
    async with raw_upstream(disconnects) as upstream, raw_upstream(refuses) as backup:
        more = f'{BUDGET}\n[upstreams.backup]\nbase_url = "{backup.url}/v1"\n'
        async with (
            run_proxy(upstream.url, more=more, options='fallback = "backup"') as proxy,
            raw_caller(proxy.url) as caller,
        ):
            await caller.send("POST", CHAT, JSON, body=LONG, key=KEY)
            assert (await caller.answer()).status == 400
            await until(lambda: bool(proxy.exchanges))
    assert proxy.exchanges[0]["prompt_tokens"] == len(LONG) // 4


async def fails(talk: Conversation) -> None:
    """Answer with an error of the upstream."""
    await talk.answer(b"{}", JSON, status="504 Gateway Timeout")


async def redirects(talk: Conversation) -> None:
    """Answer with a redirect."""
    await talk.answer(b"", "Location: /", status="307 Temporary Redirect")


@pytest.mark.parametrize(
    ("script", "status"),
    [(None, 502), (fails, 504), (redirects, 502)],
    ids=["unreachable", "error", "redirect"],
)
async def test_a_request_that_an_upstream_did_not_receive_or_rejected_costs_nothing(
    run_proxy: RunProxy, script: Callable[[Conversation], Awaitable[None]] | None, status: int
) -> None:
    async with raw_upstream(script or ok) as upstream:
        url = upstream.url if script else "http://127.0.0.1:9"
        async with run_proxy(url, more=BUDGET) as proxy, raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=LONG, key=KEY)
            assert (await caller.answer()).status == status
            await until(lambda: bool(proxy.exchanges))
    assert "prompt_tokens" not in proxy.exchanges[0]


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status", "code"),
    [
        ("responses", "application/json", b'{"background": true}', 400, "invalid_request"),
        ("RESPONSES;x", "application/json", b'{"background": true, "stream": true}', 400, "invalid_request"),
        ("responses", "application/json", b'{"background": 1}', 400, "invalid_request"),
        ("responses", "application/json", b'{"background": "true"}', 400, "invalid_request"),
        ("responses", "application/json", b'{"b\\u0061ckground": true}', 400, "invalid_request"),
        ("responses", "application/json", b'{"Background": true}', 400, "invalid_request"),
        (
            "responses",
            "application/json",
            b'{"background": true, "background": false}',
            400,
            "invalid_request",
        ),
        ("responses", "text/plain", b'{"background": true}', 400, "invalid_request"),
        ("batches", "application/json", b"{}", 403, "endpoint_forbidden"),
        ("evals/e-1/runs", "application/json", b"{}", 403, "endpoint_forbidden"),
        ("fine_tuning/jobs", "application/json", b"{}", 403, "endpoint_forbidden"),
        ("threads/t-1/runs", "application/json", b"{}", 403, "endpoint_forbidden"),
        ("realtime/client_secrets", "application/json", b"{}", 403, "endpoint_forbidden"),
        ("realtime/calls", "application/sdp", b"v=0", 403, "endpoint_forbidden"),
        ("responses", "application/json", b'{"background": false}', 200, None),
        ("responses", "application/json", b'{"background": null}', 200, None),
        ("responses/compact", "application/json", b"{}", 200, None),
        ("images/generations", "application/json", b'{"background": "transparent"}', 200, None),
        ("chat/completions", "text/plain", b"{}", 200, None),
    ],
)
async def test_a_key_with_a_budget_starts_no_work_that_cannot_be_counted(
    run_proxy: RunProxy, path: str, content_type: str, body: bytes, status: int, code: str | None
) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=BUDGET) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", f"/v1/{path}", f"Content-Type: {content_type}", body=body, key=KEY)
        answer = await caller.answer()
        told = json.loads(await caller.body(answer))
        assert (answer.status, told.get("error", {}).get("code")) == (status, code)
        assert len(upstream.requests) == (status == 200)
        if code is not None:
            assert told["error"]["message"].startswith("this key has a token budget")
            await caller.send("POST", f"/v1/{path}", f"Content-Type: {content_type}", body=b"{}")
            assert (await caller.answer()).status == 200  # a key without a budget


@pytest.mark.parametrize("listed", ['["*"]', '["batches"]'])
async def test_a_key_with_a_budget_may_use_an_uncounted_endpoint_that_it_names(
    run_proxy: RunProxy, listed: str
) -> None:
    async with (
        raw_upstream(ok) as upstream,
        run_proxy(upstream.url, more=f"{BUDGET}endpoints = {listed}\n") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/batches", JSON, body=b"{}", key=KEY)
        assert (await caller.answer()).status == 200


async def test_without_a_budget_nothing_is_estimated(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(silent) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=LONG)
        await caller.body(await caller.answer())
        await until(lambda: bool(proxy.exchanges))
    assert "prompt_tokens" not in proxy.exchanges[0]

"""Faults: each has one defined outcome for the caller, and leaves nothing behind."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import KEY, RunningGateway, RunningProxy, RunProxy
from tests.leaks import nothing_left_behind
from tests.loopback import until
from tests.ports import free_port
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation
from tests.raw_upstream import raw_upstream as raw_upstream_that_waits
from tests.virtual_time import leap
from tests.waiting import delay

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
IDLE_SECONDS = 0.2
raw_upstream = functools.partial(raw_upstream_that_waits, idle_seconds=IDLE_SECONDS)


@pytest.fixture
def run_proxy(run_proxy: RunProxy) -> RunProxy:
    """Look for leaks of a fault while the service still runs."""

    @asynccontextmanager
    async def run(upstream: str, **options: str) -> AsyncIterator[RunningProxy]:
        async with run_proxy(upstream, **options) as proxy, nothing_left_behind():
            yield proxy

    return run


async def error_of(caller: RawCaller, answer: RawAnswer) -> dict[str, str]:
    """Return the inner object of the envelope."""
    error: dict[str, str] = json.loads(await caller.body(answer))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def last_event(body: bytes) -> dict[str, str]:
    """Return the error in the last event of a stream."""
    assert body.endswith(b"\n\n")
    error: dict[str, str] = json.loads(body.rstrip().rpartition(b"data: ")[2])["error"]
    return error


async def quiet(talk: Conversation) -> None:
    """Send nothing until the other side leaves."""
    await talk.caller_left()


async def test_a_refused_connection_is_502(run_proxy: RunProxy) -> None:
    port = free_port()
    async with run_proxy(f"http://127.0.0.1:{port}") as proxy, raw_caller(proxy.url) as caller:
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert (await error_of(caller, answer))["code"] == "upstream_unreachable"


async def test_a_reset_before_the_response_is_502_and_not_retried(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        talk.reset()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert (await error_of(caller, answer))["code"] == "upstream_bad_response"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"])
async def test_a_response_that_is_not_http_is_502(run_proxy: RunProxy, garbage: bytes) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(garbage)
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert (await error_of(caller, answer))["code"] == "upstream_bad_response"


SPOKEN = [
    b"HTTP/1.1 200 OK\r\nbad header %s\r\n\r\n",
    b"HTTP/1.1 2%s OK\r\n\r\n",
    b"%s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    b"HTTP/1.1 200 OK\r\nX-Y: a\x00%s\r\n\r\n",
]


@pytest.mark.parametrize("garbage", SPOKEN)
async def test_a_token_that_a_broken_upstream_echoes_is_not_logged(
    run_proxy: RunProxy, garbage: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(garbage % talk.request.header("authorization")[0].encode())
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert b"static-upstream-token" not in await caller.body(answer)
    assert proxy.exchanges[-1]["reason"]  # `run_proxy` looks for the token in it


async def test_a_caller_who_leaves_during_the_inspection_closes_the_upstream(
    run_proxy: RunProxy,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        await talk.caller_left()

    credential = """
        source = "static"
        value = "static-upstream-token"
        invalidate_on = [{ status = 200, path = "error_code", in = [110] }]
    """
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=credential) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        await until(lambda: len(upstream.requests) == 1)
        caller.leave()
        await until(lambda: upstream.connections == 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(run_proxy: RunProxy, status: int) -> None:
    async def elsewhere(talk: Conversation) -> None:
        await talk.answer(b"stolen")

    async with raw_upstream(elsewhere) as other:

        async def script(talk: Conversation) -> None:
            await talk.answer(b"", f"Location: {other.url}/v1/x", status=f"{status} Moved")

        async with (
            raw_upstream(script) as upstream,
            run_proxy(upstream.url) as proxy,
            raw_caller(proxy.url) as caller,
        ):
            await caller.send("POST", CHAT, JSON, body=b"{}")
            answer = await caller.answer()
            assert answer.status == 502
            assert answer.header("x-should-retry") == ["false"]
        assert other.requests == []


async def test_a_silent_upstream_is_504_at_the_first_byte_timeout(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(quiet) as upstream,
        run_proxy(upstream.url, options="timeouts = { first_byte = 0.2 }") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 504
        assert (await error_of(caller, answer))["code"] == "upstream_timeout"
        await until(lambda: upstream.connections == 0)


async def test_headers_without_a_body_byte_are_504_too(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options="timeouts = { first_byte = 0.2 }") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        assert (await caller.answer()).status == 504


async def test_silence_in_mid_stream_ends_with_an_error_event(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\ndata: unfin")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options="timeouts = { idle = 0.2 }") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
        assert body.startswith(b"data: 1\n\ndata: {")
        assert b"unfin" not in body
        assert b"[DONE]" not in body
        assert last_event(body)["code"] == "upstream_aborted"
        assert last_event(body)["message"].endswith(": the upstream did not send the rest in time")
        await until(lambda: upstream.connections == 0)
        assert proxy.exchanges[-1]["outcome"] == "upstream_timeout"


async def test_the_total_timeout_ends_an_endless_stream(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        while True:
            await talk.chunk(b": ping\n\n")
            await delay(0.02)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, options="timeouts = { total = 20 }") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        await caller.chunk()
        leap(monkeypatch, 20)
        assert last_event(await caller.body(answer))["code"] == "upstream_aborted"


@pytest.mark.parametrize("events", [1, 10, 1000])
async def test_a_stream_that_breaks_gives_its_events_and_one_error_event(
    run_proxy: RunProxy, events: int
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        for number in range(events):
            await talk.chunk(b"data: %d\n\n" % number)
        await talk.writer.drain()
        talk.writer.close()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
    told = b"".join(b"data: %d\n\n" % number for number in range(events))
    assert body.startswith(told)
    assert body[len(told) :].count(b"data: ") == 1
    assert last_event(body)["code"] == "upstream_aborted"
    assert b"[DONE]" not in body


@pytest.mark.parametrize(
    "no_error", [b"", b'"error":false,', b'"error":null,', b'"error":{},', b'"error":"",']
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_chat_stream_without_an_end_marker_is_an_error(
    run_proxy: RunProxy, path: str, no_error: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(
            b"data: {" + no_error + b'"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n'
        )
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", path, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
        assert last_event(body)["code"] == "upstream_aborted"


@pytest.mark.parametrize("sized", [False, True])
async def test_a_stream_without_an_event_is_502(run_proxy: RunProxy, sized: bool) -> None:  # noqa: FBT001
    async def script(talk: Conversation) -> None:
        if sized:
            await talk.answer(b"", "Content-Type: text/event-stream")
        else:
            await talk.start_stream()
            await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert (await error_of(caller, answer))["code"] == "upstream_bad_response"


async def test_a_short_stream_with_a_length_is_inspected_like_any_other(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b'data: {"choices": []}\n\n', "Content-Type: text/event-stream")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
    assert last_event(body)["message"] == "the response was cut off: the upstream ended it early"


@pytest.mark.parametrize("error", [b'data: {"error": {"message": "x"}}\n\n', b'data:{ "error":"x"}\r\n\r\n'])
async def test_an_error_of_the_upstream_is_forwarded_once(run_proxy: RunProxy, error: bytes) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b'data: {"choices": []}\n\n')
        await talk.chunk(error)
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
    assert body == b'data: {"choices": []}\n\n' + error
    line = proxy.exchanges[-1]
    assert (line["status"], line["outcome"], line["reason"]) == (200, "error_inside", "error")
    assert [key.outcome for key in proxy.services.worker.exchanges.requests] == ["error_inside"]


@pytest.mark.parametrize("ending", ["stays open", "breaks"])
async def test_a_cut_after_the_end_marker_is_not_an_error(run_proxy: RunProxy, ending: str) -> None:
    whole = b'data: {"choices": []}\n\ndata: [DONE]\n\n'

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(whole)
        if ending == "breaks":
            talk.reset()
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        assert await caller.body(await caller.answer()) == whole
        await until(lambda: upstream.connections == 0)
    assert proxy.exchanges[-1]["outcome"] == "ok"


async def test_an_upstream_that_switches_protocols_is_502(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == 502
        assert (await error_of(caller, answer))["code"] == "upstream_bad_response"


async def test_a_wait_for_a_token_does_not_count_as_upstream_time(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = asyncio.Event()

    async def issue(talk: Conversation) -> None:
        await give.wait()
        await talk.answer(b'{"access_token": "late", "expires_in": 300}')

    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async with raw_upstream(issue) as issuer, raw_upstream(script) as upstream:
        credential = f'source = "http"\nurl = "{issuer.url}/token"\ntoken = "access_token"\ntimeout = 120'
        async with (
            run_proxy(upstream.url, credential=credential, options="timeouts = { first_byte = 20 }") as proxy,
            raw_caller(proxy.url) as caller,
        ):
            await caller.send("POST", CHAT, JSON, body=b"{}")
            await until(lambda: proxy.services.credentials["corp"].source.reading().waiters == 1)
            leap(monkeypatch, 40)  # twice what the upstream would get
            give.set()
            assert (await caller.answer()).status == 200


async def test_the_responses_api_gets_a_named_error_event(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"event: response.created\ndata: {}\n\n")
        talk.reset()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/responses", JSON, body=b"{}")
        body = await caller.body(await caller.answer())
        assert b"\n\nevent: error\ndata: {" in body


async def test_an_event_over_the_cap_ends_the_stream(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await talk.chunk(b"data: " + b"x" * 5000)
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more="[limits]\nmax_event_bytes = 4096") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
        assert body.startswith(b"data: 1\n\ndata: {")
        assert last_event(body)["code"] == "upstream_aborted"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_any_other_body_that_breaks_aborts_the_connection(run_proxy: RunProxy, framing: str) -> None:
    async def script(talk: Conversation) -> None:
        if framing == "length":
            await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mp3\r\nContent-Length: 100\r\n\r\nhalf")
        else:
            await talk.start_stream(content_type="application/json")
            await talk.chunk(b'{"half"')
        talk.writer.close()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/files/x/content")
        answer = await caller.answer()
        with pytest.raises((asyncio.IncompleteReadError, ValueError)):
            await caller.body(answer)
        await until(lambda: bool(proxy.exchanges))
        assert proxy.exchanges[-1]["outcome"] == "upstream_aborted"


async def test_an_empty_response_with_a_length_is_502(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        talk.writer.close()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        assert (await caller.answer()).status == 502


@pytest.mark.parametrize("leave", ["leave", "reset"])
async def test_a_caller_who_leaves_before_the_response_closes_the_upstream(
    run_proxy: RunProxy, leave: str
) -> None:
    async with (
        raw_upstream(quiet) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        await until(lambda: len(upstream.requests) == 1)
        getattr(caller, leave)()
        await until(lambda: upstream.connections == 0)
        await until(lambda: bool(proxy.exchanges))
        assert proxy.exchanges[-1]["outcome"] == "client_gone"
        assert proxy.drain.running == 0


@pytest.mark.parametrize("leave", ["leave", "reset"])
async def test_a_caller_who_leaves_a_silent_stream_closes_the_upstream(
    run_proxy: RunProxy, leave: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        await caller.answer()
        await caller.chunk()
        getattr(caller, leave)()
        await until(lambda: upstream.connections == 0)
        await until(lambda: bool(proxy.exchanges))
        assert proxy.exchanges[-1]["outcome"] == "client_gone"


async def test_more_exchanges_than_connections_are_rejected_at_once(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(quiet) as upstream,
        run_proxy(upstream.url, options="max_connections = 1") as proxy,
        raw_caller(proxy.url) as first,
        raw_caller(proxy.url) as second,
    ):
        await first.send("POST", CHAT, JSON, body=b"{}")
        await until(lambda: len(upstream.requests) == 1)
        await second.send("POST", CHAT, JSON, body=b"{}")
        answer = await second.answer()
        assert (answer.status, answer.header("retry-after")) == (503, ["1"])
        assert (await error_of(second, answer))["code"] == "upstream_overloaded"
        first.leave()
        await until(lambda: upstream.connections == 0)


async def test_a_streamed_upload_that_gets_a_401_asks_for_a_retry(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}", status="401 Unauthorized")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(
            upstream.url, credential=gateway.credential, more="[limits]\nheld_body_bytes = 10"
        ) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/files", "Content-Type: application/octet-stream", body=b"x" * 500_000)
        answer = await caller.answer()
        assert (answer.status, answer.header("retry-after")) == (503, ["1"])
    assert len(upstream.requests) == 1


async def test_a_streamed_upload_that_gets_a_401_is_denied_if_there_is_no_other_token(
    run_proxy: RunProxy,
) -> None:
    statuses = ["200 OK", "401 Unauthorized"]

    async def script(talk: Conversation) -> None:
        await talk.answer(b"{}", status=statuses.pop(0))

    upload = "POST", "/v1/files", "Content-Type: application/octet-stream"
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, more="[limits]\nheld_body_bytes = 10") as proxy,
    ):
        for status in (200, 403):
            async with raw_caller(proxy.url) as caller:
                await caller.send(*upload, body=b"x" * 500_000)
                answer = await caller.answer()
                assert (answer.status, answer.header("retry-after")) == (status, [])


async def test_draining_ends_a_stream_with_an_error_event(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: 1\n\n")
        await talk.caller_left()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        await caller.chunk()
        proxy.drain.stop_all()
        assert last_event(await caller.body(answer))["code"] == "shutting_down"
        assert proxy.exchanges[-1]["outcome"] == "shutting_down"


async def test_draining_answers_waiting_callers(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(quiet) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        await until(lambda: len(upstream.requests) == 1)
        proxy.drain.stop_all()
        assert (await caller.answer()).status == 503


async def test_a_request_id_is_logged_and_never_part_of_an_error(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        talk.reset()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, "X-Request-Id: find-me-429", body=b"{}")
        answer = await caller.answer()
        assert answer.header("x-request-id") == ["find-me-429"]
        assert b"find-me" not in await caller.body(answer)
        assert proxy.exchanges[-1]["request_id"] == "find-me-429"
        assert KEY not in str(proxy.lines)
        assert "static-upstream-token" not in str(proxy.lines)

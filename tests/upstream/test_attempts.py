"""An upstream that fails before its first byte: another one takes over, and the caller notices nothing."""

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.errors import UpstreamTimeout
from proxy.settings import Timeouts
from proxy.upstream.attempts import upload
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.repair_threads import THREADS_MAX
from proxy.upstream.repaired import INLINE_BYTES_MAX
from tests.conftest import KEY, RunningProxy, RunProxy
from tests.credentials.fakes import virtually
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.ports import free_port
from tests.raw_caller import RawAnswer, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, Script, raw_upstream
from tests.upstream.build import build_record, first_byte

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
STREAM = b'data: {"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
UPLOAD = (
    f"POST /v1/files HTTP/1.1\r\nHost: proxy.localhost\r\nAuthorization: Bearer {KEY}\r\n"
    "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
).encode()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Yield an address on which nothing listens."""
    yield f"http://127.0.0.1:{free_port()}"


def says(status: str, *headers: str) -> Script:
    """Return a script that answers every request with this response."""

    async def script(talk: Conversation) -> None:
        await talk.answer(b'{"said": "' + status.encode() + b'"}', *headers, status=status)

    return script


async def resets(talk: Conversation) -> None:
    """Reset every connection when the request has arrived."""
    talk.reset()


async def never_speaks(talk: Conversation) -> None:
    """Do not answer."""
    await talk.caller_left()


async def ends_without_an_event(talk: Conversation) -> None:
    """Start a stream without events."""
    await talk.start_stream()
    await talk.end()


async def streams(talk: Conversation) -> None:
    """Answer with a stream."""
    await talk.start_stream()
    await talk.chunk(STREAM)
    await talk.end()


BACKUP = """
[upstreams.backup]
base_url = "{url}/v1"
"""


@contextlib.asynccontextmanager
async def two(
    run_proxy: RunProxy, first: Script, second: Script, options: str = ""
) -> AsyncIterator[tuple[RunningProxy, RawUpstream, RawUpstream]]:
    """Run the service in front of an upstream and its fallback."""
    async with (
        raw_upstream(first) as main,
        raw_upstream(second) as backup,
        run_proxy(
            main.url, options='fallback = "backup"\n' + options, more=BACKUP.format(url=backup.url)
        ) as proxy,
    ):
        yield proxy, main, backup


async def ask(proxy: RunningProxy, body: bytes = b"{}", *headers: str) -> tuple[RawAnswer, bytes]:
    """Send one request, and return its response."""
    async with raw_caller(proxy.url) as caller:
        await caller.send("POST", CHAT, *(headers or (JSON,)), body=body)
        answer = await caller.answer()
        return answer, await caller.body(answer)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (says("429 Too Many Requests", "Retry-After: 9"), {"status": 429}),
        (says("502 Bad Gateway"), {"status": 502}),
        (says("503 Service Unavailable"), {"status": 503}),
        (says("504 Gateway Timeout"), {"status": 504}),
        (resets, {"code": "upstream_bad_response"}),
        (ends_without_an_event, {"code": "upstream_bad_response"}),
    ],
)
async def test_the_fallback_answers_for_an_upstream_that_fails(
    run_proxy: RunProxy, first: Script, told: dict[str, object]
) -> None:
    async with two(run_proxy, first, streams) as (proxy, main, backup):
        answer, body = await ask(proxy, b'{"model": "m", "stream": true}')
        assert (answer.status, body) == (200, STREAM)
        assert [len(main.requests), len(backup.requests)] == [1, 1]
        assert backup.requests[0].body == b'{"model": "m", "stream": true}'
    exchange = proxy.exchanges[-1]
    assert (exchange["upstream"], exchange["attempts"], exchange["outcome"]) == ("backup", 2, "ok")
    failed = next(line for line in proxy.lines if line["event"] == "attempt_failed")
    assert failed["upstream"] == "chat"
    assert told.items() <= failed.items()


async def test_the_fallback_answers_for_an_unreachable_upstream(run_proxy: RunProxy) -> None:
    with nobody() as url:
        async with (
            raw_upstream(streams) as backup,
            run_proxy(url, options='fallback = "backup"', more=BACKUP.format(url=backup.url)) as proxy,
        ):
            assert (await ask(proxy))[1] == STREAM


async def test_the_fallback_answers_for_an_upstream_that_keeps_silent(run_proxy: RunProxy) -> None:
    async with two(run_proxy, never_speaks, streams, "timeouts.first_byte = 0.2") as (proxy, _, _):
        assert (await ask(proxy))[1] == STREAM


async def test_the_fallback_answers_for_an_upstream_without_a_token(run_proxy: RunProxy) -> None:
    with nobody() as issuer:
        credential = f'source = "http"\nurl = "{issuer}/token"\ntoken = "t"'
        async with (
            raw_upstream(says("200 OK")) as main,
            raw_upstream(streams) as backup,
            run_proxy(
                main.url,
                credential=credential,
                options='fallback = "backup"',
                more=BACKUP.format(url=backup.url),
            ) as proxy,
        ):
            assert (await ask(proxy))[1] == STREAM
            assert not main.requests


@pytest.mark.parametrize(
    "status", ["200 OK", "400 Bad Request", "404 Not Found", "500 Internal Server Error"]
)
async def test_any_other_response_is_forwarded_without_a_fallback(run_proxy: RunProxy, status: str) -> None:
    async with two(run_proxy, says(status), streams) as (proxy, _, backup):
        answer, body = await ask(proxy)
        assert (answer.status, json.loads(body)["said"]) == (int(status[:3]), status)
        assert not backup.requests


async def test_the_statuses_that_are_failures_can_be_configured(run_proxy: RunProxy) -> None:
    options = "fallback_statuses = [500]"
    async with two(run_proxy, says("500 Internal Server Error"), streams, options) as (proxy, _, _):
        assert (await ask(proxy))[1] == STREAM
    async with two(run_proxy, says("429 Too Many Requests"), streams, options) as (proxy, _, _):
        assert (await ask(proxy))[0].status == 429


async def test_the_last_response_is_forwarded_with_its_retry_after(run_proxy: RunProxy) -> None:
    last = says("429 Too Many Requests", "Retry-After: 7")
    async with two(run_proxy, says("503 Service Unavailable"), last) as (proxy, _, _):
        answer, body = await ask(proxy)
        assert (answer.status, answer.header("retry-after")) == (429, ["7"])
        assert json.loads(body)["said"] == "429 Too Many Requests"


async def test_a_failure_after_the_first_byte_is_reported_without_a_fallback(run_proxy: RunProxy) -> None:
    async def breaks_off(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b'data: {"choices": []}\n\n')
        talk.reset()

    async with two(run_proxy, breaks_off, streams) as (proxy, _, backup):
        _, body = await ask(proxy)
        assert b'"code":"upstream_aborted"' in body
        assert not backup.requests


async def test_an_upload_that_is_not_held_gets_one_attempt(run_proxy: RunProxy) -> None:
    more = "[limits]\nheld_body_bytes = 100\n"
    async with (
        raw_upstream(says("503 Service Unavailable")) as main,
        raw_upstream(says("200 OK")) as backup,
        run_proxy(
            main.url, options='fallback = "backup"', more=BACKUP.format(url=backup.url) + more
        ) as proxy,
    ):
        answer, _ = await ask(proxy, b"x" * 500_000, "Content-Type: application/octet-stream")
        assert answer.status == 503
        assert not backup.requests
        answer, _ = await ask(proxy, b"x" * 50, "Content-Type: application/octet-stream")
        assert answer.status == 200
        assert backup.requests[0].body == b"x" * 50


async def test_the_fallback_has_its_own_model_names(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(says("503 Service Unavailable")) as main,
        raw_upstream(says("200 OK")) as backup,
        run_proxy(
            main.url,
            options='fallback = "backup"',
            more=BACKUP.format(url=backup.url) + 'renames = { "gpt-*" = "qwen-max" }',
        ) as proxy,
    ):
        await ask(proxy, b'{"model": "gpt-5", "x": 1}')
        assert main.requests[0].body == b'{"model": "gpt-5", "x": 1}'
        assert backup.requests[0].body == b'{"model": "qwen-max", "x": 1}'


async def test_an_upstream_that_fails_repeatedly_gets_no_requests(run_proxy: RunProxy) -> None:
    async with two(run_proxy, says("503 Service Unavailable"), streams, "breaker.failures = 3") as parts:
        proxy, main, backup = parts
        for _ in range(10):
            assert (await ask(proxy))[1] == STREAM
        assert [len(main.requests), len(backup.requests)] == [3, 10]
        scraped = proxy.services.metrics.render()[0].decode()
    assert 'llm_proxy_upstream_circuit{state="opened",upstream="chat"} 1.0' in scraped
    assert 'llm_proxy_upstream_attempts_total{result="5xx",upstream="chat"} 3.0' in scraped
    assert 'llm_proxy_upstream_attempts_total{result="2xx",upstream="backup"} 10.0' in scraped


async def redirects(talk: Conversation) -> None:
    """Redirect the request, as some APIs do with a download."""
    await talk.answer(b"", "Location: https://files.test/f", status="302 Found")


async def reports_an_error_inside(talk: Conversation) -> None:
    """Report an error that does not say whose fault it is, with a status of success."""
    await talk.answer(b'{"error": {"message": "this text is odd"}}', JSON)


@pytest.mark.parametrize("odd", [redirects, reports_an_error_inside])
async def test_responses_to_the_odd_requests_of_one_caller_open_no_circuit(
    run_proxy: RunProxy, odd: Script
) -> None:
    async def main(talk: Conversation) -> None:
        await (odd if b"odd" in talk.request.body else streams)(talk)

    options = 'breaker.failures = 1\nrepairs = ["true_errors"]'
    async with two(run_proxy, main, streams, options) as (proxy, upstream, backup):
        for count in (1, 2, 3):
            assert (await ask(proxy, b'{"model": "odd"}'))[1] == STREAM
            assert (await ask(proxy))[1] == STREAM
            assert [len(upstream.requests), len(backup.requests)] == [2 * count, count]


@pytest.mark.parametrize(("chunks", "status"), [(3, 413), (1, 408)], ids=["too large", "too slow"])
async def test_an_upload_that_its_caller_does_not_end_is_no_failure_of_the_upstream(
    run_proxy: RunProxy, chunks: int, status: int
) -> None:
    async def main(talk: Conversation) -> None:
        await streams(talk)

    limits = "[limits]\nheld_body_bytes = 100\nmax_body_bytes = 2500\n"
    slow = f"body_timeout = {paced(0.5)}\n" if status == 408 else ""
    async with (
        raw_upstream(main) as upstream,
        run_proxy(upstream.url, options="breaker.failures = 1", more=limits + slow) as proxy,
    ):
        async with raw_caller(proxy.url) as caller:
            await caller.write(UPLOAD + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await until(lambda: upstream.connections > 0)
            for _ in range(chunks - 1):
                await caller.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            assert (await caller.answer()).status == status
        assert (await ask(proxy))[1] == STREAM
        [*_, failed, _] = proxy.exchanges
        scraped = proxy.services.metrics.render()[0].decode()
    assert failed["outcome"] == ("request_too_large" if status == 413 else "request_timeout")
    assert 'llm_proxy_upstream_circuit{state="closed",upstream="chat"} 1.0' in scraped


async def test_the_time_of_a_slow_upload_opens_no_circuit(run_proxy: RunProxy) -> None:
    options = f"breaker.failures = 1\ntimeouts.total = {paced(1.0)}"
    async with (
        raw_upstream(streams) as upstream,
        run_proxy(upstream.url, options=options, more="[limits]\nheld_body_bytes = 2\n") as proxy,
    ):
        async with raw_caller(proxy.url) as caller:
            await caller.write(UPLOAD + b"3\r\nabc\r\n")
            assert (await caller.answer()).status == 504
        [exchange] = proxy.exchanges
        scraped = proxy.services.metrics.render()[0].decode()
    assert exchange["outcome"] == "upstream_timeout"
    assert 'llm_proxy_upstream_circuit{state="closed",upstream="chat"} 1.0' in scraped


@virtually
async def test_only_the_upstream_uses_up_the_first_byte_timeout_of_an_upload() -> None:
    async def hourly() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(3600)
            yield b"x"

    async def send(clock: ExchangeClock, seconds: float) -> None:
        async for _ in upload(b"x", hourly(), clock, build_record()):
            await asyncio.sleep(seconds)
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    for seconds, expected in ((0, 3 * 3600 + 30), (20, 20 + 3 * 3620 + 30), (31, 30)):
        begun = loop.time()
        clock = ExchangeClock(Timeouts(first_byte=30))
        with pytest.raises(UpstreamTimeout):
            await first_byte(clock, send(clock, seconds))
        assert loop.time() - begun == pytest.approx(expected)


async def test_a_sole_upstream_with_an_open_circuit_is_503_at_once(run_proxy: RunProxy) -> None:
    options = "breaker = { failures = 2, cool_down = 30 }"
    async with raw_upstream(resets) as upstream, run_proxy(upstream.url, options=options) as proxy:
        statuses = [(await ask(proxy))[0].status for _ in range(2)]
        answer, body = await ask(proxy)
        assert statuses == [502, 502]
        assert (answer.status, json.loads(body)["error"]["code"]) == (503, "upstream_unavailable")
        assert 28 <= int(answer.header("retry-after")[0]) <= 30
        assert len(upstream.requests) == 2


async def test_a_sole_upstream_gets_every_request_by_default(run_proxy: RunProxy) -> None:
    async with raw_upstream(resets) as upstream, run_proxy(upstream.url) as proxy:
        for _ in range(8):
            assert (await ask(proxy))[0].status == 502
        assert len(upstream.requests) == 8


async def test_several_upstreams_share_the_requests(run_proxy: RunProxy) -> None:
    async with (
        raw_upstream(says("200 OK")) as main,
        raw_upstream(says("200 OK")) as backup,
        run_proxy(main.url, more=BACKUP.format(url=backup.url)) as proxy,
        run_proxy(
            main.url,
            more=BACKUP.format(url=backup.url)
            + '[[routes.models]]\nmatch = "m"\nupstream = { chat = 3, backup = 1 }\n',
        ) as shared,
    ):
        for _ in range(8):
            await ask(shared, b'{"model": "m"}')
        assert [len(main.requests), len(backup.requests)] == [6, 2]
        assert Counter(line["upstream"] for line in shared.exchanges) == {"chat": 6, "backup": 2}
        await ask(proxy)
        assert len(main.requests) == 7


async def test_the_share_of_a_failing_upstream_goes_to_the_others(run_proxy: RunProxy) -> None:
    route = '[[routes.models]]\nmatch = "m"\nupstream = { chat = 1, backup = 1 }\n'
    async with (
        raw_upstream(resets) as main,
        raw_upstream(says("200 OK")) as backup,
        run_proxy(main.url, more=BACKUP.format(url=backup.url) + route) as proxy,
    ):
        statuses = [(await ask(proxy, b'{"model": "m"}'))[0].status for _ in range(12)]
        assert statuses == [200] * 12
        assert len(main.requests) == 5


# --- retries at the same upstream


async def test_a_refused_connection_is_retried(run_proxy: RunProxy) -> None:
    options = "retries = { attempts = 5 }"

    async def come_up() -> None:
        await asyncio.wait_for(seen.wait(), PATIENCE)
        server = await asyncio.start_server(answer, sock=bound)
        async with server:
            await done.wait()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    seen, done = asyncio.Event(), asyncio.Event()
    bound = socket.socket()  # refuses connections until it listens
    bound.bind(("127.0.0.1", 0))
    url = "http://{}:{}".format(*bound.getsockname())
    async with asyncio.TaskGroup() as group, run_proxy(url, options=options) as proxy:
        group.create_task(come_up())
        asking = group.create_task(ask(proxy))
        await until(lambda: any(line["event"] == "attempt_failed" for line in proxy.lines))
        seen.set()
        answered, body = await asking
        assert (answered.status, body) == (200, b"ok")
        done.set()
    assert proxy.exchanges[-1]["attempts"] > 1


def asks_first(times: int, *headers: str, status: str = "503 Service Unavailable") -> Script:
    """Return a script that rejects the first requests and answers the next ones."""
    left = times

    async def script(talk: Conversation) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            await talk.answer(b"{}", *headers, status=status)
        else:
            await talk.answer(b'{"said": "at last"}')

    return script


@pytest.mark.parametrize(
    ("script", "status", "requests"),
    [
        (asks_first(2, "Retry-After: 0"), 200, 3),
        (asks_first(2, "retry-after-ms: 30", status="429 Too Many Requests"), 200, 3),
        (asks_first(1, "x-should-retry: true", status="500 Internal Server Error"), 200, 2),
        (asks_first(3, "Retry-After: 0"), 503, 3),
        (asks_first(1), 503, 1),
        (asks_first(1, "Retry-After: 60"), 503, 1),
        (asks_first(1, "Retry-After: 0", "x-should-retry: false"), 503, 1),
        (resets, 502, 1),
    ],
)
async def test_a_request_is_retried_only_if_the_upstream_asks_for_it(
    run_proxy: RunProxy, script: Script, status: int, requests: int
) -> None:
    options = "retries = { attempts = 2 }"
    async with raw_upstream(script) as upstream, run_proxy(upstream.url, options=options) as proxy:
        answer, _ = await ask(proxy)
        assert (answer.status, len(upstream.requests)) == (status, requests)


async def test_retries_end_with_the_budget(run_proxy: RunProxy) -> None:
    options = "retries = { attempts = 1, budget = 0.2 }"
    script = asks_first(1000, "Retry-After: 0")
    async with raw_upstream(script) as upstream, run_proxy(upstream.url, options=options) as proxy:
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(ask(proxy))
        assert 50 + 5 <= len(upstream.requests) <= 50 + 5 + 10


async def test_a_caller_who_leaves_ends_the_attempts(run_proxy: RunProxy) -> None:
    async with two(run_proxy, never_speaks, streams) as (proxy, main, backup):
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", CHAT, JSON, body=b"{}")
            await until(lambda: bool(main.requests))
            caller.leave()
        await until(lambda: not main.connections and bool(proxy.exchanges))
        assert not backup.requests
    assert proxy.exchanges[-1]["outcome"] == "client_gone"


async def test_the_record_is_of_the_attempt_that_answered(run_proxy: RunProxy) -> None:
    first = says("503 Service Unavailable", "X-Request-Id: from-first")
    more = "[logs]\nbodies = true\n"
    async with raw_upstream(first) as main, raw_upstream(streams) as backup:
        async with run_proxy(
            main.url, options='fallback = "backup"', more=BACKUP.format(url=backup.url) + more
        ) as proxy:
            await ask(proxy)
        exchange = proxy.exchanges[-1]
        assert exchange["bytes_down"] == len(STREAM)
        assert not {"upstream_request_id", "generation", "reason"} & exchange.keys()
        (answered,) = [line["body"] for line in proxy.lines if line["event"] == "response_body"]
        assert answered == STREAM.decode()


async def test_the_total_timeout_covers_all_attempts(run_proxy: RunProxy) -> None:
    options = "timeouts = { first_byte = 0.3, total = 0.4 }"
    more = BACKUP.replace("{url}", "%s") + f"timeouts = {{ first_byte = {paced(10)}, total = 0.6 }}"
    async with (
        raw_upstream(never_speaks) as main,
        raw_upstream(never_speaks) as backup,
        run_proxy(main.url, options='fallback = "backup"\n' + options, more=more % backup.url) as proxy,
    ):
        began = asyncio.get_running_loop().time()
        assert (await ask(proxy))[0].status == 504
        assert asyncio.get_running_loop().time() - began < paced(5)


async def test_a_pause_longer_than_the_timeout_is_skipped(run_proxy: RunProxy) -> None:
    options = "retries = { attempts = 1, longest_wait = 600 }\ntimeouts.first_byte = 60"
    script = asks_first(9, "Retry-After: 300", status="429 Too Many Requests")
    async with raw_upstream(script) as upstream, run_proxy(upstream.url, options=options) as proxy:
        answer, _ = await ask(proxy)
        assert (answer.status, answer.header("retry-after")) == (429, ["300"])


@pytest.mark.parametrize(("total", "expected"), [(0.0, "shutting_down"), (0.3, "upstream_timeout")])
async def test_a_wait_for_a_repair_thread_has_a_clock(
    run_proxy: RunProxy, total: float, expected: str
) -> None:
    options = f'repairs = ["common"]\ntimeouts.total = {total}'
    body = json.dumps({"messages": [{"role": "user", "content": "x" * INLINE_BYTES_MAX}]}).encode()
    async with raw_upstream(streams) as upstream, run_proxy(upstream.url, options=options) as proxy:
        threads = proxy.services.attempts._repair_threads
        threads._running += THREADS_MAX  # all are busy
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ask(proxy, body))
            await until(lambda: bool(threads._waiting))
            if not total:
                proxy.drain.stop_all()
            answer, told = await asked
        threads._running -= THREADS_MAX
        assert (answer.status // 100, json.loads(told)["error"]["code"]) == (5, expected)
        assert upstream.requests == []

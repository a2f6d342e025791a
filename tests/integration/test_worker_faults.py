"""The faults of callers, upstreams and token endpoints, each met by many callers of two workers."""

import asyncio
import contextlib
import functools
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import pytest
import pytest_asyncio

from proxy.credentials.token import SKEW_FRACTION
from tests.cli.worker_processes import Workers, connections, two_workers, write_files
from tests.conftest import KEY, RECIPE
from tests.integration.faulty_parts import (
    END,
    ERROR,
    EVENT,
    JSON,
    LONG_EVENT,
    LONG_EVENTS,
    FaultyIssuer,
    FaultyUpstream,
)
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.ports import free_port
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream
from tests.tls_servers import listening, make_certificate
from tests.waiting import delay, look_again

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.xdist_group("load"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

T = TypeVar("T")

CHAT: Final = "/v1/chat/completions"
CALLERS: Final = 8
"""Concurrent callers: with a probability of 127 in 128, both workers serve some of them."""
WORKERS: Final = 2
LEFT_BEHIND_SECONDS: Final = 5.0
FAILURES: Final = 2
SHORT_SECONDS: Final = paced(2.0)
"""The lifetime of the tokens of the issuer that dies."""
HEARTBEAT: Final = b": heartbeat\n\n"

SETTINGS: Final = """
[[routes.models]]
match = "{name}/*"
upstream = "{name}"

[upstreams.{name}]
base_url = "{url}/v1"
{options}
"""
HASTY: Final = "timeouts = { first_byte = 1, idle = 1 }\n"
"""For upstreams that fall silent. The others may be slow, because the machine may be."""
LIMITS: Final = """
[limits]
body_timeout = 1
max_event_bytes = 100000
"""


@dataclass
class Service:
    """The service with its faulty upstream and token endpoint."""

    folder: Path
    workers: Workers
    upstream: RawUpstream
    script: FaultyUpstream
    issuer: FaultyIssuer
    elsewhere: RawUpstream
    sockets: int = 0
    """The open sockets of both workers without callers."""
    log_is_read: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def log_that_is_read(self) -> Iterator[None]:
        """Read the log, because the service drops lines that nobody reads."""
        self.log_is_read.set()
        reading = asyncio.get_running_loop().create_task(self._read_log())
        try:
            yield
        finally:
            reading.cancel()

    async def _read_log(self) -> None:
        assert self.workers.process.stdout is not None
        while line := await self.workers.process.stdout.readline():
            self.workers.log.append(json.loads(line))
            await self.log_is_read.wait()

    async def each(self, fault: Callable[[RawCaller], Awaitable[T]], callers: int = CALLERS) -> list[T]:
        """Let many callers meet a fault concurrently, each on a new connection."""

        async def meet() -> T:
            async with raw_caller(self.workers.url) as caller:
                return await fault(caller)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(meet()) for _ in range(callers)]
        return [await task for task in tasks]

    async def until_each(
        self, fault: Callable[[RawCaller], Awaitable[T]], wanted: T, meanwhile: Collection[T]
    ) -> None:
        """Let callers meet a fault until all of them see the expected result."""
        async with asyncio.timeout(PATIENCE):
            while (seen := {*await self.each(fault)}) != {wanted}:
                assert seen <= {wanted, *meanwhile}
                await look_again()

    def open_sockets(self) -> int:
        """Count the sockets of both workers."""
        return sum(connections(pid) for pid in self.workers.pids.values())

    async def reload(self, settings: str, event: str, times: int) -> None:
        """Reload the settings, and wait until the event of the result has occurred this often."""
        before = self.count(event)
        (self.folder / "proxy.toml").write_text(settings)
        self.workers.process.send_signal(signal.SIGHUP)
        await until(lambda: self.count(event) == before + times)

    def count(self, event: str) -> int:
        """Count an event in the log."""
        return sum(line["event"] == event for line in self.workers.log)

    async def attempts_running(self) -> float:
        """Return the running attempts of both workers, from their metrics."""
        async with raw_caller(self.workers.url) as caller:
            await caller.send("GET", "/metrics", "Connection: close", key=None)
            text = (await caller.body(await caller.answer())).decode()
        return sum(map(float, re.findall(r"(?m)^llm_proxy_attempts_running\{[^}]*\} (\S+)$", text)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Run two workers in front of a faulty upstream and token endpoint."""
    folder = tmp_path_factory.mktemp("service")
    issuer = FaultyIssuer(SHORT_SECONDS)
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(raw_upstream(_nothing))
        script = FaultyUpstream(elsewhere.url)
        upstream = await stack.enter_async_context(raw_upstream(script))
        tokens = await stack.enter_async_context(raw_upstream(issuer))
        untrusted = await stack.enter_async_context(listening(certificate=make_certificate(folder)))

        def settings(name: str, options: str = "", url: str = upstream.url) -> str:
            return SETTINGS.format(name=name, url=url, options=options)

        def credential(name: str, timeout: int) -> str:
            recipe = RECIPE.format(issuer=tokens.url).replace("/token", f"/{name}")
            upstream_of_it = settings(name, f'credential = "{name}"')
            return f"{upstream_of_it}[credentials.{name}]\n{recipe}\ntimeout = {timeout}\n"

        more = [
            settings("hasty", HASTY),
            settings("repaired", HASTY + 'repairs = ["common"]'),
            settings("beats", HASTY + "heartbeat = 0.1"),
            settings("full", "max_connections = 1"),
            settings("circuit", f"breaker = {{ failures = {FAILURES}, cool_down = {paced(1)} }}"),
            settings("refused", url=f"http://127.0.0.1:{free_port()}"),
            settings("unknown", url="http://nowhere.invalid"),
            settings("untrusted", url=f"https://127.0.0.1:{untrusted}"),
            credential("held", 60),
            credential("hangs", 1),
            credential("dies", 60),
            LIMITS,
        ]
        write_files(folder, upstream.url, RECIPE.format(issuer=tokens.url), more="".join(more))
        (folder / "hypercorn.toml").write_text("readiness_delay = 0\ngraceful_timeout = 1\n")
        workers = await stack.enter_async_context(two_workers(folder))
        service = Service(folder, workers, upstream, script, issuer, elsewhere)
        stack.enter_context(service.log_that_is_read())
        await service.each(a_whole_stream)
        await until(lambda: not upstream.connections)
        assert await service.attempts_running() == 0
        service.sockets = service.open_sockets()
        yield service


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_left_behind(running: Service) -> AsyncIterator[None]:
    """After each test, sockets, upstream connections and attempts are back at their counts within 5 s."""
    yield
    service = running
    if service.workers.process.returncode is not None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(paced(LEFT_BEHIND_SECONDS)):
            # A worker may have accepted a connection only after the first look.
            while (
                service.open_sockets() > service.sockets
                or service.upstream.connections
                or await service.attempts_running()
            ):
                await look_again()
            return
    left = f"{service.open_sockets()} sockets, not {service.sockets}"
    pytest.fail(f"{left}, and {service.upstream.connections} of the upstream")


async def _nothing(talk: Conversation) -> None:
    await talk.caller_left()


async def ask(caller: RawCaller, model: str) -> None:
    """Send a request for a stream."""
    body = json.dumps({"model": model, "stream": True, "messages": []}).encode()
    await caller.send("POST", CHAT, JSON, body=body)


async def stream(caller: RawCaller, model: str) -> bytes:
    """Return the events of a stream."""
    await ask(caller, model)
    answer = await caller.answer()
    assert answer.status == 200
    return await caller.body(answer)


async def code_of(caller: RawCaller, answer: RawAnswer) -> tuple[int, str]:
    """Return the status and the code of an error."""
    return answer.status, json.loads(await caller.body(answer))["error"]["code"]


async def code(caller: RawCaller, model: str) -> tuple[int, str]:
    """Send a request; return the status and the code of its error."""
    await ask(caller, model)
    return await code_of(caller, await caller.answer())


async def status(caller: RawCaller, model: str) -> int:
    """Send a request, and return its status."""
    await ask(caller, model)
    return (await caller.answer()).status


async def begun(caller: RawCaller) -> None:
    """Read the first event of a stream that then stalls."""
    await ask(caller, "stalls")
    await caller.answer()
    assert await caller.chunk() == EVENT


async def a_whole_stream(caller: RawCaller) -> None:
    """Send a request without a fault."""
    assert await stream(caller, "whole") == EVENT + END


def cut(body: bytes) -> bool:
    """Return whether a stream has its event and an error, and no end marker."""
    return body.startswith(EVENT) and b'"upstream_aborted"' in body and b"[DONE]" not in body


# --- callers


async def test_a_caller_who_closes_in_a_stream(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await begun(caller)
        caller.leave()

    await running.each(fault)


async def test_a_caller_who_resets_in_a_stream(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await begun(caller)
        caller.reset()

    await running.each(fault)


async def test_a_caller_who_leaves_before_the_response(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await ask(caller, "silent")
        caller.leave()

    await running.each(fault)


async def test_a_caller_who_sends_more_and_leaves(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await begun(caller)
        await caller.write(b"x")
        caller.leave()

    await running.each(fault)


async def test_a_caller_who_stops_reading_pauses_its_own_upstream(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await ask(caller, "floods")
        await until(lambda: running.script.paused >= CALLERS)
        async with raw_caller(running.workers.url) as other:
            await a_whole_stream(other)
        caller.reset()

    await running.each(fault)


async def test_a_caller_who_reads_slowly_gets_everything(running: Service) -> None:
    async def fault(caller: RawCaller) -> bytes:
        await ask(caller, "long")
        answer = await caller.answer()
        body = b""
        while data := await caller.chunk():
            body += data
            await delay(0.01)
        assert answer.status == 200
        return body

    assert {*await running.each(fault)} == {LONG_EVENT * LONG_EVENTS + END}


async def test_a_caller_who_closes_its_sending_side(running: Service) -> None:
    async def fault(caller: RawCaller) -> None:
        await ask(caller, "whole")
        caller.writer.write_eof()
        answer = await caller.answer()
        if answer.status == 100:  # how the server asks whether the caller still reads
            answer = await caller.answer()
        assert await caller.body(answer) == EVENT + END

    await running.each(fault)


async def test_slow_heads_and_silent_connections_are_closed(running: Service) -> None:
    async def slow_head(caller: RawCaller) -> None:
        await caller.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert (await caller.closed()).startswith(b"HTTP/1.1 408 ")

    async def silent(caller: RawCaller) -> None:
        assert await caller.closed() == b""

    async with asyncio.TaskGroup() as group:
        group.create_task(running.each(slow_head))
        group.create_task(running.each(silent))


async def test_a_slow_body_is_408(running: Service) -> None:
    async def fault(caller: RawCaller) -> tuple[int, str]:
        lines = [
            f"POST {CHAT} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {KEY}",
            "Content-Length: 9",
            JSON,
        ]
        await caller.write("\r\n".join([*lines, "", "{"]).encode())
        return await code_of(caller, await caller.answer())

    assert {*await running.each(fault)} == {(408, "request_timeout")}


async def test_malformed_requests_are_rejected(running: Service) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"

    async def fault(caller: RawCaller, request: bytes, answer: bytes) -> None:
        await caller.write(request)
        assert (await caller.closed()).startswith(b"HTTP/1.1 %b " % answer)

    for request, answer in (
        (head + b"Content-Length: 3\r\n\r\n0\r\n\r\n", b"400"),
        (head + b"\r\n1\r\naXX0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 5000 + b"\r\n", b"431"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    ):
        await running.each(functools.partial(fault, request=request, answer=answer))


async def test_an_upgrade_to_http_2_is_ignored(running: Service) -> None:
    async def fault(caller: RawCaller) -> int:
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
        await caller.send("GET", "/livez", *upgrade)
        return (await caller.answer()).status

    assert {*await running.each(fault)} == {200}


async def test_a_request_byte_by_byte(running: Service) -> None:
    async def fault(caller: RawCaller) -> int:
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n":
            await caller.write(bytes([byte]))
        return (await caller.answer()).status

    assert {*await running.each(fault)} == {200}


# --- upstreams


async def test_an_upstream_that_refuses_connections(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "refused/whole"))
    assert {*codes} == {(502, "upstream_unreachable")}


async def test_an_upstream_that_never_answers(running: Service) -> None:
    assert {*await running.each(lambda caller: code(caller, "hasty/silent"))} == {(504, "upstream_timeout")}


async def test_an_upstream_that_stalls_in_a_stream(running: Service) -> None:
    assert all(map(cut, await running.each(lambda caller: stream(caller, "hasty/stalls"))))


async def test_heartbeats_are_sent_while_an_upstream_is_silent(running: Service) -> None:
    bodies = await running.each(lambda caller: stream(caller, "beats/stalls"))
    assert all(cut(body.replace(HEARTBEAT, b"")) and HEARTBEAT in body for body in bodies)


async def test_an_upstream_that_resets_before_the_response_gets_one_request(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "resets"))
    assert {*codes} == {(502, "upstream_bad_response")}
    assert running.script.sent["resets"] == CALLERS


async def test_an_upstream_that_breaks_off_in_a_stream(running: Service) -> None:
    assert all(map(cut, await running.each(lambda caller: stream(caller, "breaks"))))


async def test_an_upstream_that_stops_without_an_end(running: Service) -> None:
    assert all(map(cut, await running.each(lambda caller: stream(caller, "stops"))))


async def test_a_page_instead_of_an_answer(running: Service) -> None:
    statuses = await running.each(lambda caller: status(caller, "repaired/page"))
    assert all(code >= 400 for code in statuses)


async def test_a_stream_without_an_event(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "empty"))
    assert {*codes} == {(502, "upstream_bad_response")}


async def test_an_error_event_of_the_upstream(running: Service) -> None:
    bodies = await running.each(lambda caller: stream(caller, "fails_in_an_event"))
    assert {*bodies} == {EVENT + ERROR}


async def test_an_endless_event_ends_the_stream(running: Service) -> None:
    assert all(map(cut, await running.each(lambda caller: stream(caller, "endless_event"))))


async def test_an_endless_head_is_a_bad_response(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "endless_head"))
    assert {*codes} == {(502, "upstream_bad_response")}


async def test_endless_interim_responses(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "interim"))
    assert {*codes} == {(502, "upstream_bad_response")}


async def test_invalid_utf8_in_a_stream(running: Service) -> None:
    bodies = await running.each(lambda caller: stream(caller, "repaired/not_utf8"))
    assert all(body.startswith(EVENT) and b'"error"' in body and b"\xff" not in body for body in bodies)


async def test_a_limit_of_the_upstream(running: Service) -> None:
    async def fault(caller: RawCaller) -> tuple[int, list[str]]:
        await ask(caller, "limits")
        answer = await caller.answer()
        return answer.status, answer.header("retry-after")

    assert await running.each(fault) == [(429, ["7"])] * CALLERS
    assert running.script.sent["limits"] == CALLERS


async def test_each_worker_avoids_a_failing_upstream_until_it_recovers(running: Service) -> None:
    model, alone = "circuit/fails_while_down", (503, "upstream_unavailable")
    running.script.is_down = True
    await running.until_each(lambda caller: code(caller, model), alone, [(502, "upstream_bad_response")])
    running.script.is_down = False
    await running.until_each(lambda caller: status(caller, model), 200, [503])


async def test_a_redirect_to_another_host(running: Service) -> None:
    codes = await running.each(lambda caller: code(caller, "redirects"))
    assert {*codes} == {(502, "upstream_bad_response")}
    assert running.elsewhere.accepted == 0


@pytest.mark.parametrize("fault", ["unknown", "untrusted"])
async def test_a_name_or_a_certificate_that_is_wrong(running: Service, fault: str) -> None:
    codes = await running.each(lambda caller: code(caller, f"{fault}/whole"))
    assert {*codes} == {(502, "upstream_unreachable")}


async def test_all_connections_of_each_worker_are_in_use(running: Service) -> None:
    rejected = list[tuple[int, str]]()

    async def fault(caller: RawCaller) -> int:
        await ask(caller, "full/waits")
        answer = await caller.answer()
        if answer.status != 200:
            rejected.append(await code_of(caller, answer))
            if len(rejected) == CALLERS - WORKERS:
                running.script.may_answer.set()
        return answer.status

    assert {*await running.each(fault)} == {200, 503}
    assert len(rejected) >= CALLERS - WORKERS
    assert {*rejected} == {(503, "upstream_overloaded")}
    assert running.script.sent["full/waits"] <= WORKERS


async def test_a_response_byte_by_byte(running: Service) -> None:
    assert {*await running.each(lambda caller: stream(caller, "byte_by_byte"))} == {EVENT + END}


# --- tokens


async def test_a_revoked_token_is_replaced_by_one_fetch(running: Service) -> None:
    before = running.issuer.issued["token"]
    assert {*await running.each(lambda caller: status(caller, "revokes"), 100)} == {200}
    assert running.issuer.issued["token"] == before + 1


async def test_callers_who_leave_do_not_stop_the_fetch_that_others_wait_for(running: Service) -> None:
    model = "held/revokes"

    async def leave(caller: RawCaller) -> None:
        await ask(caller, model)
        await until(lambda: running.issuer.asked["held"] > 1)
        caller.leave()

    await running.each(leave)
    async with asyncio.TaskGroup() as group:
        others = group.create_task(running.each(lambda caller: status(caller, model)))
        await until(lambda: running.script.sent[model] > CALLERS)
        running.issuer.may_issue.set()
    assert {*others.result()} == {200}
    assert running.issuer.issued["held"] == 2


async def test_a_token_endpoint_that_hangs(running: Service) -> None:
    async def fault(caller: RawCaller) -> tuple[int, int]:
        await ask(caller, "hangs/whole")
        answer = await caller.answer()
        return answer.status, len(answer.header("retry-after"))

    assert {*await running.each(fault)} == {(503, 1)}


async def test_a_token_endpoint_that_is_down_costs_nothing_until_the_token_expires(running: Service) -> None:
    async def fault(caller: RawCaller) -> int:
        began = time.time()
        await ask(caller, "dies/returns_the_token")
        answer = await caller.answer()
        if answer.status == 200:
            expires = float(await caller.body(answer))
            assert began < expires - SKEW_FRACTION * SHORT_SECONDS
        return answer.status

    assert {*await running.each(fault)} == {200}
    running.issuer.is_down = True
    await running.until_each(fault, 503, [200])
    running.issuer.is_down = False
    await running.until_each(fault, 200, [503])


# --- the service; its end is the last test


async def test_a_hangup_with_wrong_settings_changes_nothing(running: Service) -> None:
    path = running.folder / "proxy.toml"
    settings = path.read_text()
    await running.reload(f"{settings}\n[nonsense]\n", "reload_rejected", 1)
    await running.each(a_whole_stream)
    path.write_text(settings)


async def test_a_key_that_a_hangup_removes_is_rejected_and_its_streams_continue(running: Service) -> None:
    settings = (running.folder / "proxy.toml").read_text()

    async def fault(caller: RawCaller) -> bool:
        await ask(caller, "beats/stalls")
        answer = await caller.answer()
        await caller.chunk()
        streaming.release()
        return cut(EVENT + (await caller.body(answer)).replace(HEARTBEAT, b""))

    streaming = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        held = group.create_task(running.each(fault))
        for _ in range(CALLERS):
            await streaming.acquire()
        await running.reload(settings.replace(KEY, "sk-new-key-91-0a7c"), "reloaded", WORKERS)
        assert {*await running.each(lambda caller: status(caller, "whole"))} == {401}
    assert all(held.result())
    await running.reload(settings, "reloaded", WORKERS)


async def test_an_unread_log_stops_no_worker(running: Service) -> None:
    running.log_is_read.clear()

    async def fault(caller: RawCaller) -> None:
        for _ in range(100):  # the pipe and its reader hold about 500 lines
            assert await stream(caller, "whole") == EVENT + END

    await running.each(fault)
    running.log_is_read.set()  # otherwise the test could not wait for the process


async def test_sigterm_ends_endless_streams_and_readers_that_are_stuck(running: Service) -> None:
    paused = running.script.paused

    async def endless(caller: RawCaller) -> bytes:
        await ask(caller, "ticks")
        answer = await caller.answer()
        streaming.release()
        return await caller.body(answer)

    async def stuck(caller: RawCaller) -> None:
        await ask(caller, "floods")
        await running.workers.process.wait()

    streaming = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        streams = group.create_task(running.each(endless))
        group.create_task(running.each(stuck))
        for _ in range(CALLERS):
            await streaming.acquire()
        await until(lambda: running.script.paused == paused + CALLERS)
        running.workers.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await running.workers.process.wait() == 0
    assert all(b'"shutting_down"' in body and b"[DONE]" not in body for body in streams.result())

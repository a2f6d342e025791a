"""The faults of callers and upstreams, with two workers: each has its outcome, and leaves nothing behind."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.worker_processes import Workers, connections, two_workers, write_files
from tests.conftest import RECIPE
from tests.loopback import until
from tests.pace import paced
from tests.raw_caller import RawCaller, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("load")]

CHAT: Final = "/v1/chat/completions"
JSON: Final = "Content-Type: application/json"
CALLS: Final = 6
"""Of each fault: with a chance of 31 in 32, both workers meet it."""
LEFT_BEHIND_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.05
SPARE: Final = 1
"""The connection to the issuer of the worker that fetches the second token."""
EVENT: Final = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]}\n\n'
END: Final = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class FaultyUpstream:
    """Fails as the model of the request says."""

    def __init__(self) -> None:
        self.revoked = ""
        self.sent: list[str] = []

    async def __call__(self, talk: Conversation) -> None:
        model = json.loads(talk.request.body)["model"]
        self.sent.append(model)
        await getattr(self, model)(talk)

    async def whole(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(EVENT)
        await talk.chunk(END)
        await talk.end()

    async def byte_by_byte(self, talk: Conversation) -> None:
        await talk.start_stream()
        for byte in EVENT + END:
            await talk.chunk(bytes([byte]))
        await talk.end()

    async def silent(self, talk: Conversation) -> None:
        await talk.caller_left()

    async def stalls(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(EVENT)
        await talk.caller_left()

    async def resets(self, talk: Conversation) -> None:
        talk.reset()

    async def breaks(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(EVENT)
        talk.writer.close()

    async def stops(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(EVENT)
        await talk.end()

    async def empty(self, talk: Conversation) -> None:
        await talk.start_stream()
        await talk.end()

    async def endless_head(self, talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await talk.say(b"X-A: " + b"a" * 65_000 + b"\r\n")

    async def redirects(self, talk: Conversation) -> None:
        await talk.answer(b"", "Location: http://127.0.0.1:9/", status="307 Temporary Redirect")

    async def limits(self, talk: Conversation) -> None:
        await talk.answer(b"{}", JSON, "Retry-After: 7", status="429 Too Many Requests")

    async def revokes(self, talk: Conversation) -> None:
        (header,) = talk.request.header("authorization")
        self.revoked = self.revoked or header
        if header == self.revoked:
            await talk.answer(b"{}", JSON, status="401 Unauthorized")
        else:
            await talk.answer(b"{}", JSON)


class Issuer:
    """Issues tokens."""

    def __init__(self) -> None:
        self.issued = 0

    async def __call__(self, talk: Conversation) -> None:
        self.issued += 1
        token = {"code": 0, "data": {"token": f"token-{self.issued}", "expireTime": 4_000_000_000_000}}
        await talk.answer(json.dumps(token).encode(), JSON)


async def ask(caller: RawCaller, model: str) -> None:
    """Send a request for a stream."""
    body = json.dumps({"model": model, "stream": True, "messages": []}).encode()
    await caller.send("POST", CHAT, JSON, body=body)


async def stream(caller: RawCaller, model: str) -> bytes:
    """The events of a stream."""
    await ask(caller, model)
    answer = await caller.answer()
    assert answer.status == 200
    return await caller.body(answer)


async def code(caller: RawCaller, model: str) -> tuple[int, str]:
    """Status and code of an error."""
    await ask(caller, model)
    answer = await caller.answer()
    return answer.status, json.loads(await caller.body(answer))["error"]["code"]


async def begun(caller: RawCaller) -> None:
    """Read the first event of a stream that stalls then."""
    await ask(caller, "stalls")
    await caller.answer()
    assert await caller.chunk() == EVENT


# --- the faults; each test of one returns when the caller has what it should have


async def a_whole_stream(caller: RawCaller) -> None:
    assert await stream(caller, "whole") == EVENT + END


async def a_response_byte_by_byte(caller: RawCaller) -> None:
    assert await stream(caller, "byte_by_byte") == EVENT + END


async def the_caller_closes_in_a_stream(caller: RawCaller) -> None:
    await begun(caller)
    caller.leave()


async def the_caller_resets_in_a_stream(caller: RawCaller) -> None:
    await begun(caller)
    caller.reset()


async def the_caller_leaves_before_the_answer(caller: RawCaller) -> None:
    await ask(caller, "silent")
    caller.leave()


async def the_caller_sends_more_and_leaves(caller: RawCaller) -> None:
    await begun(caller)
    await caller.write(b"x")
    caller.leave()


async def the_caller_closes_its_sending_side(caller: RawCaller) -> None:
    await ask(caller, "whole")
    caller.writer.write_eof()
    answer = await caller.answer()
    if answer.status == 100:  # how the server asks whether the caller still reads
        answer = await caller.answer()
    assert await caller.body(answer) == EVENT + END


async def the_upstream_resets_before_the_answer(caller: RawCaller) -> None:
    assert await code(caller, "resets") == (502, "upstream_bad_response")


async def the_upstream_breaks_in_a_stream(caller: RawCaller) -> None:
    body = await stream(caller, "breaks")
    assert body.startswith(EVENT)
    assert b"upstream_aborted" in body
    assert b"[DONE]" not in body


async def the_upstream_stops_without_an_end(caller: RawCaller) -> None:
    body = await stream(caller, "stops")
    assert body.startswith(EVENT)
    assert b'"error"' in body
    assert b"[DONE]" not in body


async def the_upstream_stalls_in_a_stream(caller: RawCaller) -> None:
    body = await stream(caller, "stalls")
    assert body.startswith(EVENT)
    assert b'"error"' in body


async def the_upstream_never_answers(caller: RawCaller) -> None:
    assert await code(caller, "silent") == (504, "upstream_timeout")


async def a_stream_without_an_event(caller: RawCaller) -> None:
    assert await code(caller, "empty") == (502, "upstream_bad_response")


async def an_endless_head(caller: RawCaller) -> None:
    assert await code(caller, "endless_head") == (502, "upstream_bad_response")


async def a_redirect(caller: RawCaller) -> None:
    assert await code(caller, "redirects") == (502, "upstream_bad_response")


async def a_limit_of_the_upstream(caller: RawCaller) -> None:
    await ask(caller, "limits")
    answer = await caller.answer()
    assert answer.status == 429
    assert answer.header("retry-after") == ["7"]


async def a_revoked_token(caller: RawCaller) -> None:
    await ask(caller, "revokes")
    assert (await caller.answer()).status == 200


async def two_framings(caller: RawCaller) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    await caller.write(head + b"0\r\n\r\n")
    assert (await caller.closed()).startswith(b"HTTP/1.1 400 ")


async def a_bad_end_of_a_chunk(caller: RawCaller) -> None:
    await caller.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n")
    assert (await caller.closed()).startswith(b"HTTP/1.1 400 ")


async def too_many_headers(caller: RawCaller) -> None:
    await caller.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 5000 + b"\r\n")
    assert (await caller.closed()).startswith(b"HTTP/1.1 431 ")


async def the_preface_of_http_2(caller: RawCaller) -> None:
    await caller.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await caller.closed()).startswith(b"HTTP/1.1 505 ")


FAULTS: Final[tuple[Callable[[RawCaller], Awaitable[None]], ...]] = (
    a_whole_stream, a_response_byte_by_byte, the_caller_closes_in_a_stream, the_caller_resets_in_a_stream,
    the_caller_leaves_before_the_answer, the_caller_sends_more_and_leaves, the_caller_closes_its_sending_side,
    the_upstream_resets_before_the_answer, the_upstream_breaks_in_a_stream, the_upstream_stops_without_an_end,
    the_upstream_stalls_in_a_stream, the_upstream_never_answers, a_stream_without_an_event, an_endless_head,
    a_redirect, a_limit_of_the_upstream, a_revoked_token, two_framings, a_bad_end_of_a_chunk,
    too_many_headers, the_preface_of_http_2,
)  # fmt: skip


def open_sockets(service: Workers) -> int:
    """Of both workers."""
    return sum(connections(pid) for pid in service.pids.values())


async def attempts_running(service: Workers) -> float:
    """Of both workers, as their metrics say."""
    async with raw_caller(service.url) as caller:
        await caller.send("GET", "/metrics", "Connection: close", key=None)
        text = (await caller.body(await caller.answer())).decode()
    return sum(map(float, re.findall(r"(?m)^llm_proxy_attempts_running\{[^}]*\} (\S+)$", text)))


@contextlib.contextmanager
def log_that_is_read(service: Workers, group: asyncio.TaskGroup) -> Iterator[None]:
    """Read the log meanwhile: the service drops lines that nobody reads."""
    assert service.process.stdout is not None
    reading = group.create_task(service.process.stdout.read())
    try:
        yield
    finally:
        reading.cancel()


async def left_behind(service: Workers, upstream: RawUpstream, sockets: int) -> str:
    """What is still open some seconds after a fault."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(paced(LEFT_BEHIND_SECONDS)):
            # A worker may have accepted a connection only after the first look.
            while (  # noqa: ASYNC110 - other processes set no event
                open_sockets(service) > sockets or upstream.connections or await attempts_running(service)
            ):
                await asyncio.sleep(LOOK_SECONDS)
            return ""
    return f"{open_sockets(service)} sockets, not {sockets}, and {upstream.connections} of the upstream"


@pytest.mark.timeout(300)
async def test_every_fault_has_its_outcome_with_two_workers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script, tokens = FaultyUpstream(), Issuer()
    async with raw_upstream(script) as upstream, raw_upstream(tokens) as issuer:
        write_files(tmp_path, upstream.url, RECIPE.format(issuer=issuer.url))
        path = tmp_path / "proxy.toml"
        timeouts = 'credential = "corp"\ntimeouts = { first_byte = 1, idle = 1 }\n'
        path.write_text(path.read_text().replace('credential = "corp"\n', timeouts, 1))
        async with two_workers(tmp_path) as service, asyncio.TaskGroup() as group:
            with log_that_is_read(service, group):
                async with raw_caller(service.url) as caller:
                    await a_whole_stream(caller)
                await until(lambda: not upstream.connections)
                failed, sockets = {}, open_sockets(service) + SPARE
                for fault in FAULTS:
                    for _ in range(CALLS):
                        async with raw_caller(service.url) as caller:
                            try:
                                await fault(caller)
                            except (AssertionError, OSError, ValueError, EOFError) as error:
                                failed[fault.__name__] = repr(error)
                    if left := await left_behind(service, upstream, sockets):
                        failed.setdefault(fault.__name__, left)
    assert failed == {}
    assert script.sent.count("resets") == CALLS
    assert tokens.issued == 2  # one for all workers, and one after the revocation

"""Which connection a request gets: a used one only if no byte of another response can be left on it."""

import asyncio
import contextlib
import gc
import os
import resource
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest
from structlog.testing import capture_logs

from proxy.upstream import connections
from proxy.upstream.connections import (
    PROBATION_CONNECTIONS,
    GuardedConnection,
    UpstreamConnector,
)
from proxy.upstream.http1 import INTERIM_RESPONSES_MAX, ArrivingResponse
from proxy.upstream.transport import UpstreamResponse, UpstreamTransport
from proxy.upstream.websocket import ArrivingMessages
from tests.loopback import until
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream
from tests.socket_upstream import socket_upstream
from tests.upstream.build import PATIENCE, finish, raw_server, reset, send
from tests.upstream.test_http1 import BROKEN_BODIES, HOSTILE
from tests.waiting import delay

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECRET: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign"


@asynccontextmanager
async def eager(idle: float = 0.0, probation: float = 0.0) -> AsyncIterator[UpstreamTransport]:
    """Open a transport which uses idle connections at once, so that each rule is tested alone."""
    connector = UpstreamConnector(tls=False, idle_seconds_min=idle, probation_seconds=probation)
    async with UpstreamTransport(tls=False, connector=connector) as transport:
        yield transport


def says(*answers: bytes) -> Callable[[Conversation], Awaitable[None]]:
    """Return a script that sends these responses in turn, and repeats the last one."""
    left = list(answers)

    async def script(talk: Conversation) -> None:
        await talk.say(left.pop(0) if len(left) > 1 else left[0])

    return script


async def opened(upstream: RawUpstream, transport: UpstreamTransport, **request: object) -> int:
    """Send the described request and then a plain one; return the number of connections that they needed."""
    with contextlib.suppress(httpx2.TransportError):
        await finish(await send(transport, upstream.url, **request))  # type: ignore[arg-type]
    assert await finish(await send(transport, upstream.url)) == b"ok"
    return upstream.accepted


# --- exchanges after which a connection is reused


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_000,
    ],
)
async def test_after_a_sound_answer_a_connection_is_used_again(answer: bytes) -> None:
    async with raw_upstream(says(answer, OK)) as upstream, eager() as transport:
        assert await opened(upstream, transport) == 1


async def test_after_the_answer_to_a_head_it_is_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    async with raw_upstream(says(answer, OK)) as upstream, eager() as transport:
        assert await opened(upstream, transport, method="HEAD") == 1


async def test_after_a_post_with_a_body_it_is_used_again() -> None:
    async with raw_upstream(says(OK)) as upstream, eager() as transport:
        assert await opened(upstream, transport, content=b"{}") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_after_a_body_where_none_is_usual_it_is_closed(method: str) -> None:
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with raw_upstream(says(answer, OK)) as upstream, eager() as transport:
        assert await opened(upstream, transport, method=method, content=b"body") == 2


DOUBTFUL: Final = {
    "surplus line": OK + b"\r\n",
    "surplus beginning": OK + b"HTTP/1.1 2",
    "surplus garbage": OK + b"garbage",
    "surplus answer": OK + SECRET,
    "surplus head": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    "surplus interim answer": OK + b"HTTP/1.1 100 Continue\r\n\r\n",
    "surplus behind chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n",
    "surplus chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n",
    "surplus behind a 204": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "surplus behind a long body": b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_001,
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
    "interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "line before": b"\r\n" + OK,
    "bare line ends": OK.replace(b"\r\n", b"\n"),
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "upgrade": b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
    "odd coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two framings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "error": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
}


@pytest.mark.parametrize("answer", DOUBTFUL.values(), ids=DOUBTFUL.keys())
async def test_after_a_doubtful_answer_it_is_closed(answer: bytes) -> None:
    async with raw_upstream(says(answer, OK)) as upstream, eager() as transport:
        assert await opened(upstream, transport, content=b"{}") == 2


SURPLUS_BODIES: Final = {
    "surplus garbage": b"ok",
    "surplus answer": b"ok",
    "surplus chunk": b"",
    "surplus behind a 204": b"",
    "surplus behind a long body": b"x" * 400_000,
}


@pytest.mark.parametrize("name", SURPLUS_BODIES)
async def test_a_complete_response_is_delivered_whatever_follows_in_the_same_read(name: str) -> None:
    async with raw_upstream(says(DOUBTFUL[name], OK)) as upstream, eager() as transport:
        response = await send(transport, upstream.url, method="DELETE")
        assert await finish(response) == SURPLUS_BODIES[name]
        assert await finish(await send(transport, upstream.url)) == b"ok"
        assert (upstream.accepted, len(upstream.requests)) == (2, 2)


@pytest.mark.parametrize(
    "answer", [*HOSTILE.values(), *BROKEN_BODIES.values()], ids=[*HOSTILE, *BROKEN_BODIES]
)
@pytest.mark.parametrize("step", [0, 7], ids=["at once", "in pieces"])
async def test_an_ambiguous_answer_fails_its_request_and_no_other(answer: bytes, step: int) -> None:
    async def script(talk: Conversation) -> None:
        if len(upstream.requests) > 1:
            await talk.say(OK)
            return
        for start in range(0, len(answer), step or len(answer)):
            await talk.say(answer[start : start + step] if step else answer)
            await asyncio.sleep(0)

    async with raw_upstream(script) as upstream, eager() as transport:
        with pytest.raises(httpx2.TransportError):
            await finish(await send(transport, upstream.url, content=b"{}"))
        assert await finish(await send(transport, upstream.url)) == b"ok"
        assert (upstream.accepted, len(upstream.requests)) == (2, 2)
        await until(lambda: upstream.connections == 1)


@pytest.mark.parametrize("cut", [1, 20, 37, 44, 46])
async def test_a_surplus_is_seen_wherever_the_reads_end(cut: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n"

    async def script(talk: Conversation) -> None:
        if len(upstream.requests) > 1:
            await talk.say(OK)
            return
        await talk.say(answer[:cut])
        await delay(0.01)  # so that it arrives in a separate read
        await talk.say(answer[cut:])

    async with raw_upstream(script) as upstream, eager() as transport:
        assert await opened(upstream, transport) == 2


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", OK[:-1]], ids=["no head", "no body"])
async def test_a_failed_request_is_freed_without_a_collection(answer: bytes) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(answer)
        talk.writer.close()

    def alive() -> int:
        return sum(isinstance(each, GuardedConnection | ArrivingResponse) for each in gc.get_objects())

    async with raw_upstream(script) as upstream, eager() as transport:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            with contextlib.suppress(httpx2.TransportError):
                await finish(await send(transport, upstream.url))
            await until(lambda: alive() <= before)
        finally:
            gc.enable()


async def test_an_answer_before_the_end_of_the_request_leaves_no_used_connection() -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"last"

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])
        await reader.readuntil(b"last\r\n0\r\n\r\n")
        writer.write(OK[-1:])
        await reader.read()

    accepted = list[asyncio.StreamWriter]()
    async with raw_server(early) as place, eager() as transport:
        response = await send(transport, f"http://{place}", content=slow())
        go_on.set()
        assert await finish(response) == b"ok"
        await (await send(transport, f"http://{place}")).aclose()
        assert len(accepted) == 2


@pytest.mark.parametrize("kind", ["streamed", "large"])
async def test_a_body_that_is_not_written_at_once_gets_a_new_connection(kind: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    async with raw_upstream(says(OK)) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        content = pieces() if kind == "streamed" else b"x" * 1_100_000
        await finish(await send(transport, upstream.url, content=content))
        assert upstream.accepted == 2


async def test_an_answer_that_its_caller_has_not_read_blocks_its_connection() -> None:
    async with raw_upstream(says(OK)) as upstream, eager() as transport:
        unread = await send(transport, upstream.url)
        await finish(await send(transport, upstream.url))
        assert upstream.accepted == 2
        await finish(unread)


async def test_callers_who_leave_do_not_keep_others_from_used_connections() -> None:
    async def script(talk: Conversation) -> None:
        if talk.request.target == b"/v1/endless":
            await talk.say(OK[:-1])
            await talk.caller_left()
        else:
            await talk.say(OK)

    async with raw_upstream(script) as upstream, eager() as transport:
        for _ in range(3):
            await (await send(transport, upstream.url)).aclose()  # complete, but unread
            await (await send(transport, upstream.url, b"/v1/endless")).aclose()
        before = upstream.accepted
        for _ in range(3):
            await finish(await send(transport, upstream.url))
        assert upstream.accepted == before + 1


async def test_a_flood_of_interim_answers_ends_the_request() -> None:
    flood = b"HTTP/1.1 103 Early Hints\r\n\r\n" * (INTERIM_RESPONSES_MAX + 1)
    async with raw_upstream(says(flood + OK)) as upstream, eager() as transport:
        with pytest.raises(httpx2.RemoteProtocolError):
            await send(transport, upstream.url)


async def test_a_websocket_gets_a_new_connection_and_leaves_none() -> None:
    async def shake_hands(transport: UpstreamTransport, url: str) -> UpstreamResponse:
        return await transport.open_socket(url, b"/v1/realtime", [], ["realtime"], connect=PATIENCE)

    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with raw_upstream(says(OK, refusal, OK)) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        response = await shake_hands(transport, upstream.url)
        assert response.status == 403
        assert await finish(response) == b"no"
        assert upstream.accepted == 2
        await until(lambda: upstream.connections == 1)
    async with socket_upstream() as upstream_socket, eager() as transport:
        response = await shake_hands(transport, upstream_socket.url)
        messages = response.socket
        assert isinstance(messages, ArrivingMessages)
        await messages.send("hello")
        assert await messages.receive() == "hello"
        await messages.aclose()


# --- bytes that arrive while a connection is idle


class HandUpstream:
    """An upstream in a separate thread, which the test controls while the event loop is blocked."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.peers = list[socket.socket]()
        self.heads = list[bytes]()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.settimeout(PATIENCE)
                if self._tls is not None:
                    peer = self._tls.wrap_socket(peer, server_side=True)
                self.heads.append(peer.recv(65536))
                peer.send(OK)
                self.peers.append(peer)

    def close(self) -> None:
        """Close all sockets."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for peer in self.peers:
            peer.close()


@pytest.fixture(params=["http", "https"])
def by_hand(request: pytest.FixtureRequest, certificate: Path) -> Iterator[tuple[HandUpstream, object]]:
    """An upstream that the test controls step by step, and the TLS setting to reach it."""
    ours = theirs = None
    if request.param == "https":
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(certificate)
        ours.num_tickets = 0
        theirs = ssl.create_default_context(cafile=str(certificate))
    upstream = HandUpstream(ours)
    yield upstream, theirs or False
    upstream.close()


async def test_bytes_that_the_loop_has_not_read_yet_are_seen_at_the_moment_of_use(
    by_hand: tuple[HandUpstream, ssl.SSLContext | bool],
) -> None:
    upstream, tls = by_hand
    connector = UpstreamConnector(tls=tls, idle_seconds_min=0, probation_seconds=0)
    async with UpstreamTransport(tls=tls, connector=connector) as transport:
        assert await finish(await send(transport, upstream.url)) == b"ok"
        await until(lambda: len(upstream.peers) == 1)
        upstream.peers[0].send(SECRET)  # the event loop does not run between here and the request
        assert await finish(await send(transport, upstream.url, content=b"{}")) == b"ok"
    assert len(upstream.heads) == 2


async def test_a_close_that_the_loop_has_not_read_yet_is_seen_at_the_moment_of_use(
    by_hand: tuple[HandUpstream, ssl.SSLContext | bool],
) -> None:
    upstream, tls = by_hand
    connector = UpstreamConnector(tls=tls, idle_seconds_min=0, probation_seconds=0)
    async with UpstreamTransport(tls=tls, connector=connector) as transport:
        assert await finish(await send(transport, upstream.url)) == b"ok"
        await until(lambda: len(upstream.peers) == 1)
        upstream.peers[0].close()
        assert await finish(await send(transport, upstream.url, content=b"{}")) == b"ok"
    assert len(upstream.heads) == 2


async def test_any_byte_on_an_idle_connection_closes_it_at_once() -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(OK)
        talks.append(talk)

    talks = list[Conversation]()
    async with raw_upstream(script) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        assert upstream.connections == 1
        await talks[0].say(b"\n")
        await until(lambda: upstream.connections == 0)


async def test_an_upstream_that_sends_unsolicited_bytes_gets_a_new_connection_for_each_request() -> None:
    async with raw_upstream(says(OK, OK, OK + SECRET, OK)) as upstream, eager() as transport:
        with capture_logs() as lines:
            for _ in range(6):
                assert await finish(await send(transport, upstream.url)) == b"ok"
        assert upstream.accepted == 1 + 3
        (line,) = lines
        assert (line["event"], line["log_level"]) == ("upstream_sends_unsolicited_bytes", "warning")


async def test_an_idle_timeout_at_rest_is_no_reason_for_distrust() -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(OK)
        talks.append(talk)

    talks = list[Conversation]()
    async with raw_upstream(script) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        with capture_logs() as lines:
            await talks[0].say(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
            await until(lambda: upstream.connections == 0)
        assert lines == []


# --- how long connections are idle


async def test_a_connection_is_not_used_before_it_was_idle_for_long_enough() -> None:
    async with raw_upstream(says(OK)) as upstream, eager(idle=10.0) as transport:
        for _ in range(3):
            await finish(await send(transport, upstream.url))
        assert upstream.accepted == 3


async def test_a_connection_that_was_idle_for_long_enough_is_used() -> None:
    async with raw_upstream(says(OK)) as upstream, eager(idle=0.05) as transport, asyncio.timeout(PATIENCE):
        requests = 0
        while requests == upstream.accepted:  # until one of them needs no new connection
            requests += 1
            await finish(await send(transport, upstream.url))


async def test_connections_to_a_new_upstream_are_idle_for_longer() -> None:
    async with raw_upstream(says(OK)) as upstream, eager(probation=10.0) as transport:
        for _ in range(3):
            await finish(await send(transport, upstream.url))
        assert upstream.accepted == 3


async def test_an_upstream_passes_its_probation() -> None:
    async with raw_upstream(says(OK)) as upstream, eager(probation=0.1) as transport:
        first = [await send(transport, upstream.url) for _ in range(PROBATION_CONNECTIONS)]
        for response in first:
            await finish(response)
        async with asyncio.timeout(PATIENCE):
            accepted = 0
            while accepted < upstream.accepted:  # on a busy machine a connection may be idle for too long
                accepted = upstream.accepted
                await delay(0.11)
                for _ in range(3 * PROBATION_CONNECTIONS):
                    await finish(await send(transport, upstream.url))


async def test_the_number_of_idle_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_ON_PROBATION_MAX", 2)
    async with raw_upstream(says(OK)) as upstream, eager(idle=10.0) as transport:
        for _ in range(5):
            await finish(await send(transport, upstream.url))
        await until(lambda: upstream.connections == 2)


async def test_idle_connections_leave_descriptors_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(connections, "IDLE_CONNECTIONS_SHARE", 2 / soft)
    async with raw_upstream(says(OK)) as upstream, eager(idle=10.0) as transport:
        for _ in range(5):
            await finish(await send(transport, upstream.url))
        await until(lambda: upstream.connections == 2)


@pytest.mark.parametrize("offer", [b"", b"Keep-Alive: timeout=1, max=5\r\n"])
async def test_a_connection_closes_when_it_was_idle_for_too_long(
    offer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS_MAX", 60.0 if offer else 0.05)
    answer = OK.replace(b"\r\n", b"\r\n" + offer, 1)
    async with raw_upstream(says(answer)) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        assert upstream.connections == 1
        await until(lambda: upstream.connections == 0)


# --- connections that die


async def test_an_upstream_that_closes_after_thirty_milliseconds_costs_no_request() -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(OK)
        asyncio.get_running_loop().call_later(0.03, talk.writer.close)

    async with raw_upstream(script) as upstream, UpstreamTransport(tls=False) as transport:
        for number in range(60):
            assert await finish(await send(transport, upstream.url, content=b"{}")) == b"ok"
            await delay(0.028 + number / 15_000)


@pytest.fixture
def overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of the connection arrive between the check of the socket and the request."""
    monkeypatch.setattr(GuardedConnection, "_is_readable", lambda _: False)


async def test_a_connection_is_not_used_at_the_age_at_which_the_upstream_closes_them() -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(OK)
        if len(upstream.requests) == 1:
            asyncio.get_running_loop().call_later(0.05, talk.writer.close)

    clock = asyncio.get_running_loop()
    async with raw_upstream(script) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        began = clock.time()
        await until(lambda: upstream.connections == 0)
        await finish(await send(transport, upstream.url))
        await delay(clock.time() - began)  # at least as long as the first one lasted
        await finish(await send(transport, upstream.url))
        assert upstream.accepted == 3


@pytest.mark.usefixtures("overlooked")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_did_not_reach_the_upstream_is_sent_again(
    by_hand: tuple[HandUpstream, ssl.SSLContext | bool], method: str
) -> None:
    upstream, tls = by_hand
    connector = UpstreamConnector(tls=tls, idle_seconds_min=0, probation_seconds=0)
    async with UpstreamTransport(tls=tls, connector=connector) as transport:
        assert await finish(await send(transport, upstream.url)) == b"ok"
        await until(lambda: len(upstream.peers) == 1)
        upstream.peers[0].close()
        if tls and method == "POST":  # cannot be proven there
            with pytest.raises(httpx2.TransportError):
                await send(transport, upstream.url, method=method)
        else:
            assert await finish(await send(transport, upstream.url, method=method)) == b"ok"
            assert len(upstream.heads) == 2


@pytest.mark.usefixtures("overlooked")
async def test_an_answer_that_was_on_its_way_before_the_request_is_not_taken_for_its_answer(
    by_hand: tuple[HandUpstream, ssl.SSLContext | bool],
) -> None:
    upstream, tls = by_hand
    connector = UpstreamConnector(tls=tls, idle_seconds_min=0, probation_seconds=0)
    async with UpstreamTransport(tls=tls, connector=connector) as transport:
        assert await finish(await send(transport, upstream.url)) == b"ok"
        await until(lambda: len(upstream.peers) == 1)
        upstream.peers[0].send(SECRET)
        upstream.peers[0].close()  # nothing that is sent later reaches it
        assert await finish(await send(transport, upstream.url, content=b"{}")) == b"ok"


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("PUT", 3), ("POST", 2), ("PATCH", 2)])
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_request_that_was_delivered_is_sent_again_only_if_that_is_safe(
    method: str, times: int, leave: str
) -> None:
    async def script(talk: Conversation) -> None:
        if len(upstream.requests) != 2:
            await talk.say(OK)
        elif leave == "close":
            talk.writer.close()
        else:
            reset(talk)

    async with raw_upstream(script) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        with contextlib.nullcontext() if times == 3 else pytest.raises(httpx2.TransportError):
            assert await finish(await send(transport, upstream.url, method=method, content=b"x")) == b"ok"
    assert len(upstream.requests) == times


async def test_a_request_is_not_sent_again_when_its_answer_had_begun() -> None:
    async def script(talk: Conversation) -> None:
        if len(upstream.requests) == 1:
            await talk.say(OK)
        else:
            await talk.say(OK[:20])
            talk.writer.close()

    async with raw_upstream(script) as upstream, eager() as transport:
        await finish(await send(transport, upstream.url))
        with pytest.raises(httpx2.TransportError):
            await send(transport, upstream.url, content=b"x")
    assert len(upstream.requests) == 2


async def test_a_tls_connection_closes_although_the_upstream_does_not_take_part(
    by_hand: tuple[HandUpstream, ssl.SSLContext | bool],
) -> None:
    upstream, tls = by_hand
    async with UpstreamTransport(tls=tls) as transport:
        await (await send(transport, upstream.url, method="GET", content=b"x")).aclose()
        await until(lambda: len(upstream.peers) == 1)
        with socket.socket(fileno=os.dup(upstream.peers[0].fileno())) as below_tls:
            below_tls.settimeout(PATIENCE)
            while await asyncio.to_thread(below_tls.recv, 65536):
                pass

"""The connection pool: unchanged targets, no added headers, errors by cause, and reused connections."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from proxy.errors import BodyTimeout, Draining
from proxy.upstream.connections import IDLE_SECONDS_MAX, UpstreamConnector
from proxy.upstream.transport import UpstreamResponse, UpstreamTransport
from tests.loopback import until
from tests.ports import free_port
from tests.raw_upstream import Conversation, Received, Script, raw_upstream
from tests.upstream.build import PATIENCE, finish, raw_server, reset, send
from tests.waiting import until_stable

ALL_PRINTABLE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))


@pytest.fixture
async def transport() -> AsyncIterator[UpstreamTransport]:
    """Open a transport without TLS."""
    async with UpstreamTransport(tls=False) as made:
        yield made


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"ok")


def names_of(request: Received) -> list[str]:
    """Return the names of the headers of a request, in order."""
    return [line.partition(":")[0].lower() for line in request.head.decode().split("\r\n")[1:] if line]


# --- requests


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models/BAAI%2Fbge-m3",
        b"/v1/models/BAAI%2fbge-m3?x=%2F&y=%2f",
        b"/v1/x?a=%20b+c&&=&d",
        b"/v1/x?broken=%zz&half=%4&lone=%",
        b"/v1/x?" + ALL_PRINTABLE,
        b"/v1/x?twice?twice",
        b"/v1/%E4%BD%A0/~a!$&'()*+,;=:@|^`{}[]\"<>",
        b"/v1/a%0Ab",
        b"/v1/%41%2E",
        b"/",
    ],
)
async def test_the_target_is_sent_byte_for_byte(transport: UpstreamTransport, target: bytes) -> None:
    async with raw_upstream(ok) as upstream:
        await finish(await send(transport, upstream.url, target))
    assert upstream.requests[0].target == target


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "QUERY"])
async def test_no_header_is_added(transport: UpstreamTransport, method: str) -> None:
    async with raw_upstream(ok) as upstream:
        await finish(await send(transport, upstream.url, method=method, content=b"held"))
    assert sorted(names_of(upstream.requests[0])) == ["content-length", "host"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_without_a_body_not_even_a_length_is_added(transport: UpstreamTransport, method: str) -> None:
    async def head(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with raw_upstream(head) as upstream:
        await finish(await send(transport, upstream.url, method=method))
    assert names_of(upstream.requests[0]) == ["host"]


async def test_headers_go_out_in_order_with_their_doubles_and_their_bytes(
    transport: UpstreamTransport,
) -> None:
    sent = [(b"x-b", b"1"), (b"x-a", b"\xc3\xa9"), (b"x-b", b"2"), (b"accept", b"a"), (b"user-agent", b"u")]
    async with raw_upstream(ok) as upstream:
        await finish(await send(transport, upstream.url, headers=sent))
    request = upstream.requests[0]
    assert request.header("x-b") == ["1", "2"]
    assert b"\xc3\xa9" in request.head
    assert (request.header("accept"), request.header("user-agent")) == (["a"], ["u"])


async def test_a_large_held_body_arrives_whole_and_with_its_length(transport: UpstreamTransport) -> None:
    content = bytes(range(256)) * 12_000  # 3 MB: more than is written in one piece
    async with raw_upstream(ok) as upstream:
        await finish(await send(transport, upstream.url, content=content))
    request = upstream.requests[0]
    assert request.body == content
    assert request.header("content-length") == [str(len(content))]
    assert sorted(names_of(request)) == ["content-length", "host"]


async def blocks() -> AsyncIterator[bytes]:
    """Yield a streamed body."""
    for number in range(3):
        yield b"block %d " % number


async def test_a_streamed_body_is_framed_once(transport: UpstreamTransport) -> None:
    async with raw_upstream(ok) as upstream:
        await finish(await send(transport, upstream.url, content=blocks()))
    request = upstream.requests[0]
    assert request.body == b"block 0 block 1 block 2 "
    assert request.header("transfer-encoding") == ["chunked"]
    assert request.header("content-length") == []


async def test_a_streamed_body_of_announced_length_keeps_it(transport: UpstreamTransport) -> None:
    async with raw_upstream(ok) as upstream:
        headers = [(b"content-length", b"24")]
        await finish(await send(transport, upstream.url, headers=headers, content=blocks()))
    request = upstream.requests[0]
    assert request.body == b"block 0 block 1 block 2 "
    assert request.header("content-length") == ["24"]
    assert request.header("transfer-encoding") == []


async def test_a_cookie_of_the_upstream_is_not_sent_back(transport: UpstreamTransport) -> None:
    async def bake(talk: Conversation) -> None:
        await talk.answer(b"", "Set-Cookie: session=of-one-caller; Path=/")

    async with raw_upstream(bake) as upstream:
        await finish(await send(transport, upstream.url))
        await finish(await send(transport, upstream.url))
    assert [request.header("cookie") for request in upstream.requests] == [[], []]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_upstream(ok) as other, raw_upstream(ok) as upstream:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with UpstreamTransport(tls=False) as transport:
            await finish(await send(transport, upstream.url))
    assert (len(other.requests), len(upstream.requests)) == (0, 1)


async def test_a_configured_proxy_gets_the_target_unchanged() -> None:
    async with (
        raw_upstream(ok) as forward,
        UpstreamTransport(tls=False, proxy=forward.url) as transport,
    ):
        await finish(await send(transport, "http://name.test", b"/v1/a%2Fb?c=%2f"))
    assert forward.requests[0].target == b"http://name.test/v1/a%2Fb?c=%2f"


# --- responses


async def test_a_read_gives_all_that_has_arrived(transport: UpstreamTransport) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"one ")
        await go_on.wait()
        await talk.say(b"4\r\ntwo \r\n6\r\nthree \r\n4\r\nfour\r\n0\r\n\r\n")  # one segment on the wire

    async with raw_upstream(script) as upstream:
        response = await send(transport, upstream.url)
        body = response
        assert await body.read() == b"one "
        assert not body.has_arrived()
        go_on.set()
        assert await body.read() == b"two three four"
        assert body.has_arrived()
        assert await body.read() == b""
        await response.aclose()


async def test_headers_of_a_response_keep_their_spelling_and_duplicates(transport: UpstreamTransport) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"", "X-Odd: \xe9".encode("latin-1").decode("latin-1"), "x-B: 1", "X-b: 2")

    async with raw_upstream(script) as upstream:
        response = await send(transport, upstream.url)
        await finish(response)
    assert [pair for pair in response.headers if pair[0].lower() == b"x-b"] == [
        (b"x-B", b"1"), (b"X-b", b"2"),
    ]  # fmt: skip
    assert dict(response.headers)[b"X-Odd"] == "\xe9".encode()


async def test_a_header_of_sixty_kilobytes_is_accepted(transport: UpstreamTransport) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"", "X-Long: " + "a" * 60_000)

    async with raw_upstream(script) as upstream:
        response = await send(transport, upstream.url)
        await finish(response)
    assert len(dict(response.headers)[b"X-Long"]) == 60_000


async def test_a_compressed_body_is_not_changed(transport: UpstreamTransport) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"not gzip at all", "Content-Encoding: gzip")

    async with raw_upstream(script) as upstream:
        assert await finish(await send(transport, upstream.url)) == b"not gzip at all"


@pytest.mark.parametrize("when", ["while it waits", "before it waits"])
async def test_a_failed_body_raises_that_very_error(transport: UpstreamTransport, when: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.caller_left()

    error = Draining()
    async with raw_upstream(script) as upstream:
        response = await send(transport, upstream.url)
        body = response
        if when == "before it waits":
            body.fail(error)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            read = group.create_task(_error_of(body))
            await asyncio.sleep(0)
            if when == "while it waits":
                assert not read.done()
                body.fail(error)
        assert read.result() is error
        await response.aclose()
        await until(lambda: upstream.connections == 0)


async def _error_of(body: UpstreamResponse) -> BaseException | None:
    try:
        await body.read()
    except Draining as error:
        return error
    return None


# --- errors by their cause


async def translated(script: Script, *, content: bytes | AsyncIterator[bytes] = b"") -> httpx2.TransportError:
    """Return the error of a request, or of reading its response."""
    async with raw_upstream(script) as upstream, UpstreamTransport(tls=False) as transport:
        with pytest.raises(httpx2.TransportError) as caught:
            await finish(await send(transport, upstream.url, content=content))
    return caught.value


async def test_a_refused_connection_is_a_connect_error(transport: UpstreamTransport) -> None:
    port = free_port()
    with pytest.raises(httpx2.ConnectError) as caught:
        await send(transport, f"http://127.0.0.1:{port}")
    assert type(caught.value) is httpx2.ConnectError


async def test_a_server_that_leaves_without_an_answer_is_no_timeout() -> None:
    async def script(talk: Conversation) -> None:
        talk.writer.close()

    assert type(await translated(script)) is httpx2.RemoteProtocolError


async def test_a_reset_is_a_read_error() -> None:
    async def script(talk: Conversation) -> None:
        reset(talk)

    assert type(await translated(script)) is httpx2.ReadError


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"]
)
async def test_an_answer_that_is_not_sound_http_is_a_protocol_error(answer: bytes) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(answer)
        await talk.caller_left()

    assert type(await translated(script)) is httpx2.RemoteProtocolError


@pytest.mark.parametrize(
    "head", [b"Content-Length: 9\r\n\r\npart", b"Transfer-Encoding: chunked\r\n\r\n4\r\npa"]
)
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_cut_body_is_a_read_error(head: bytes, leave: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\n" + head)
        if leave == "reset":
            reset(talk)
        else:
            talk.writer.close()

    assert type(await translated(script)) is httpx2.ReadError


async def test_a_handshake_that_never_ends_is_a_connect_timeout() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        raw_server(say_nothing) as place,
        UpstreamTransport(tls=ssl.create_default_context()) as transport,
    ):
        with pytest.raises(httpx2.ConnectTimeout):
            await send(transport, f"https://{place}", connect=0.02)


async def test_an_upstream_that_does_not_speak_tls_is_a_connect_error() -> None:
    async def say_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with (
        raw_server(say_http) as place,
        UpstreamTransport(tls=ssl.create_default_context()) as transport,
    ):
        with pytest.raises(httpx2.ConnectError):
            await send(transport, f"https://{place}")


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown"])
async def test_only_a_trusted_certificate_gets_the_request(certificate: Path, trusted: bool) -> None:  # noqa: FBT001
    heads = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    theirs = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    async with raw_server(answer, ours) as place, UpstreamTransport(tls=theirs) as transport:
        if trusted:
            assert await finish(await send(transport, f"https://{place}")) == b"ok"
        else:
            with pytest.raises(httpx2.ConnectError, match="certificate"):
                await send(transport, f"https://{place}")
    assert len(heads) == trusted


async def test_a_proxy_that_refuses_is_a_proxy_error_without_its_password() -> None:
    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"no", status="407 Proxy Authentication Required")

    async with raw_upstream(refuse) as forward:
        address = forward.url.replace("//", "//user:canary-password@")
        async with UpstreamTransport(tls=False, proxy=address) as transport:
            with pytest.raises(httpx2.ProxyError) as caught:
                await send(transport, "https://name.test")
    assert "407" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("end", ["garbage", "reset in mid-upload", "connect timeout"])
async def test_no_error_contains_the_query(end: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.say(b"garbage\r\n\r\n")
        await talk.caller_left()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(Conversation(Received(b""), reader, writer))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    tls = ssl.create_default_context() if end == "connect timeout" else False
    async with (
        raw_upstream(script) as upstream,
        raw_server(break_off) as place,
        UpstreamTransport(tls=tls) as transport,
    ):
        url, connect = {
            "garbage": (upstream.url, PATIENCE),
            "reset in mid-upload": (f"http://{place}", PATIENCE),
            "connect timeout": (upstream.url.replace("http:", "https:"), 0.02),
        }[end]
        content = endless() if end == "reset in mid-upload" else b""
        with pytest.raises(httpx2.TransportError) as caught:
            await send(transport, url, b"/v1?key=canary'x\"canary", content=content, connect=connect)
    assert "canary" not in str(caught.value)


# --- uploads, and responses that are not read


@pytest.mark.parametrize("length", [b"23", b"25"], ids=["too long", "too short"])
async def test_a_streamed_body_that_differs_from_its_length_breaks_off(
    transport: UpstreamTransport, length: bytes
) -> None:
    gone = asyncio.Event()

    async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append((await reader.read(-1)).partition(b"\r\n\r\n")[2])
        gone.set()

    received = list[bytes]()
    headers = [(b"content-length", length)]
    async with raw_server(read_all) as place:
        with pytest.raises(httpx2.TransportError):
            await send(transport, f"http://{place}", headers=headers, content=blocks())
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
    assert len(received[0]) < int(length)


async def test_an_upload_waits_for_an_upstream_that_does_not_read(transport: UpstreamTransport) -> None:
    taken, tasks = 0, asyncio.all_tasks()
    go_on = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 65536

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()

    async with raw_server(read_nothing) as place, asyncio.TaskGroup() as group:
        sending = group.create_task(send(transport, f"http://{place}", content=endless()))
        await until_stable(lambda: taken)
        assert 0 < taken < 1000
        sending.cancel()
        go_on.set()
    await until(lambda: asyncio.all_tasks() <= tasks)


async def test_an_unread_body_pauses_its_upstream(transport: UpstreamTransport) -> None:
    piece, sent = b"x" * 65536, 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1000 * len(piece)))
        for _ in range(1000):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with raw_server(pour) as place:
        response = await send(transport, f"http://{place}")
        await until_stable(lambda: sent)
        assert sent < 500 * len(piece)
        received = 0
        while chunk := await response.read():
            received += len(chunk)
        assert received == 1000 * len(piece)
        await response.aclose()


@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_cancelled_request_closes_its_connection_at_once(
    transport: UpstreamTransport, where: str
) -> None:
    async def script(talk: Conversation) -> None:
        if where == "body":
            await talk.start_stream()
        arrived.set()
        await talk.caller_left()

    async def ask(url: str) -> None:
        response = await send(transport, url)
        try:
            await response.read()
        finally:
            await response.aclose()

    arrived = asyncio.Event()
    async with raw_upstream(script) as upstream:
        before = asyncio.all_tasks()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(upstream.url))
            await arrived.wait()
            asking.cancel()
        await until(lambda: upstream.connections == 0)
        await until(lambda: asyncio.all_tasks() <= before)


# --- connections


async def test_a_connection_whose_answer_was_read_is_used_again() -> None:
    connector = UpstreamConnector(tls=False, idle_seconds_min=0, probation_seconds=0)
    async with raw_upstream(ok) as upstream, UpstreamTransport(tls=False, connector=connector) as transport:
        for _ in range(3):
            await finish(await send(transport, upstream.url))
            assert upstream.connections == 1
    assert len(upstream.requests) == 3


async def test_a_connection_whose_answer_was_not_read_to_its_end_is_closed(
    transport: UpstreamTransport,
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"part")
        await talk.caller_left()

    async with raw_upstream(script) as upstream:
        response = await send(transport, upstream.url)
        assert await response.read() == b"part"
        await response.aclose()
        await until(lambda: upstream.connections == 0)


async def test_a_connection_with_half_an_upload_on_it_is_not_used_again() -> None:
    heads = list[bytes]()

    async def refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        while await reader.read(65536):
            pass

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async with raw_server(refuse_early) as place, UpstreamTransport(tls=False) as transport:
        response = await send(transport, f"http://{place}", content=slow())
        assert await response.read() == b"no"
        await response.aclose()
        await finish(await send(transport, f"http://{place}"))
        assert len(heads) == 2  # otherwise the second would have been read as the body of the first


@pytest.mark.parametrize("fault", [BodyTimeout(), OSError()], ids=["our error", "another error"])
async def test_a_complete_response_is_delivered_although_the_upload_breaks_off_after_it(
    fault: Exception,
) -> None:
    answered, ended = asyncio.Event(), asyncio.Event()

    async def refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        ended.set()

    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        raise fault

    async with raw_server(refuse_early) as place, UpstreamTransport(tls=False) as transport:
        response = await send(transport, f"http://{place}", content=broken())
        answered.set()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert (response.status, await finish(response)) == (413, b"no")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_upload_is_not_sent_again_when_its_connection_dies(
    transport: UpstreamTransport, method: str
) -> None:
    async def once(talk: Conversation) -> None:
        if len(upstream.requests) == 1:
            await ok(talk)
        else:
            talk.reset()

    async with raw_upstream(once) as upstream:
        await finish(await send(transport, upstream.url))
        with pytest.raises(httpx2.TransportError):
            await send(transport, upstream.url, method=method, content=blocks())
    assert len(upstream.requests) == 2


def test_idle_connections_close_before_the_usual_five_seconds_of_servers() -> None:
    assert IDLE_SECONDS_MAX < 5


async def test_closing_closes_every_connection() -> None:
    async with raw_upstream(ok) as upstream:
        async with UpstreamTransport(tls=False) as transport:
            await finish(await send(transport, upstream.url))
            assert upstream.connections == 1
        await until(lambda: upstream.connections == 0)

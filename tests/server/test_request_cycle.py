"""A request and its response on the wire: 100-continue, framing, and responses that break."""

import asyncio
import re
from typing import Any

import pytest

from tests.pace import PATIENCE
from tests.server.conftest import Echo, Message, served
from tests.server.raw import GET, HOST, LAST, bodies, head, part, refusal, start

# --- 100-continue


async def test_a_body_is_requested_when_the_application_reads_it() -> None:
    ask = head(HOST, b"Expect: 100-continue", b"Content-Length: 3")
    async with served(Echo()) as server:
        caller = await server.connect()
        caller.writer.write(ask)
        assert await caller.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.writer.write(b"abc" + LAST)
        assert bodies(await caller.rest()) == [b"POST /p|abc", b"GET /z|"]
        caller.writer.close()


async def test_a_reader_that_begins_before_a_cancelled_one_has_ended_gets_the_body() -> None:
    """An upload is cancelled, and the rest of its body read so that the caller reads the response."""
    cancelled = asyncio.Event()
    got: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(receive())
            await asyncio.sleep(0)
            upload.add_done_callback(lambda _: cancelled.set())
            upload.cancel()
            got.append(await receive())
        await send(start())
        await send(part(b"", more=False))

    async with served(app) as server:
        caller = await server.connect()
        caller.writer.write(head(HOST, b"Content-Length: 3"))
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()
            caller.writer.write(b"abc")
            await caller.head()
        caller.writer.close()
    assert [message["body"] for message in got] == [b"abc"]


async def test_a_body_that_is_not_read_is_not_requested() -> None:
    async def refuse(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(refuse) as server:
        answer = await server.talk(head(HOST, b"Expect: 100-continue", b"Content-Length: 3"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


# --- responses


def responding(*messages: Message) -> Any:
    """An application that answers every request with these messages."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        for message in messages:
            await send(message)

    return app


async def test_a_response_without_a_length_is_chunked() -> None:
    async with served(responding(start(), part(b"ab"), part(b""), part(b"c", more=False))) as server:
        answer = await server.talk(LAST)
    assert answer.endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert answer.count(b"transfer-encoding: chunked") == 1


async def test_an_old_caller_gets_a_response_that_ends_with_the_connection() -> None:
    async with served(responding(start(), part(b"ab"), part(b"c", more=False))) as server:
        answer = await server.talk(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"connection: close\r\n\r\nabc")
    assert b"transfer-encoding" not in answer


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_some_responses_have_no_body(method: bytes, status: int) -> None:
    app = responding(start(status, (b"content-length", b"3")), part(b"abc", more=False))
    async with served(app) as server:
        answer = await server.talk(method + LAST[3:])
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [start(), part(b"ab")],
        [start(200, (b"content-length", b"3")), part(b"ab", more=False)],
        [start(200, (b"content-length", b"1")), part(b"a"), part(b"b", more=False)],
    ],
    ids=["never ended", "too short", "too long"],
)
async def test_a_broken_response_does_not_look_complete(messages: list[Message]) -> None:
    async with served(responding(*messages)) as server:
        answer = await server.talk(GET + GET)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert not answer.endswith(b"0\r\n\r\n")
    if (length := re.search(rb"content-length: (\d+)", answer)) is not None:
        # A body that is too long is cut at its announced length.
        assert len(answer.partition(b"\r\n\r\n")[2]) <= int(length[1])
        assert answer[-2:] != b"ab"


async def test_a_broken_response_to_an_old_caller_ends_with_a_reset() -> None:
    async with served(responding(start(), part(b"ab"))) as server:
        caller = await server.connect()
        caller.writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await caller.head()
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


async def test_an_application_that_fails_before_its_response_is_a_500() -> None:
    async def fail(scope: Message, receive: Any, send: Any) -> None:
        raise ValueError

    async with served(fail) as server:
        assert refusal(await server.talk(GET)) == (500, "internal_error")


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\nb", b"a\0b"])
async def test_a_header_cannot_split_a_response(value: bytes) -> None:
    async with served(responding(start(200, (b"x", value)), part(b"", more=False))) as server:
        answer = await server.talk(GET)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"X: b" not in answer

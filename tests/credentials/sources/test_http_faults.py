"""Endpoints that do not answer, answer too much, or redirect: all waits are bounded, and no secret leaks."""

import asyncio
import gzip
import traceback
import zlib
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import pytest

from proxy.credentials.sources.http import PIECES_AT_ONCE, PIECES_MAX, REPLY_BYTES_MAX, HttpTokenSource
from proxy.secret import Secret
from proxy.transport_failure import origin_of
from tests.credentials.sources.token_endpoint import TokenEndpoint, failure_of, fetch, recipe_of
from tests.loopback import serve_on_loopback, until
from tests.pace import PATIENCE
from tests.ports import free_port
from tests.raw_upstream import Conversation, raw_upstream


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(endpoint: TokenEndpoint, status: int) -> None:
    elsewhere = TokenEndpoint()
    async with serve_on_loopback(elsewhere.app()) as elsewhere.url:
        endpoint.status, endpoint.headers["Location"] = status, elsewhere.url + "/s3cret"
        error = await failure_of(
            recipe_of(
                url=endpoint.url,
                form={"client_secret": Secret("s3cret")},
                headers={"X-Key": Secret("s3cret")},
                basic=("id", Secret("s3cret")),
            )
        )
    assert f"answered {status}; redirects are not followed" in error.reason
    assert not error.permanent
    assert len(endpoint.asked) == 1
    assert elsewhere.asked == []


async def test_a_redirect_to_nowhere_is_a_temporary_failure(endpoint: TokenEndpoint) -> None:
    endpoint.status, endpoint.headers["Location"] = 302, "http://[s3cret"
    error = await failure_of(recipe_of(url=endpoint.url))
    assert not error.permanent
    assert "s3cret" not in str(error)


async def test_an_endless_reply_is_rejected_and_not_read_further() -> None:
    sent = 0
    gone = asyncio.Event()

    async def pour(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.start_stream(content_type="application/json")
        try:
            while True:
                await conversation.chunk(b" " * 65536)
                sent += 65536
        except ConnectionError:
            gone.set()
            raise

    async with raw_upstream(pour) as issuer:
        error = await failure_of(recipe_of(url=issuer.url))
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
    assert error.reason == f"the reply of the token endpoint {issuer.url} is too large: check the URL"
    assert not error.permanent
    assert sent < 16 * REPLY_BYTES_MAX  # the capacity of the socket buffers


async def in_pieces(count: int) -> AsyncIterator[bytes]:
    """Yield a reply in tiny pieces that have all arrived already."""
    yield b'{"access_token": "t"}'
    for _ in range(count - 1):
        yield b" "


@pytest.mark.parametrize("count", [PIECES_MAX, PIECES_MAX + 1])
async def test_a_reply_in_many_pieces_does_not_block_the_loop_and_is_limited(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    async def send(*_: object) -> httpx2.Response:
        return httpx2.Response(200, content=in_pieces(count))

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", send)
    turns, ended = 0, False

    async def other() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    recipe = recipe_of(url="http://127.0.0.1/t")
    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        if count > PIECES_MAX:
            assert (await failure_of(recipe)).reason.endswith("is too large: check the URL")
        else:
            assert (await fetch(recipe)).secret.reveal() == "t"
        ended = True
    assert turns >= PIECES_MAX // PIECES_AT_ONCE


async def test_ten_megabytes_are_rejected(endpoint: TokenEndpoint) -> None:
    endpoint.body = b'{"access_token": "t", "padding": "' + b"x" * 10_000_000 + b'"}'
    assert (await failure_of(recipe_of(url=endpoint.url))).reason.endswith("is too large: check the URL")


async def test_the_limit_applies_to_the_decompressed_reply(endpoint: TokenEndpoint) -> None:
    endpoint.body = gzip.compress(b'{"access_token": "t"}' + b" " * 10_000_000)
    endpoint.headers["Content-Encoding"] = "gzip"
    assert (await failure_of(recipe_of(url=endpoint.url))).reason.endswith("is too large: check the URL")
    endpoint.body = gzip.compress(b'{"access_token": "t"}')
    assert (await fetch(recipe_of(url=endpoint.url))).secret.reveal() == "t"


NOTHING: Final = gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * (REPLY_BYTES_MAX // 4)
"""Blocks without a byte in them."""


@pytest.mark.parametrize(
    ("coding", "body", "fault"),
    [
        ("gzip", NOTHING, "is too large: check the URL"),
        ("gzip", b"s3cret", "is not in its Content-Encoding"),
        ("deflate", b"s3cret", "is not in its Content-Encoding"),
        ("gzip", gzip.compress(b"s3cret")[:-4], "was cut off within its Content-Encoding"),
        ("gzip, gzip, gzip", gzip.compress(gzip.compress(NOTHING * 8)), "has a Content-Encoding that"),
        ("identity, gzip", gzip.compress(b"s3cret"), "has a Content-Encoding that"),
        ("xyzzy", b"s3cret", "has a Content-Encoding that"),
    ],
    ids=["nothing in it", "no gzip", "no deflate", "cut", "three codings", "two codings", "unknown"],
)
async def test_a_body_in_an_odd_coding_is_not_expanded(
    endpoint: TokenEndpoint, coding: str, body: bytes, fault: str
) -> None:
    endpoint.headers["Content-Encoding"], endpoint.body = coding, body
    error = await failure_of(recipe_of(url=endpoint.url))
    assert error.reason.startswith(f"the reply of the token endpoint {origin_of(endpoint.url)} {fault}")
    assert not error.permanent
    assert "s3cret" not in repr(error)
    endpoint.status = 401
    assert "answered 401" in (await failure_of(recipe_of(url=endpoint.url))).reason


async def test_a_zlib_reply_is_expanded(endpoint: TokenEndpoint) -> None:
    endpoint.headers["Content-Encoding"], endpoint.body = "deflate", zlib.compress(b'{"access_token": "t"}')
    assert (await fetch(recipe_of(url=endpoint.url))).secret.reveal() == "t"


async def test_a_reply_of_the_largest_size_is_read(endpoint: TokenEndpoint) -> None:
    body = b'{"access_token": "t"}'
    endpoint.body = body + b" " * (REPLY_BYTES_MAX - len(body))
    assert (await fetch(recipe_of(url=endpoint.url))).secret.reveal() == "t"


async def test_an_endpoint_that_does_not_listen() -> None:
    port = free_port()
    error = await failure_of(recipe_of(url=f"http://127.0.0.1:{port}/token"))
    assert error.reason.startswith(f"the token endpoint http://127.0.0.1:{port}: connection refused; ")
    assert not error.permanent


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
async def test_a_reply_that_never_arrives(begun: bytes) -> None:
    async def stall(conversation: Conversation) -> None:
        await conversation.say(begun)
        await conversation.caller_left()

    async with raw_upstream(stall) as issuer:
        error = await failure_of(recipe_of(url=issuer.url, timeout=0.05))
    assert error.reason.startswith(f"the token endpoint {issuer.url}: connected, but no response in time; ")
    assert not error.permanent


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"s3cret\r\n\r\n",
        b"HTTP/1.1 s3cret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ns3cret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"access_token": "s3cret"}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n{"access_token": "s3cret"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5000 + b"2\r\n\r\n{}",
    ],
)
async def test_a_reply_that_is_not_http_is_a_temporary_failure_and_is_not_quoted(answer: bytes) -> None:
    async def babble(conversation: Conversation) -> None:
        await conversation.say(answer)
        raise ConnectionError

    async with raw_upstream(babble) as issuer:
        error = await failure_of(recipe_of(url=issuer.url, form={"client_secret": Secret("s3cret")}))
    assert error.reason.startswith(f"the token endpoint {issuer.url}: ")
    assert not error.permanent
    assert "s3cret" not in "".join(traceback.format_exception_only(error)) + repr(error)


async def test_a_cancelled_fetch_closes_its_connection() -> None:
    async def stall(conversation: Conversation) -> None:
        await conversation.caller_left()

    async with raw_upstream(stall) as issuer:
        source = HttpTokenSource(recipe_of(url=issuer.url))
        task = asyncio.get_running_loop().create_task(source.fetch())
        await until(lambda: bool(issuer.requests))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await until(lambda: issuer.connections == 0)
        await source.close()

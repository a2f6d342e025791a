"""Builders for the tests of upstreams: a request, a client, a credential, a raw server."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from proxy.credentials import UpstreamCredential
from proxy.settings import Inject, Upstream
from proxy.telemetry import ExchangeRecord
from proxy.upstream.client import UpstreamClient
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.transport import UpstreamResponse, UpstreamTransport
from proxy.wire.headers import Headers
from tests.credentials.fakes import FakeIssuer, build_machine
from tests.loopback import until
from tests.pace import PATIENCE as PATIENCE
from tests.raw_upstream import Conversation

T = TypeVar("T")
GIVE_UP = struct.pack("ii", 1, 0)
"""SO_LINGER without a wait: closing resets the connection."""


def build_record() -> ExchangeRecord:
    """Return the record of an exchange."""
    return ExchangeRecord("id", "POST", "/v1/models")


def build_request(
    method: str = "POST",
    path: bytes = b"/models",
    query: bytes = b"",
    headers: Headers | None = None,
    body: bytes = b"",
) -> UpstreamRequest:
    """Return a request with a held body."""
    return UpstreamRequest(method=method, path=path, query=query, headers=headers or [], body=body)


def build_credential(issuer: FakeIssuer, injection: Inject | None = None) -> UpstreamCredential:
    """Return a credential with tokens of the issuer."""
    return UpstreamCredential(build_machine(issuer), injection or Inject())


def build_client(
    url: str, credential: UpstreamCredential | None = None, name: str = "chat", **settings: object
) -> UpstreamClient:
    """Return the client of an upstream at a URL."""
    section = Upstream.model_validate({"base_url": f"{url}/v1", **settings})
    return UpstreamClient(name, section, credential)


async def first_byte(clock: ExchangeClock, wait: Awaitable[T]) -> T:
    """Await the beginning of a response, with the timeouts of the clock."""
    async with clock.first_byte():
        return await wait


async def read_all(response: UpstreamResponse) -> bytes:
    """Return the whole body, and close the response."""
    body = b""
    while chunk := await response.read():
        body += chunk
    await response.aclose()
    return body


def reset(talk: Conversation) -> None:
    """Reset the TCP connection."""
    talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GIVE_UP)
    talk.reset()


@contextlib.asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve raw connections; yield host and port. It ends when all connections have ended."""
    running = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        running += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            running -= 1

    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await until(lambda: running == 0)


async def send(
    transport: UpstreamTransport,
    url: str,
    target: bytes = b"/v1/x",
    *,
    method: str = "POST",
    headers: list[tuple[bytes, bytes]] | None = None,
    content: bytes | AsyncIterator[bytes] = b"",
    connect: float | None = PATIENCE,
) -> UpstreamResponse:
    """Send a request as the client does."""
    async with asyncio.timeout(PATIENCE):
        return await transport.send(method, url, target, headers or [], content, connect=connect)


async def finish(response: UpstreamResponse) -> bytes:
    """Read to the end and close."""
    try:
        return b"".join([chunk async for chunk in response])
    finally:
        await response.aclose()

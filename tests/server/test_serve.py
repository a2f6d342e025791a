"""The server without its connections: the start of the application, the limit of connections, and the end."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from hypercorn.typing import ASGIFramework
from hypercorn.utils import LifespanFailureError

from proxy.server.config import ServerConfig
from proxy.server.serve import limits_of, serve
from tests.pace import PATIENCE
from tests.server.conftest import Echo, Message, served, with_lifespan

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_an_application_that_does_not_start_ends_the_server_with_its_reason() -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no such key"})

    async def never() -> None:
        await asyncio.Event().wait()

    listener = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig()
    config.errorlog = logging.getLogger("tests.server")
    with pytest.raises(LifespanFailureError, match="no such key"):
        async with asyncio.timeout(PATIENCE):
            await serve(cast(ASGIFramework, app), config, [listener], never)
    listener.close()


async def test_a_connection_over_the_limit_is_rejected_and_the_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.server.serve.QUIET_SECONDS", PATIENCE)
    async with served(Echo(), max_connections=1) as server:
        first = await server.connect()
        first.writer.write(GET)
        await first.head()
        refused = await server.talk(b"")
        head, _, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert b'"server_overloaded"' in body
        first.writer.close()
        await first.writer.wait_closed()


async def test_during_the_readiness_delay_each_response_closes_its_connection() -> None:
    leaving = False
    async with served(Echo(), is_leaving=lambda: leaving) as server:
        caller = await server.connect()
        caller.writer.write(GET)
        assert b"connection: close" not in await caller.head()
        await caller.exactly(len(b"GET /a|"))
        leaving = True
        caller.writer.write(GET)
        assert b"connection: close" in await caller.head()
        assert await caller.rest() == b"GET /a|"
        caller.writer.close()


async def test_every_response_has_a_date() -> None:
    async with served(Echo()) as server:
        answer = await server.talk(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        refusal = await server.talk(b"nonsense\r\n\r\n")
    assert answer.lower().count(b"\r\ndate: ") == refusal.lower().count(b"\r\ndate: ") == 1


async def test_another_process_can_go_on_to_listen_on_the_path_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as kept:  # that of a service manager
        kept.bind(str(path))
        kept.listen()
        config = ServerConfig()
        config.errorlog = logging.getLogger("tests.server")
        app = cast(ASGIFramework, with_lifespan(Echo()))

        async def at_once() -> None:
            pass

        async with asyncio.timeout(PATIENCE):
            await serve(app, config, [kept.dup()], at_once)
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()


def test_limits_are_those_of_hypercorns_configuration() -> None:
    config = ServerConfig()
    config.h11_max_incomplete_size = 1000
    config.keep_alive_timeout = 7
    config.keep_alive_max_requests = 3
    limits = limits_of(config)
    assert (limits.head_bytes, limits.idle_seconds, limits.requests) == (1000, 7, 3)

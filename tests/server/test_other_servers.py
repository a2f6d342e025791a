"""uvicorn and Granian in place of our server: what they cannot serve, and how they start and end."""

import asyncio

import pytest
from quart import Quart

from proxy.cli.server import load_server_config, open_sockets
from proxy.errors import SettingsError
from proxy.server.config import ServerConfig
from proxy.server.other_servers import OURS, check_server, serve_on
from tests.pace import PATIENCE

SERVERS = pytest.mark.parametrize("server", ["uvicorn", "granian"])


def check(server: str, config: ServerConfig, workers: int = 1) -> None:
    check_server(server, config, workers, [])


@pytest.mark.parametrize(
    ("server", "workers", "bind", "certificate", "problem"),
    [
        ("uvicorn", 1, "127.0.0.1:0", "chain.pem", "TLS needs"),
        ("granian", 1, "127.0.0.1:0", "chain.pem", "TLS needs"),
        ("granian", 2, "127.0.0.1:0", None, "one worker"),
        ("granian", 1, "unix:/tmp/a", None, "HOST:PORT"),
    ],
)
def test_options_that_a_server_does_not_support_are_rejected(
    server: str, workers: int, bind: str, certificate: str | None, problem: str
) -> None:
    config = ServerConfig()
    config.bind, config.certfile = [bind], certificate
    with pytest.raises(SettingsError, match=problem):
        check(server, config, workers)


def test_a_server_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(SettingsError, match=r"--server absent: .*pip install .*\[absent\]"):
        check("absent", ServerConfig())


def test_uvicorn_serves_several_workers_and_any_socket() -> None:
    config = ServerConfig()
    config.bind = ["unix:/tmp/a", "127.0.0.1:0"]
    check("uvicorn", config, 4)


def test_our_own_server_serves_any_configuration() -> None:
    config = ServerConfig()
    config.bind, config.certfile = ["unix:/tmp/a", "127.0.0.1:0"], "chain.pem"
    check(OURS, config, 4)


def test_every_problem_is_reported_at_once() -> None:
    config = ServerConfig()
    config.bind, config.certfile = ["unix:/tmp/a"], "chain.pem"
    with pytest.raises(SettingsError) as raised:
        check("granian", config, 2)
    assert [problem.partition(": ")[2].split()[0] for problem in str(raised.value).splitlines()] == [
        "certfile:",
        "it",
        "it",
    ]


@SERVERS
async def test_an_application_that_does_not_start_is_an_error(server: str) -> None:
    app = Quart(__name__)

    @app.before_serving
    async def fail() -> None:
        raise ValueError("not today")

    config = load_server_config("127.0.0.1:0")
    (listener,) = open_sockets(config.bind, backlog=10)
    with listener, pytest.raises(Exception, match=r"ended by itself|ASGI lifespan startup"):
        await serve_on(server, app, config, [listener], asyncio.Event().wait, max_connections=10)


@SERVERS
async def test_the_server_ends_when_it_is_stopped(server: str) -> None:
    app, ended = Quart(__name__), asyncio.Event()
    app.after_serving(ended.set)
    config = load_server_config("127.0.0.1:0")
    (listener,) = open_sockets(config.bind, backlog=10)
    stopped = asyncio.Event()
    stopped.set()  # even if that happens before it has started
    with listener:
        async with asyncio.timeout(PATIENCE):
            await serve_on(server, app, config, [listener], stopped.wait, max_connections=10)
    assert ended.is_set()

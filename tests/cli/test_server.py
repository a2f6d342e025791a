"""Sockets that another process opened: a new program takes over, and no connection is refused."""

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proxy.cli.serve import check_binds
from proxy.cli.server import inherited_sockets, load_server_config, open_sockets
from proxy.errors import SettingsError
from proxy.server.config import RULES, TLS_KEYS, ServerConfig
from proxy.settings import load_settings
from tests.cli.processes import ROOT, read_until
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller

START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(1, 2)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "proxy", "serve", "--config", "config/proxy.toml"])
"""


@asynccontextmanager
async def activated(listener: socket.socket) -> AsyncIterator[asyncio.subprocess.Process]:
    """Serve the runnable default on this socket, as systemd would start it."""
    descriptor = listener.fileno()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", START, str(descriptor),
        cwd=ROOT, pass_fds=[descriptor], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_an_upgrade_with_an_inherited_socket_loses_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "http://{}:{}".format(*listener.getsockname())
        async with activated(listener) as old, activated(listener) as new, asyncio.TaskGroup() as group:
            for service in (old, new):
                assert address in await read_until(service, "base URL")
            calls, ended = 0, asyncio.Event()

            async def call() -> None:
                nonlocal calls
                while not ended.is_set():
                    async with raw_caller(address) as caller:
                        await caller.send("GET", "/livez", key=None)
                        assert (await caller.answer()).status == 200
                    calls += 1

            callers = [group.create_task(call()) for _ in range(4)]
            old.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                assert await old.wait() == 0
            before = calls
            while calls < before + 20:
                await asyncio.sleep(0)
                assert not any(task.done() for task in callers)
            ended.set()


def test_only_sockets_for_this_process_are_used() -> None:
    assert inherited_sockets({}) == []
    assert inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    with pytest.raises(SettingsError, match="LISTEN_FDS"):
        inherited_sockets({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())})


async def test_public_keys_are_rejected_on_a_reachable_inherited_socket() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        async with activated(listener) as service:
            said = await read_until(service, "\n")
            assert re.search(r"default keys are known to everybody and rejected on 0\.0\.0\.0:", said)
            async with asyncio.timeout(PATIENCE):
                assert await service.wait() == 2


@pytest.mark.parametrize("bind", ["5002", "localhost", "http://127.0.0.1:5002", ":5002", "127.0.0.1:http"])
def test_what_is_not_an_address_is_reported_before_the_public_keys(bind: str) -> None:
    settings = load_settings(ROOT / "config/proxy.toml", {})
    with pytest.raises(SettingsError, match="must be HOST:PORT"):
        check_binds(settings, [bind])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("bind = 5002", "bind: must be an address"),
        ("bind = []", "bind: must be an address"),
        ("bind = [5002]", "bind: must be an address"),
        ('backlog = "x"', "backlog: must be a whole number, 1 or more"),
        ("backlog = 1.5", "backlog: must be a whole number, 1 or more"),
        ("workers = true", "workers: must be a whole number, 1 or more"),
        ('graceful_timeout = "25"', "graceful_timeout: must be a number of seconds, 0 or more"),
        ("keep_alive_timeout = -1", "keep_alive_timeout: must be a number of seconds, 0 or more"),
        ("readiness_delay = inf", "readiness_delay: must be a number of seconds, 0 or more"),
        ("max_app_queue_size = 0", "max_app_queue_size: must be a whole number, 1 or more"),
        ("root_path = 1", "root_path: must be a string"),
        ("websocket_ping_interval = 0", "websocket_ping_interval: must be a number of seconds, more than 0"),
        ("certfile = 1", "certfile: must be a string"),
        ('include_server_header = "false"', "include_server_header: must be true or false"),
    ],
)
def test_a_wrong_value_of_the_server_is_reported_with_its_line(
    line: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text(f"# 服务器\n{line}\n", encoding="utf-8-sig")
    with pytest.raises(SettingsError) as caught:
        load_server_config(None, path)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}:2: {problem}")


@pytest.mark.parametrize("key", sorted({key for key in dir(ServerConfig) if key[0] != "_"} - RULES.keys()))
def test_a_key_that_the_server_does_not_read_is_rejected(key: str, tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text(f"workers = 1\n{key} = 1\n")
    with pytest.raises(SettingsError, match=rf"hypercorn\.toml:2: {key}: has no effect"):
        load_server_config(None, path)


@pytest.mark.parametrize("key", sorted(TLS_KEYS))
def test_a_key_of_tls_needs_a_certificate(key: str, tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text(f'\n{key} = "some"\n')
    with pytest.raises(SettingsError, match=rf":2: {key}: needs (certfile|keyfile).* there is no TLS"):
        load_server_config(None, path)
    path.write_text("".join(f'{each} = "some"\n' for each in {key, "certfile", "keyfile"}))
    assert getattr(load_server_config(None, path), key) == "some"


def test_a_file_of_deeply_nested_tables_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text(f"bind = {'[' * 20_000}{']' * 20_000}")
    with pytest.raises(SettingsError, match="nested too deeply"):
        load_server_config(None, path)


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.EAFNOSUPPORT, "has no IPv6"), (errno.EMFILE, "run fewer workers")]
)
def test_a_socket_that_the_system_does_not_give_is_explained(
    number: int, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("proxy.cli.server.socket.socket", fail)
    with pytest.raises(SettingsError, match=cure):
        open_sockets(["[::1]:0"], backlog=1)

"""Serving and draining in this process, with short timeouts."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.cli.server import load_server_config, open_sockets
from proxy.cli.worker import ServeOptions, serve_until_stopped
from proxy.errors import SettingsError
from proxy.server.config import ServerConfig
from proxy.settings import Settings, load_settings
from tests.cli.processes import ROOT, read_until, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.loopback import until
from tests.pace import PATIENCE
from tests.ports import free_port
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.waiting import look_again


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


async def endless(talk: Conversation) -> None:
    """Start a stream that never ends."""
    await talk.start_stream()
    await talk.chunk(b"data: 1\n\n")
    await talk.caller_left()


async def test_an_endless_stream_gets_its_error_event_and_the_service_ends(tmp_path: Path) -> None:
    async with raw_upstream(endless) as upstream, asyncio.TaskGroup() as group:
        path = tmp_path / "proxy.toml"
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        server = load_server_config(None)
        server.graceful_timeout, server.readiness_delay = 0.3, 0
        sockets = open_sockets(["127.0.0.1:0"], backlog=10)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        service = group.create_task(
            serve_until_stopped(load_settings(path, {}), ServeOptions(server, sockets))
        )
        async with raw_caller(url) as caller, raw_caller(url) as idle:
            await caller.send("POST", "/v1/chat/completions", body=b"{}")
            answer = await caller.answer()
            await caller.chunk()
            await idle.send("GET", "/readyz", key=None)
            assert (await idle.answer()).status == 200
            os.kill(os.getpid(), signal.SIGTERM)
            body = await caller.body(answer)
            assert b'"code":"shutting_down"' in body
            async with asyncio.timeout(PATIENCE):
                await service


IMPATIENT = """
import functools, pathlib, sys
from proxy.cli.worker import ServeOptions, serve_until_stopped
from proxy.cli.server import load_server_config, open_sockets
from proxy.server.event_loop import run
from proxy.settings import Settings, load_settings
server = load_server_config(None)
server.graceful_timeout, server.readiness_delay = 0.3, 0
sockets = open_sockets(["127.0.0.1:0"], backlog=10)
print(sockets[0].getsockname()[1], flush=True)
settings = load_settings(pathlib.Path(sys.argv[1]), {})
run(functools.partial(serve_until_stopped, settings, ServeOptions(server, sockets, hard_stop_seconds=1.0)))
"""


async def test_a_caller_who_never_reads_does_not_keep_the_service_alive(tmp_path: Path) -> None:
    async def flood(talk: Conversation) -> None:
        await talk.start_stream()
        while True:
            await talk.chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    path = tmp_path / "proxy.toml"
    async with raw_upstream(flood) as upstream:
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        async with running(sys.executable, "-c", IMPATIENT, str(path)) as service:
            port = (await read_until(service, r"\d+\n")).strip()
            async with raw_caller(f"http://127.0.0.1:{port}") as caller:
                await caller.send("POST", "/v1/chat/completions", body=b"{}")
                await caller.answer()
                service.send_signal(signal.SIGTERM)
                async with asyncio.timeout(PATIENCE):
                    assert await service.wait() == 0


@dataclass
class Draining:
    """A service that was told to stop."""

    url: str
    stop: Callable[[], object]
    task: asyncio.Task[None]
    lines: list[EventDict]

    @property
    def calls(self) -> list[EventDict]:
        """The log lines of the exchanges that reached the upstream."""
        return [line for line in self.lines if line["event"] == "exchange" and line["method"] == "POST"]


def settings_for(folder: Path, upstream: str) -> Settings:
    """Return settings with one upstream."""
    path = folder / "proxy.toml"
    path.write_text(SETTINGS.format(key=KEY, upstream=upstream, credential=STATIC, options="", more=""))
    return load_settings(path, {})


@asynccontextmanager
async def draining(
    settings: Settings, *, delay: float, grace: float = 30, hard_stop: float = 1.0
) -> AsyncIterator[Draining]:
    """Serve in this process; the block begins before the signal, which is `stop`."""
    server = load_server_config(None)
    server.readiness_delay, server.graceful_timeout = delay, grace
    sockets = open_sockets(["127.0.0.1:0"], backlog=10)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            service = group.create_task(
                serve_until_stopped(settings, ServeOptions(server, sockets, hard_stop_seconds=hard_stop))
            )
            await until(lambda: any(line["event"] == "serving" for line in lines))
            async with raw_caller(url) as caller:
                await caller.send("GET", "/livez", key=None)
                await caller.answer()
            yield Draining(url, lambda: os.kill(os.getpid(), signal.SIGTERM), service, lines)


async def status(url: str, method: str, path: str) -> tuple[int, list[str]]:
    """Send a request on a new connection; return its status and its `Connection` headers."""
    async with raw_caller(url) as caller:
        await caller.send(method, path, body=b"{}" if method == "POST" else b"")
        answer = await caller.answer()
        await caller.body(answer)
        return answer.status, answer.header("connection")


async def test_requests_rejected_by_the_server_are_counted_by_status(tmp_path: Path) -> None:
    requests = (
        b"GET / HTTP/1.1\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    )  # fmt: skip
    async with (
        raw_upstream(answer_at_once) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=0) as service,
    ):
        for request in requests:
            async with raw_caller(service.url) as caller:
                await caller.write(request)
                await caller.closed()
        async with raw_caller(service.url) as caller:
            await caller.send("GET", "/metrics", "Connection: close", key=None)
            text = (await caller.body(await caller.answer())).decode()
        service.stop()
    counted = dict(re.findall(r'(?m)^llm_proxy_http_rejections_total\{status="(\d+)"\} (\S+)$', text))
    assert counted == {"400": "2.0", "501": "1.0", "505": "1.0", "431": "1.0"}


async def test_readiness_ends_before_the_port_closes_and_requests_are_still_served(tmp_path: Path) -> None:
    async with (
        raw_upstream(answer_at_once) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=3600) as service,
        raw_caller(service.url) as kept,
    ):
        assert await status(service.url, "GET", "/readyz") == (200, [])
        await kept.send("GET", "/livez", key=None)
        await kept.body(await kept.answer())
        service.stop()
        await until(lambda: service.lines[-1]["event"] == "not_ready")
        assert await status(service.url, "GET", "/readyz") == (503, ["close"])
        assert await status(service.url, "GET", "/livez") == (200, ["close"])
        assert await status(service.url, "POST", "/v1/chat/completions") == (200, ["close"])
        await kept.send("POST", "/v1/chat/completions", body=b"{}")
        assert (await kept.answer()).header("connection") == ["close"]
        service.stop()  # a second signal skips the rest of the delay
        async with asyncio.timeout(PATIENCE):
            await service.task
        with pytest.raises(ConnectionRefusedError):
            await status(service.url, "GET", "/readyz")
    events = [line["event"] for line in service.lines if line["event"] != "exchange"]
    assert events[-3:] == ["not_ready", "draining", "stopped"]


async def test_the_port_closes_when_the_readiness_delay_is_over(tmp_path: Path) -> None:
    async with (
        raw_upstream(answer_at_once) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=0.3) as service,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        service.stop()
        async with asyncio.timeout(PATIENCE):
            await service.task
        assert loop.time() - began >= 0.3
        with pytest.raises(ConnectionRefusedError):
            await status(service.url, "GET", "/readyz")


async def test_streams_go_on_through_the_delay_and_the_drain(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def held(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b'data: {"choices": []}\n\n')
        await go_on.wait()
        await talk.chunk(b"data: [DONE]\n\n")
        await talk.end()

    async with (
        raw_upstream(held) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=0.2) as service,
        raw_caller(service.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b'{"stream": true}')
        answer = await caller.answer()
        service.stop()
        await until(lambda: service.lines[-1]["event"] == "draining")
        go_on.set()
        assert (await caller.body(answer)).endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(PATIENCE):
            await service.task
        (line,) = service.calls
        assert line["outcome"] == "ok"


async def test_a_caller_whose_body_still_arrives_at_the_end_of_the_drain_gets_a_503(tmp_path: Path) -> None:
    async with (
        raw_upstream(ok) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=0, grace=0.3, hard_stop=PATIENCE) as service,
        raw_caller(service.url) as caller,
    ):
        await caller.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode()
            + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )  # fmt: skip
        assert (await caller.answer()).status == 100  # The body is awaited.
        await caller.write(b"{")
        service.stop()
        answer = await caller.answer()
        assert (answer.status, answer.header("connection")) == (503, ["close"])
        assert json.loads(await caller.body(answer))["error"]["code"] == "shutting_down"
        async with asyncio.timeout(PATIENCE):
            await service.task
    (line,) = service.calls
    assert line["outcome"] == "shutting_down"


async def test_a_reader_that_the_drain_ends_is_logged_as_ended_by_the_proxy(tmp_path: Path) -> None:
    async def flood(talk: Conversation) -> None:
        await talk.start_stream()
        while True:
            await talk.chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    async with (
        raw_upstream(flood) as upstream,
        draining(settings_for(tmp_path, upstream.url), delay=0, grace=0.3) as service,
        raw_caller(service.url) as stuck,
    ):
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
        await stuck.send("POST", "/v1/chat/completions", body=b"{}")
        await until(lambda: len(upstream.requests) == 1)
        service.stop()
        async with asyncio.timeout(PATIENCE):
            await service.task
    (line,) = service.calls
    assert line["outcome"] == "shutdown"
    assert [line for line in service.lines if "exc_info" in line] == []


def test_unknown_server_options_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text("keep_alive_timeut = 3\n")
    with pytest.raises(
        SettingsError, match='toml:1: keep_alive_timeut: unknown key, did you mean "keep_alive_timeout"'
    ):
        load_server_config(None, path)
    path.write_text('readiness_delay = "5 s"\n')
    with pytest.raises(SettingsError, match="readiness_delay: must be a number of seconds"):
        load_server_config(None, path)
    path.write_text("workers = 0\n")
    with pytest.raises(SettingsError, match="workers: must be a whole number, 1 or more"):
        load_server_config(None, path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_server_config(None, tmp_path / "absent.toml")


def test_the_projects_server_file_is_valid() -> None:
    config = load_server_config("127.0.0.1:6000")
    assert config.bind == ["127.0.0.1:6000"]
    assert config.keep_alive_timeout == 75
    assert (config.readiness_delay, config.graceful_timeout) == (5, 25)
    assert isinstance(config, ServerConfig)


def test_every_kind_of_socket_is_opened(tmp_path: Path) -> None:
    listeners = open_sockets(["127.0.0.1:0", f"unix:{tmp_path / 'a.sock'}"], backlog=1)
    try:
        assert [listener.family for listener in listeners] == [socket.AF_INET, socket.AF_UNIX]
    finally:
        for listener in listeners:
            listener.close()


def test_a_unix_socket_that_a_program_listens_on_is_not_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    (running,) = open_sockets([f"unix:{path}"], backlog=1)
    with running, contextlib.ExitStack() as callers:
        for _ in range(4):  # the last of them find a full backlog
            with pytest.raises(SettingsError, match="another program listens there"):
                open_sockets([f"unix:{path}"], backlog=1)
            caller = callers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            caller.setblocking(False)  # noqa: FBT003 - the name says it
            caller.connect_ex(str(path))
    (successor,) = open_sockets([f"unix:{path}"], backlog=1)
    with successor, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(path))


async def test_a_hangup_applies_valid_settings_and_rejects_invalid_ones(tmp_path: Path) -> None:
    async def ok(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async def status_by(url: str, key: str) -> int:
        async with raw_caller(url) as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}", key=key)
            return (await caller.answer()).status

    path = tmp_path / "proxy.toml"
    serve = shlex.join(
        [sys.executable, "-m", "proxy", "serve", "--config", str(path), "--bind", "127.0.0.1:0"]
    )
    async with raw_upstream(ok) as upstream:

        def write(key: str) -> None:
            text = SETTINGS.format(key=key, upstream=upstream.url, credential=STATIC, options="", more="")
            path.write_text(text)

        write(KEY)
        async with running("sh", "-c", f"exec {serve} 2>&1") as service:
            said = await read_until(service, r"http://127\.0\.0\.1:\d+")
            url = re.findall(r"http://127\.0\.0\.1:\d+", said)[0]
            assert [await status_by(url, KEY), await status_by(url, "sk-new-key-91")] == [200, 401]
            write("sk-new-key-91")
            service.send_signal(signal.SIGHUP)
            await read_until(service, "reloaded")
            assert [await status_by(url, KEY), await status_by(url, "sk-new-key-91")] == [401, 200]
            path.write_text("[access]\nkeys = 1")
            service.send_signal(signal.SIGHUP)
            said = await read_until(service, "reload_rejected")
            assert "access.keys" in said
            assert await status_by(url, "sk-new-key-91") == 200


async def test_a_hangup_as_soon_as_it_serves_reloads_the_runnable_default() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    async with running("sh", "-c", f"exec {serve} --config config/proxy.toml 2>&1") as service:
        await read_until(service, "serving")
        service.send_signal(signal.SIGHUP)
        said = await read_until(service, "reload")
        assert "reloaded" in said


async def test_a_hangup_as_soon_as_the_port_accepts_does_not_end_the_service() -> None:
    port = free_port()
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", f"127.0.0.1:{port}"])
    async with running("sh", "-c", f"exec {serve} --config config/proxy.toml 2>&1") as service:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                break
        service.send_signal(signal.SIGHUP)
        assert "reloaded" in await read_until(service, "reload")
        writer.close()
        service.send_signal(signal.SIGINT)
        await read_until(service, "stopped")


@pytest.mark.parametrize("log", ["unread", "full", "without reader", "closed"])
async def test_a_dead_log_changes_nothing_for_callers_and_the_service_still_ends(
    tmp_path: Path, log: str
) -> None:
    path = tmp_path / "proxy.toml"
    async with raw_upstream(answer_at_once) as upstream:
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        port = free_port()
        reading, writing = os.pipe()
        if log == "without reader":
            os.close(reading)
        elif log == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), writing)
        closing = ["sh", "-c", 'exec "$@" 2>&-', "sh"] if log == "closed" else []
        process = await asyncio.create_subprocess_exec(
            *closing, sys.executable, "-m", "proxy", "serve", "--config", path,
            "--bind", f"127.0.0.1:{port}", cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=writing,
        )  # fmt: skip
        try:
            await accepting(port)
            async with asyncio.timeout(PATIENCE):
                async with raw_caller(f"http://127.0.0.1:{port}") as caller:
                    for _ in range(300):  # a pipe holds about 130 lines
                        await caller.send("POST", "/v1/chat/completions", body=b"{}")
                        answer = await caller.answer()
                        assert answer.status == 200
                        await caller.body(answer)
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            os.close(writing)
            if log != "without reader":
                os.close(reading)


async def answer_at_once(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


async def accepting(port: int) -> None:
    """Wait until a port accepts connections."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await look_again()

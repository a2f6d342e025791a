"""Serving and draining in this process, with the clocks turned down."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest
from hypercorn.config import Config
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.cli.serve import announce, serve_until_stopped
from proxy.cli.server import load_server_config, open_sockets
from proxy.errors import SettingsError
from proxy.settings import load_settings
from tests.cli.processes import ROOT, read_until, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream


async def endless(talk: Conversation) -> None:
    """A stream that begins and never ends."""
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
        server.graceful_timeout = 0.3
        sockets = open_sockets(["127.0.0.1:0"], backlog=10)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        service = group.create_task(serve_until_stopped(load_settings(path, {}), server, sockets))
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
from proxy.cli.serve import serve_until_stopped
from proxy.cli.server import load_server_config, open_sockets, run
from proxy.settings import load_settings
server = load_server_config(None)
server.graceful_timeout = 0.3
sockets = open_sockets(["127.0.0.1:0"], backlog=10)
print(sockets[0].getsockname()[1], flush=True)
settings = load_settings(pathlib.Path(sys.argv[1]), {})
run(functools.partial(serve_until_stopped, settings, server, sockets, 1.0))
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


def test_unknown_server_knobs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text("keep_alive_timeut = 3\n")
    with pytest.raises(SettingsError, match="keep_alive_timeut: unknown key"):
        load_server_config(None, path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_server_config(None, tmp_path / "absent.toml")


def test_the_projects_server_file_is_sound() -> None:
    config = load_server_config("127.0.0.1:6000")
    assert config.bind == ["127.0.0.1:6000"]
    assert config.keep_alive_timeout == 75
    assert config.graceful_timeout == 25
    assert isinstance(config, Config)


def test_sockets_of_every_kind(tmp_path: Path) -> None:
    listeners = open_sockets(["127.0.0.1:0", f"unix:{tmp_path / 'a.sock'}"], backlog=1)
    try:
        again = open_sockets([f"unix:{tmp_path / 'a.sock'}"], backlog=1)
        listeners += again
    finally:
        for listener in listeners:
            listener.close()


async def test_a_hangup_puts_new_settings_in_force_and_refuses_wrong_ones(tmp_path: Path) -> None:
    async def ok(talk: Conversation) -> None:
        await talk.answer(b"{}")

    async def status(url: str, key: str) -> int:
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
            assert [await status(url, KEY), await status(url, "sk-new-key-91")] == [200, 401]
            write("sk-new-key-91")
            service.send_signal(signal.SIGHUP)
            await read_until(service, "reloaded")
            assert [await status(url, KEY), await status(url, "sk-new-key-91")] == [401, 200]
            path.write_text("[access]\nkeys = 1")
            service.send_signal(signal.SIGHUP)
            said = await read_until(service, "reload_refused")
            assert "access.keys" in said
            assert await status(url, "sk-new-key-91") == 200


async def test_a_hangup_as_soon_as_it_serves_reloads_the_runnable_default() -> None:
    serve = shlex.join([sys.executable, "-m", "proxy", "serve", "--bind", "127.0.0.1:0"])
    async with running("sh", "-c", f"exec {serve} --config config/proxy.toml 2>&1") as service:
        await read_until(service, "serving")
        service.send_signal(signal.SIGHUP)
        said = await read_until(service, "reload")
        assert "reloaded" in said


async def test_a_hangup_as_soon_as_the_port_accepts_does_not_end_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
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
        service.send_signal(signal.SIGTERM)
        await read_until(service, "stopped")


OPERATORS_KEY = "sk-canary-of-the-operator"


def announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], access: str, more: str = ""
) -> tuple[list[EventDict], str]:
    """What is logged and printed at the start, with these settings."""
    path = tmp_path / "proxy.toml"
    path.write_text(f'{access}\n[upstreams.a]\nbase_url = "http://127.0.0.1:9/v1"\n{more}')
    settings = load_settings(path, {})
    with capture_logs() as lines, contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        announce(settings, [listener])
    return lines, capsys.readouterr().out


def keys(*texts: str) -> str:
    """An `[access]` with these keys."""
    return "".join(f'[[access.keys]]\nname = "c{n}"\nkey = "{text}"\n' for n, text in enumerate(texts))


def test_the_banner_shows_a_public_key_and_never_the_operators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, banner = announced(tmp_path, capsys, keys(OPERATORS_KEY, "sk-local"), "[gateway]\n")
    assert "Bearer sk-local" in banner
    _, without = announced(tmp_path, capsys, keys(OPERATORS_KEY), "[gateway]\n")
    assert "one of yours in [[access.keys]]" in without
    assert OPERATORS_KEY not in banner + without
    _, opened = announced(tmp_path, capsys, '[access]\nmode = "open"\n', "[gateway]\n")
    assert "none is asked: any will do" in opened


def test_keys_that_do_less_than_they_seem_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = announced(tmp_path, capsys, keys("fake key", "abc"))
    (weak,) = [line for line in lines if line["event"] == "weak_key"]
    assert (weak["caller"], weak["log_level"]) == ("c1", "warning")
    (default,) = [line for line in lines if line["event"] == "default_keys"]
    assert default["log_level"] == "warning"
    assert "behind nginx and from other machines they are answered 401" in default["meaning"]
    assert 'mode = "open"' in default["cure"]
    assert "abc" not in repr(lines)


def test_whoever_starts_the_service_reads_that_the_originals_key_is_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = announced(tmp_path, capsys, keys(OPERATORS_KEY))
    assert [line["event"] for line in lines] == ["serving", "original_key_refused"]
    assert "`fake key`, are answered 401" in lines[1]["meaning"]
    assert OPERATORS_KEY not in repr(lines)
    lines, _ = announced(tmp_path, capsys, '[access]\nmode = "open"\n')
    assert "original_key_refused" not in [line["event"] for line in lines]


@pytest.mark.parametrize("log", ["unread", "full", "without reader", "closed"])
async def test_a_dead_log_changes_nothing_for_callers_and_the_service_still_ends(
    tmp_path: Path, log: str
) -> None:
    path = tmp_path / "proxy.toml"
    async with raw_upstream(answer_at_once) as upstream:
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
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
                    for _ in range(300):  # a pipe takes about 130 lines
                        await caller.send("POST", "/v1/chat/completions", body=b"{}")
                        answer = await caller.answer()
                        assert answer.status == 200
                        await caller.body(answer)
                process.send_signal(signal.SIGTERM)
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
            await asyncio.sleep(0.05)

"""SIGTERM and SIGHUP from the first moment of a process: a service reloads or stops, a command cleans up."""

import asyncio
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.cli.early_signals import handled_early
from proxy.server.signals import handled_signals
from tests.cli.processes import read_until, running
from tests.conftest import KEY, SETTINGS, STATIC
from tests.pace import PATIENCE
from tests.waiting import look_again

EXEC = """
source = "exec"
command = ["/bin/sh", "-c", "echo $$ >{started}.new; mv {started}.new {started}; exec sleep 600"]
timeout = 600
"""


@asynccontextmanager
async def reading_settings(
    folder: Path, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, io.FileIO]]:
    """Run a command until it waits for the rest of its settings; yield it, and the pipe for them."""
    pipe = folder / "settings"
    os.mkfifo(pipe)
    line = shlex.join([sys.executable, "-m", "proxy", *arguments, "--config", str(pipe)])
    async with running("sh", "-c", f"exec {line} 2>&1") as process:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError:  # The command has not opened the pipe yet.
                    await look_again()
            # Python handles a signal between two instructions or when it interrupts a system call: one that
            # comes just before the read would wait until it ends, so the command must be asleep in it.
            while not is_sleeping(process.pid):
                await look_again()
        with io.FileIO(descriptor, "w") as writing:
            yield process, writing


def is_sleeping(pid: int) -> bool:
    return "(sleeping)" in Path(f"/proc/{pid}/status").read_text()


def settings(credential: str = STATIC) -> str:
    upstream = "http://127.0.0.1:9"
    return SETTINGS.format(key=KEY, upstream=upstream, credential=credential, options="", more="")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.fleet)])
async def test_a_hangup_while_the_settings_are_read_is_a_reload_later(workers: str, tmp_path: Path) -> None:
    arguments = ("serve", "--bind", "127.0.0.1:0", "--workers", workers)
    async with reading_settings(tmp_path, *arguments) as (service, pipe):
        service.send_signal(signal.SIGHUP)
        pipe.write(settings().encode())
        (tmp_path / "settings").unlink()
        (tmp_path / "settings").write_text(settings())
        pipe.close()
        await read_until(service, "reloaded")
        service.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await service.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_ends_a_start_that_waits_for_its_settings(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with reading_settings(tmp_path, "serve", "--bind", "127.0.0.1:0") as (service, _):
        service.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            output, _ = await service.communicate()
    assert (service.returncode, output.strip()) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["token corp", "check --online", "doctor"])
async def test_a_signal_ends_a_command_and_the_program_that_it_runs(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    path, started = tmp_path / "proxy.toml", tmp_path / "started"
    path.write_text(settings(EXEC.format(started=started)))
    async with running(sys.executable, "-m", "proxy", *command.split(), "--config", str(path)) as process:
        async with asyncio.timeout(PATIENCE):
            while not started.exists():
                assert process.returncode is None
                await look_again()
            process.send_signal(number)
            await process.communicate()
        assert process.returncode == 128 + number
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["sigint", "no sigint"])
def interrupt(request: pytest.FixtureRequest) -> Iterator[None]:
    """SIGINT as at a terminal, and ignored as in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupt")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_a_command_and_is_its_exit_status(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with handled_early("token") as early:
        assert early.status == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert early.status == 128 + number
    assert signal.getsignal(number) == before


def test_a_hangup_does_not_interrupt_a_start_and_is_remembered() -> None:
    with handled_early("serve") as early:
        os.kill(os.getpid(), signal.SIGHUP)
        with handled_signals(early.received) as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert [*signals.early] == [signal.SIGHUP, signal.SIGTERM]
    assert early.status == 0


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled_early("token") as early:
            os.kill(os.getpid(), signal.SIGHUP)
        assert early.received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_come_before_slow_imports() -> None:
    words = "import sys, proxy.cli; print(sorted({'asyncio', 'msgspec', 'ssl'} & {*sys.modules}))"
    assert subprocess.check_output([sys.executable, "-c", words], text=True) == "[]\n"

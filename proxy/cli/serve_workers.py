"""`serve --workers N`: what the workers need Redis for, and the process that keeps them running."""

import argparse
import asyncio
import functools
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from proxy.cli.reload import (
    certificate_failures_logged,
    failures_logged,
    in_time,
    read_when_complete,
    running,
)
from proxy.cli.server import HARD_STOP_SECONDS
from proxy.cli.service_folder import service_folder
from proxy.cli.worker_configuration import WorkerConfiguration, pack
from proxy.errors import SettingsError
from proxy.server.certificates import TlsContents
from proxy.server.event_loop import run
from proxy.server.signals import Signals
from proxy.server.supervisor import Supervisor
from proxy.settings import Settings
from proxy.settings.restart import merge_settings

KEY_BYTES = 32


def check_workers(settings: Settings, workers: int) -> None:
    """Reject settings that several workers would each count or keep for themselves.

    Raises:
        SettingsError: One line for each setting that needs Redis.
    """
    if workers == 1:
        return
    problems = [] if hasattr(socket, "SO_REUSEPORT") else ["workers: this system cannot share a port"]
    if settings.chat is not None and settings.shared is None:
        problems.append("chat: needs a [shared] section: the workers share channels over Redis")
    if settings.access.sharing != "redis":
        problems += [
            f'access.keys: {caller.name}: {field}: needs access.sharing = "redis": each worker counts alone'
            for caller in settings.access.keys
            for field in ("rate", "tokens", "max_streams")
            if getattr(caller, field) is not None
        ]
    if problems:
        raise SettingsError(*(f"{problem}; or run one worker, not {workers}" for problem in problems))


def supervise(
    options: argparse.Namespace,
    configuration: WorkerConfiguration,
    slots: Sequence[Sequence[socket.socket]],
    signals: Signals,
    load: Callable[[], Settings],
) -> int:
    """Keep the workers running until a signal; return the exit status.

    Args:
        options: Those of the command line.
        configuration: What the workers start with.
        slots: The sockets of each worker.
        signals: The signals, handled since before the sockets were opened.
        load: Reads the settings again, at SIGHUP.
    """
    # The options let an operator recognise the process; a worker reads no file.
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(options.config)]
    command += ["--server", options.server, "--assignment"]
    server = configuration.server
    stop_seconds = server.readiness_delay + server.graceful_timeout + 2 * HARD_STOP_SECONDS
    status = 0
    with service_folder() as (folder, lock):
        supervisor = Supervisor(
            command, slots, folder, secrets.token_bytes(KEY_BYTES), stop_seconds,
            kept_open=[lock], configuration=pack(configuration),
        )  # fmt: skip

        async def main() -> None:
            nonlocal status
            reloads = reload_workers(signals.hangup(), supervisor, configuration, load, options.config)
            async with running(reloads):
                status = await supervisor.run(signals)

        run(functools.partial(main))
    return status


async def reload_workers(
    hangup: asyncio.Event,
    supervisor: Supervisor,
    configuration: WorkerConfiguration,
    load: Callable[[], Settings],
    file: Path,
) -> None:
    """At every SIGHUP, read the settings and certificates once for all workers, and pass them on.

    New workers start with what the others have accepted, and with their sections that need a restart.
    """
    started_with = configuration.settings
    while True:
        await hangup.wait()
        hangup.clear()
        if configuration.tls_contents is not None:
            with certificate_failures_logged():
                files = await in_time(functools.partial(TlsContents.read, configuration.server))
                changed = replace(configuration, tls_contents=files)
                configuration = (
                    changed if await supervisor.offer(pack(files), pack(changed)) else configuration
                )
        with failures_logged():
            settings = await read_when_complete(load, file)
            changed = replace(configuration, settings=merge_settings(started_with, settings))
            configuration = (
                changed if await supervisor.offer(pack(settings), pack(changed)) else configuration
            )

"""`serve --workers N`: what the workers need Redis for, and the process that keeps them running."""

import argparse
import functools
import secrets
import socket
import sys
from collections.abc import Sequence

from proxy.cli.server import HARD_STOP_SECONDS
from proxy.cli.service_folder import service_folder
from proxy.errors import SettingsError
from proxy.server.config import ServerConfig
from proxy.server.event_loop import run
from proxy.server.signals import Signals
from proxy.server.supervisor import Supervisor
from proxy.settings import Settings

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
    server: ServerConfig,
    slots: Sequence[Sequence[socket.socket]],
    signals: Signals,
) -> int:
    """Keep the workers running until a signal; return the exit status."""
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(options.config)]
    command += ["--server", options.server]
    if options.bind is not None:
        command += ["--bind", options.bind]
    stop_seconds = server.readiness_delay + server.graceful_timeout + 2 * HARD_STOP_SECONDS
    status = 0
    with service_folder() as (folder, lock):
        key = secrets.token_bytes(KEY_BYTES)
        supervisor = Supervisor(
            [*command, "--assignment"], slots, folder, key, stop_seconds, kept_open=[lock]
        )

        async def main() -> None:
            nonlocal status
            status = await supervisor.run(signals)

        run(functools.partial(main))
    return status

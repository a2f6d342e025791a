"""Load the server's configuration and open its sockets.

Hypercorn's own command line is not used: it ends streams by its own timeout, on Python 3.12 and newer it
waits indefinitely while one is open, and it speaks HTTP/2 on plain connections, where a broken stream looks
like a complete one.
"""

import contextlib
import errno
import logging
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from proxy.errors import SettingsError
from proxy.server.config import RULES, TLS_KEYS, ServerConfig, problem_with
from proxy.settings.locations import key_lines
from proxy.settings.section import listed, suggestion
from proxy.shipped import nearest

HARD_STOP_SECONDS: Final = 5.0
FIRST_INHERITED: Final = 3
"""The first descriptor of socket activation."""

_KNOWN: Final = f"known: {listed(RULES)}"
_BIND_CURES: Final = {
    errno.EADDRINUSE: ": another program listens there; stop it, or take another port with --bind HOST:PORT "
    "(make run PORT=6000)",
    errno.EACCES: ": a port below 1024 needs privileges, and a socket's folder must be writable; take "
    "another one with --bind",
    errno.EADDRNOTAVAIL: ": this machine has no such address; 127.0.0.1 is for callers on it, and 0.0.0.0 "
    "for all",
    errno.EAFNOSUPPORT: ": this machine has no IPv6; take an IPv4 address with --bind",
    errno.EMFILE: ": this process may open no more files; raise `ulimit -n`, or run fewer workers",
    errno.ENOENT: ": the folder of the socket does not exist; create it, or take another path with --bind",
}


def load_server_config(bind: str | None, path: Path | None = None) -> ServerConfig:
    """Return the server's configuration from its file, with the address of the command line.

    Raises:
        SettingsError: The file is absent or not TOML, or has an unknown key or an invalid value.
    """
    path = nearest("hypercorn.toml") if path is None else path
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    except RecursionError:
        raise SettingsError(f"{path}: not valid TOML: nested too deeply") from None
    problems = {key: problem_with(key, value) or _needed_for(key, values) for key, value in values.items()}
    problems |= {key: _unknown(key) for key in values.keys() - RULES.keys()}
    lines = key_lines(text)
    words = [f"{path}:{lines[key,]}: {key}: {problem}" for key, problem in problems.items() if problem]
    if words:
        raise SettingsError(*words)
    config = cast(ServerConfig, ServerConfig.from_mapping(values))
    if bind is not None:
        config.bind = [bind]
    config.accesslog = None  # The application writes one line per exchange.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def _unknown(key: str) -> str:
    """Say what is wrong with a key that the server does not read; Hypercorn itself accepts any key."""
    if hasattr(ServerConfig, key):
        return f"has no effect, because the server does not read this key of Hypercorn: remove it; {_KNOWN}"
    return f"unknown key, {suggestion(key, RULES)}"


def _needed_for(key: str, values: Mapping[str, object]) -> str | None:
    """Say which key is missing for one of TLS: without a certificate the server would speak plain HTTP."""
    missing = [needed for needed in ("certfile", "keyfile") if key in TLS_KEYS and needed not in values]
    return f"needs {' and '.join(missing)} as well: without them there is no TLS" if missing else None


def inherited_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd passed to this process, in the manner of sd_listen_fds(3).

    Raises:
        SettingsError: They cannot be used.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        first, count = FIRST_INHERITED, int(environment.get("LISTEN_FDS", ""))
        listeners = [socket.socket(fileno=descriptor) for descriptor in range(first, first + count)]
        for listener in listeners:
            listener.setblocking(False)  # noqa: FBT003 - the name says it
            listener.set_inheritable(False)
    except (OSError, ValueError) as error:
        raise SettingsError("LISTEN_FDS: must be the number of inherited sockets, from 3 on") from error
    return listeners


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as `bind` takes it."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_bind(bind: str) -> tuple[str, str]:
    """Return the host, without brackets, and the port of a TCP address.

    Raises:
        SettingsError: It is not a `HOST:PORT` or `[HOST]:PORT`.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not host or "/" in host or not port.isdigit():
        raise SettingsError(f"bind: {bind}: must be HOST:PORT, [HOST]:PORT or unix:PATH")
    return host, port


def open_slots(binds: list[str], backlog: int, workers: int) -> list[list[socket.socket]]:
    """Open separate TCP sockets for each worker, over which the kernel spreads the connections.

    Raises:
        SettingsError: An address cannot be bound; the message has the address and the reason.
    """
    first = open_sockets(binds, backlog)  # A socket with SO_REUSEPORT would not notice that one is taken.
    if workers == 1:
        return [first]
    slots: list[list[socket.socket]] = [[] for _ in range(workers)]
    for bind, listener in zip(binds, first, strict=True):
        if listener.family == socket.AF_UNIX:
            opened = [listener] * workers
        else:
            port = listener.getsockname()[1]  # the kernel chooses one if the address has none
            listener.close()
            place = f"{bind.rpartition(':')[0]}:{port}"
            opened = [_open_socket(place, backlog, reuse_port=True) for _ in range(workers)]
        for slot, each in zip(slots, opened, strict=True):
            slot.append(each)
    return slots


def open_sockets(binds: list[str], backlog: int) -> list[socket.socket]:
    """Bind and listen on `HOST:PORT`, `[HOST]:PORT` or `unix:PATH` addresses.

    Raises:
        SettingsError: An address cannot be bound; the message has the address and the reason.
    """
    return [_open_socket(bind, backlog) for bind in binds]


def _open_socket(bind: str, backlog: int, *, reuse_port: bool = False) -> socket.socket:
    is_unix = bind.startswith("unix:")
    host, port = ("", "") if is_unix else split_bind(bind)
    family = socket.AF_UNIX if is_unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if is_unix:
                _bind_unix(listener, Path(bind.removeprefix("unix:")))
            else:
                _bind_tcp(listener, host, int(port), reuse_port=reuse_port)
            listener.listen(backlog)
            listener.setblocking(False)  # noqa: FBT003 - the name says it
            stack.pop_all()
    except (OSError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or error
        cure = _BIND_CURES.get(getattr(error, "errno", None) or 0, "")
        raise SettingsError(f"bind: {bind}: {words}{cure}") from error
    return listener


def _bind_unix(listener: socket.socket, path: Path) -> None:
    if path.is_socket() and not _has_listener(path):
        path.unlink()  # left behind by one that ended before
    listener.bind(str(path))


def _has_listener(path: Path) -> bool:
    """Return whether a program listens on a Unix socket; it may have no room for another connection.

    Raises:
        OSError: That cannot be seen, because the socket belongs to somebody else.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the name says it
        status = probe.connect_ex(str(path))
    if status == errno.EACCES:
        raise PermissionError(status, os.strerror(status))
    return status != errno.ECONNREFUSED


def _bind_tcp(listener: socket.socket, host: str, port: int, *, reuse_port: bool) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))

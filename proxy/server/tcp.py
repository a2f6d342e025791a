"""What the kernel knows of a caller's connection, and how to reset it."""

import contextlib
import socket
import struct
from typing import Final

CLOSE: Final = 7
CLOSE_WAIT: Final = 8
"""States in Linux's numbers: the caller has reset the connection, or closed at least its sending side."""
KEEP_ALIVE_SECONDS: Final = 15
"""How often the kernel asks a silent peer whether it still has the connection."""


def address(name: object) -> tuple[str, int] | None:
    """Return address and port of a TCP socket; None for a Unix socket."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def state(connection: socket.socket | None) -> int:
    """Return the state of a TCP connection in Linux's numbers (tcp(7), TCP_INFO); 0 if it is unknown."""
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0
    try:
        with _duplicate(connection) as duplicate:
            return duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):
        return 0


def unacknowledged(connection: socket.socket | None) -> int:
    """Return how many bytes in the kernel the peer has not acknowledged (SIOCOUTQ); 0 if it is unknown."""
    if connection is None:
        return 0
    try:
        import fcntl
        import termios

        unsent = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError, ImportError, AttributeError):  # ValueError: the socket is closed
        return 0
    return int(struct.unpack("i", unsent)[0])


def prepare_reset(connection: socket.socket | None) -> None:
    """Let the end of a connection be a reset, which does not look like the end of a response."""
    if connection is not None:
        with contextlib.suppress(OSError), _duplicate(connection) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def keep_alive(connection: socket.socket | None) -> None:
    """Let the kernel ask the peer whether it still has the connection, for as long as that is silent.

    A peer that closes the rest of a connection after its sending side sends nothing. It answers with a reset
    as soon as it has forgotten the connection, on Linux after a minute.
    """
    if connection is not None:
        with contextlib.suppress(OSError, AttributeError), _duplicate(connection) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                duplicate.setsockopt(socket.IPPROTO_TCP, option, KEEP_ALIVE_SECONDS)


def _duplicate(connection: socket.socket) -> socket.socket:
    """Return a socket for the transport's connection: a transport's own lacks some methods."""
    return socket.fromfd(connection.fileno(), connection.family, connection.type)

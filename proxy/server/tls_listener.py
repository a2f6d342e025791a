"""Accept connections, and run their TLS handshakes where the server can count and end them.

The servers of asyncio and uvloop report a connection only after its handshake, and a failed handshake not at
all: any number of connections that send nothing would count towards no limit.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from socket import socket
from ssl import SSLContext
from typing import Final, Protocol

ACCEPTED_MAX: Final = 100
"""How many connections are accepted before the event loop runs other work."""
RETRY_SECONDS: Final = 1.0
"""The pause after an error, such as the lack of file descriptors."""


class HandshakeOwner(Protocol):
    """The server, as its listeners use it."""

    def make_room(self) -> bool:
        """Return whether another connection may be accepted; if need be, end an older handshake first."""
        ...

    def run_handshake(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a handshake in a task, which counts as a connection and may be cancelled."""
        ...


class TlsListener:
    """Accepts the connections of one listening socket until it is closed.

    Args:
        owner: Counts the handshakes; without room, connections are closed at once.
        listening: The bound socket.
        backlog: How many connections the kernel queues.
        connect: Makes the protocol of a connection, which begins when the handshake is complete.
        context: The TLS context.
        seconds: The timeout for each handshake.
    """

    def __init__(
        self,
        owner: HandshakeOwner,
        listening: socket,
        backlog: int,
        connect: Callable[[], asyncio.Protocol],
        context: SSLContext,
        seconds: float,
    ) -> None:
        self._owner, self._listening = owner, listening
        self._connect, self._context, self._seconds = connect, context, seconds
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        listening.setblocking(False)  # noqa: FBT003
        listening.listen(backlog)
        self._start()

    def close(self) -> None:
        """Accept no more connections, and close the socket; handshakes in progress continue."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _start(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                accepted, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.call_exception_handler(
                    {"message": "a connection could not be accepted", "exception": error}
                )
                self._loop.remove_reader(self._listening)
                self._retry = self._loop.call_later(RETRY_SECONDS, self._start)
                return
            if self._owner.make_room():
                handshake = self._owner.run_handshake(self._shake_hands(accepted))
                handshake.add_done_callback(partial(_close_if_unused, accepted))
            else:
                accepted.close()

    async def _shake_hands(self, accepted: socket) -> None:
        # From here on the transport closes the socket, and nothing else may.
        taken = socket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        # The caller does not speak TLS, or not in time, or has disconnected.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._connect, taken, ssl=self._context, ssl_handshake_timeout=self._seconds
            )


def _close_if_unused(accepted: socket, _: asyncio.Task[None]) -> None:
    """Close the socket of a handshake that was cancelled before it began; others have none any more."""
    accepted.close()

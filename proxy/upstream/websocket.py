"""WebSockets to upstreams, framed by wsproto (RFC 6455): each on its own connection.

The messages are parsed as they are taken: at most one waits, and meanwhile the connection is not read.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, cast

import httpx2
from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token, generate_nonce

from proxy.upstream.dialing import Dialer
from proxy.upstream.http1 import ArrivingResponse, request_head
from proxy.wire.headers import Headers
from proxy.wire.websocket import GOING_AWAY, LOST, MESSAGE_BYTES_MAX, Close, PartialMessage, message_size

REJECTION_BYTES_MAX: Final = 1024 * 1024
"""The size limit of the body of a rejected handshake."""
HEARTBEAT_SECONDS: Final = 50.0
"""A WebSocket gets a ping after this much silence, and counts as lost if half as much silence follows."""
CLOSE_SECONDS: Final = 2.0
FRAME_BYTES_MAX: Final = 1024 * 1024
"""A larger message is sent in fragments: masked as a whole it would block the event loop."""
FRAGMENT_SIZE: Final = 64 * 1024
"""Bytes or characters of a fragment."""
FRAMES_AT_ONCE: Final = 500
"""Frames after which others have a turn: one read may contain 100,000 that complete no message."""


class SocketOpener:
    """Opens WebSockets to one upstream. Construct it where the event loop runs.

    Args:
        tls: The TLS context for an https upstream.
        proxy: URL of a forward proxy, if there is one; the environment is not read.
    """

    def __init__(self, *, tls: ssl.SSLContext | bool, proxy: str | None) -> None:
        self._tls = tls if isinstance(tls, ssl.SSLContext) else None
        self._proxy = proxy
        self._dialers: dict[str, Dialer] = {}
        self._open: set[ArrivingMessages] = set()
        self._is_closed = False

    async def open(
        self,
        origin: str,
        target: bytes,
        headers: Headers,
        subprotocols: Sequence[str],
        *,
        connect: float | None,
    ) -> "ArrivingMessages":
        """Send the handshake of a WebSocket (RFC 6455 4.1). The caller bounds the wait for the response.

        If its status is not 101, the upstream has rejected the handshake, and the body is unread.

        Raises:
            httpx2.TransportError: There is no response.
        """
        if (dialer := self._dialers.get(origin)) is None:
            self._dialers[origin] = dialer = Dialer(origin, tls=self._tls, proxy=self._proxy)
        key = generate_nonce()
        headers = [*headers, *_handshake_headers(key, subprotocols), *dialer.proxy_headers]
        head = request_head("GET", dialer.target_prefix + target, dialer.request_host, headers, 0)
        socket = await dialer.open(lambda _: ArrivingMessages(self), connect)
        response = socket.response
        with contextlib.ExitStack() as failed:
            failed.callback(socket.release)
            socket.write(head)
            await response.head()
            if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
                socket.start(_accepted_subprotocol(response, key, subprotocols))
            failed.pop_all()
        return socket

    async def aclose(self) -> None:
        """Close every WebSocket at once, and those that are opened later."""
        self._is_closed = True
        for socket in tuple(self._open):
            socket.abort()

    def opened(self, socket: "ArrivingMessages") -> None:
        """Count a connection."""
        self._open.add(socket)
        if self._is_closed:
            socket.abort()

    def lost(self, socket: "ArrivingMessages") -> None:
        """Forget a connection."""
        self._open.discard(socket)


class ArrivingMessages(asyncio.Protocol):
    """A WebSocket to an upstream: the protocol of its connection, and the messages on it.

    Args:
        opener: Counts the connection.
    """

    def __init__(self, opener: SocketOpener) -> None:
        self.response = ArrivingResponse("GET")
        """The response to the handshake."""
        self.subprotocol: str | None = None
        self._opener = opener
        self._transport: asyncio.Transport | None = None
        self._frames = Connection(CLIENT)
        self._has_started = self._is_closing = self._is_reading_paused = self._has_more = False
        self._partial = PartialMessage()
        self._message: str | bytes | None = None
        """A message that waits for `receive`."""
        self._end: Close | None = None
        """How the upstream closed."""
        self._unanswered: Ping | None = None
        """The last ping that arrived while the write buffer was full (RFC 6455 5.5.3)."""
        self._arrived, self._writable, self._lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._writable.set()
        self._heard_at = 0.0
        self._has_pinged = False
        self._timer: asyncio.TimerHandle | None = None
        """The next heartbeat; after the close, the moment when the connection is cut."""

    def start(self, subprotocol: str | None) -> None:
        """Begin to read messages after the handshake."""
        self.subprotocol, self._has_started = subprotocol, True
        self._heard_at = asyncio.get_running_loop().time()
        self._beat()
        self._advance()
        if self._message is None:
            self._resume_reading()

    async def receive(self) -> str | bytes | Close:
        """Return the next message, or how the upstream closed; a lost connection is code 1006."""
        while True:
            self._advance()
            if self._message is not None:
                message, self._message = self._message, None
                return message
            if self._end is not None:
                return self._end
            if self._lost.is_set() and not self._has_more:
                return Close(LOST)
            self._resume_reading()
            self._arrived.clear()
            await self._arrived.wait()

    async def send(self, message: str | bytes) -> None:
        """Send a message after the upstream has taken enough of the previous ones.

        Raises:
            httpx2.TransportError: The connection is lost or closed.
        """
        step = FRAGMENT_SIZE if message_size(message) > FRAME_BYTES_MAX else FRAME_BYTES_MAX
        for start in range(0, len(message) or 1, step):
            if start:
                await asyncio.sleep(0)
            await self._writable.wait()
            if self._lost.is_set() or self._frames.state is not ConnectionState.OPEN:
                raise httpx2.WriteError("the WebSocket is closed")
            piece, is_last = message[start : start + step], start + step >= len(message)
            self._send(
                TextMessage(piece, message_finished=is_last)
                if isinstance(piece, str)
                else BytesMessage(piece, message_finished=is_last)
            )

    async def close(self, close: Close) -> None:
        """Close the WebSocket, and wait a moment for the upstream to close it too."""
        self._is_closing = True
        self._message = None
        try:
            if self._frames.state is ConnectionState.OPEN and self._end is None:
                self._send(CloseConnection(close.code, close.reason))
            self._advance()
            self._resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._lost.wait()
        finally:
            self.abort()

    async def aclose(self) -> None:
        """Close the WebSocket if it is open."""
        await self.close(Close(GOING_AWAY))

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """Close the connection at once, whose response nobody reads any more."""
        self.abort()
        self.response.close()

    def write(self, data: bytes) -> None:
        """Write bytes, unless the connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # --- callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._opener.opened(self)

    def data_received(self, data: bytes) -> None:
        """Parse the response to the handshake, or take frames."""
        self._heard_at = asyncio.get_running_loop().time()
        response = self.response
        is_handshake = not response.ended
        if is_handshake:
            response.feed(data)
        if not response.ended or response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            if response.unread > REJECTION_BYTES_MAX:
                response.fail(httpx2.ReadError("the body of the rejection is too large"))
                self.abort()
            return
        if is_handshake:
            self._pause_reading()
            data = response.after_upgrade
        if self._end is None:
            self._frames.receive_data(data)
            self._advance()

    def pause_writing(self) -> None:
        """Make `send` wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` continue, and answer a ping."""
        self._writable.set()
        if self._unanswered is not None:
            ping, self._unanswered = self._unanswered, None
            self._answer(ping)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake everyone who waits."""
        self.response.lost(exc)
        self._opener.lost(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        for event in (self._lost, self._arrived, self._writable):
            event.set()

    # --- frames

    def _advance(self) -> None:
        """Take frames until a message is complete, or others should have a turn."""
        if not self._has_started or self._is_ready() or self._has_more:
            return
        for number, event in enumerate(self._frames.events()):
            if isinstance(event, Ping):
                self._answer(event)
            elif isinstance(event, TextMessage | BytesMessage):
                self._add(event)
            elif isinstance(event, CloseConnection):
                self._closed_by_upstream(event)
            if self._is_ready():
                break
            if number >= FRAMES_AT_ONCE:
                self._has_more = True
                self._pause_reading()
                asyncio.get_running_loop().call_soon(self._take_more)
                break
        if self._message is not None:
            self._pause_reading()
            self._arrived.set()

    def _take_more(self) -> None:
        """Take the frames that were left, and then read on."""
        self._has_more = False
        self._advance()
        if not self._is_ready():
            self._resume_reading()
        self._arrived.set()

    def _is_ready(self) -> bool:
        """Whether `receive` has something to return."""
        return self._message is not None or self._end is not None

    def _add(self, event: TextMessage | BytesMessage) -> None:
        """Add a piece of a message; it may be a whole one."""
        if self._is_closing:
            return
        piece = event.data if isinstance(event.data, str) else bytes(event.data)
        if self._partial.size + message_size(piece) > MESSAGE_BYTES_MAX:
            self._fail(CloseReason.MESSAGE_TOO_BIG)
        else:
            self._message = self._partial.add(piece, more=not event.message_finished)

    def _answer(self, ping: Ping) -> None:
        if self._frames.state is not ConnectionState.OPEN:
            return
        if self._writable.is_set():
            self._send(ping.response())
        else:
            self._unanswered = ping

    def _closed_by_upstream(self, event: CloseConnection) -> None:
        if self._frames.state is ConnectionState.REMOTE_CLOSING:
            self._send(CloseConnection(event.code))
        elif self._frames.state is not ConnectionState.CLOSED:
            self._fail(event.code)  # without the text, which may quote what the upstream sent
            return
        self._ended(Close(int(event.code), event.reason or ""))
        if self._transport is not None:
            self._transport.close()

    def _fail(self, code: int) -> None:
        """Close after a violation, but keep reading: unread bytes would reset the connection."""
        if self._frames.state is ConnectionState.OPEN:
            self._send(CloseConnection(code))
        self._ended(Close(int(code)))
        self._resume_reading()

    def _ended(self, close: Close) -> None:
        """Note the end; the upstream has a moment to close the connection."""
        self._end = close
        self._partial = PartialMessage()
        self._arrived.set()
        self._set_timer(asyncio.get_running_loop().time() + CLOSE_SECONDS, cut=True)

    def _send(self, event: Event) -> None:
        self.write(self._frames.send(event))

    def _beat(self) -> None:
        """Send a ping after a silence, and cut the connection if it stays silent."""
        now = asyncio.get_running_loop().time()
        if self._is_reading_paused:
            self._heard_at = now  # it is our own caller who is slow
        due = self._heard_at + HEARTBEAT_SECONDS
        if now < due:
            self._has_pinged = False
        elif self._has_pinged:
            self.abort()
            return
        else:
            self._has_pinged, due = True, now + HEARTBEAT_SECONDS / 2
            if self._frames.state is ConnectionState.OPEN:
                self._send(Ping())
        self._set_timer(due)

    def _set_timer(self, moment: float, *, cut: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._lost.is_set():
            call = self.abort if cut else self._beat
            self._timer = asyncio.get_running_loop().call_at(moment, call)

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and not self._has_more:
            self._is_reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._heard_at = asyncio.get_running_loop().time()
                self._transport.resume_reading()


def _handshake_headers(key: bytes, subprotocols: Sequence[str]) -> Headers:
    headers = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", key),
    ]
    if subprotocols:
        headers.append((b"Sec-WebSocket-Protocol", ",".join(subprotocols).encode()))
    return headers


def _accepted_subprotocol(response: ArrivingResponse, key: bytes, subprotocols: Sequence[str]) -> str | None:
    """Return the subprotocol of a handshake that the upstream has accepted.

    Raises:
        httpx2.RemoteProtocolError: RFC 6455 4.1 makes the client fail.
    """

    def values(name: bytes) -> list[bytes]:
        return [value.strip() for key, value in response.headers if key.lower() == name]

    options = {option.strip().lower() for value in values(b"connection") for option in value.split(b",")}
    chosen = values(b"sec-websocket-protocol")
    if (
        response.version != "1.1"
        or [value.lower() for value in values(b"upgrade")] != [b"websocket"]
        or b"upgrade" not in options
        or values(b"sec-websocket-accept") != [generate_accept_token(key)]
        or any(values(b"sec-websocket-extensions"))
        or len(chosen) > 1
        or not {*chosen} <= {name.encode() for name in subprotocols}
    ):
        raise httpx2.RemoteProtocolError("the response does not accept the handshake of the WebSocket")
    return chosen[0].decode() if chosen else None

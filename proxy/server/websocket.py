"""WebSockets on our own connections, framed by Hypercorn's stream (wsproto, RFC 6455).

Hypercorn's stream reports every close as 1006; the class here passes on the caller's code and reason.

It also passes on a long message in pieces, so that the application can count the bytes that it holds of it.
Each piece is a `websocket.receive`, and its key `more` says whether the message continues.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import ASGISendEvent, ConnectionState, WebsocketReceiveEvent
from wsproto.connection import ConnectionState as WSProtoState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.events import Event as WSProtoEvent
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from proxy.server.http1 import Connection
from proxy.server.limits import RequestRejected
from proxy.server.request_head import Scope
from proxy.wire.headers import Headers
from proxy.wire.websocket import message_size

if TYPE_CHECKING:
    from proxy.server.serve import Server

SendBytes = Callable[[Event], Awaitable[None]]

STREAM_ID: Final = 1
BUFFER_BYTES: Final = 256 * 1024
"""Bytes that may wait for the application; beyond it the connection is not read."""
PARSED_AT_ONCE: Final = 8 * 1024
"""Bytes after which others have a turn: they can hold a thousand frames that complete no message."""
LEFT_SECONDS: Final = 10.0
"""An application that has not read by then what a caller sent before it disconnected is cancelled."""
_VERSION: Final = b"13"
_LISTS: Final = frozenset({b"connection", b"sec-websocket-protocol"})
"""The headers that Hypercorn's stream decodes."""
_EXTENSIONS: Final = b"sec-websocket-extensions"
"""None is accepted: wsproto decompresses without a bound, a thousand bytes for each that arrived."""


class CloseReportingStream(WSStream):
    """A stream that reports the caller's close to the application, and answers violations with a close."""

    def __init__(
        self,
        server: "Server",
        group: TaskGroup,
        scope: Scope,
        send: SendBytes,
        accepted: Callable[[], None],
        finished: Callable[[], None],
    ) -> None:
        super().__init__(
            server.wrapped, server.config, server.context, group, scope["scheme"] == "https",
            scope["client"], scope["server"], send, STREAM_ID,
        )  # fmt: skip
        self._close_frame: CloseConnection | None = None
        self._pieces: list[Any] = []
        """What has been parsed of a message and not been passed on."""
        self._message_bytes = 0
        """How many bytes of the current message have arrived."""
        self._ended = asyncio.Event()
        self._accepted = accepted
        self._finished = finished

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Send what the application sends; None when it has ended."""
        await super().app_send(message)
        if message is None:
            self._ended.set()
            self._finished()
        elif message["type"] == "websocket.accept":
            self._accepted()

    async def handle(self, event: Event) -> None:
        """Handle an event as the base class does, except for frames and the end of the stream."""
        if isinstance(event, Data):
            # Nothing follows a close; after the last one wsproto would raise.
            if self._close_frame is None and self.connection.state is not WSProtoState.CLOSED:
                self.connection.receive_data(event.data)
                await self._take_frames()
            return
        if isinstance(event, StreamClosed):
            self._ended.set()
            if self._close_frame is not None and not self.closed:
                self.closed = True
                code, reason = int(self._close_frame.code), self._close_frame.reason
                if self.app_put is not None:
                    await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})
                return
        await super().handle(event)

    async def _take_frames(self) -> None:
        """Take the caller's frames until one ends the stream.

        The base class sends no close frame after a violation, and reads on after a message that is too large.
        """
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._add(event)
            elif isinstance(event, Ping):
                await self._send_frame(event.response())
            elif isinstance(event, CloseConnection):  # the caller's, or wsproto's after a violation
                await self._end(event)
            if self._close_frame is not None:
                return
        if self._pieces:
            await self._pass_on(more=True)

    async def _add(self, event: Message[Any]) -> None:
        """Add a piece of a message, and pass on what there is of the message if it is complete."""
        self._message_bytes += message_size(event.data)
        if self._message_bytes > self.config.websocket_max_message_size:
            await self._end(CloseConnection(CloseReason.MESSAGE_TOO_BIG))
            return
        self._pieces.append(event.data)
        if event.message_finished:
            self._message_bytes = 0
            await self._pass_on(more=False)

    async def _pass_on(self, *, more: bool) -> None:
        pieces, self._pieces = self._pieces, []
        data = pieces[0] if len(pieces) == 1 else pieces[0][:0].join(pieces)
        kind = "text" if isinstance(data, str) else "bytes"
        if self.app_put is not None:
            event = {"type": "websocket.receive", kind: data, "more": more}
            await self.app_put(cast(WebsocketReceiveEvent, event))

    async def _end(self, close: CloseConnection) -> None:
        """End the stream: answer the caller's close, or reject what the caller sent (RFC 6455 7.1.7)."""
        self._close_frame = close
        await self._send_frame(close)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_frame(self, event: WSProtoEvent) -> None:
        with contextlib.suppress(LocalProtocolError):  # It is closed.
            await self.send(Data(stream_id=self.stream_id, data=self.connection.send(event)))

    async def _send_pings(self) -> None:
        """Stop with the stream; the base class sleeps on, and the connection's task waits for it."""
        while not self._ended.is_set():
            await self._send_frame(Ping())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.websocket_ping_interval):
                    await self._ended.wait()


def serve_websocket(server: "Server", connection: Connection, scope: Scope) -> Callable[[bytes], None]:
    """Serve a WebSocket on a connection; return what takes the caller's further bytes.

    Raises:
        RequestRejected: The handshake is not one of RFC 6455.
    """
    _check_handshake(scope["headers"])
    incoming = _Incoming(connection)
    serving = server.run(_serve(server, connection, scope, incoming))
    serving.add_done_callback(lambda _: connection.close())  # also after a failure: no clock watches it

    def lost() -> None:
        incoming.end()
        cancelling = connection.loop.call_later(LEFT_SECONDS, serving.cancel)
        serving.add_done_callback(lambda _: cancelling.cancel())

    connection.when_lost(lost)
    return incoming.put


def _check_handshake(headers: Headers) -> None:
    """Reject handshakes that WSStream would reject without a body or a timeout."""
    values = [value.strip() for name, value in headers if name == b"sec-websocket-version"]
    if values != [_VERSION]:
        raise RequestRejected(
            HTTPStatus.UPGRADE_REQUIRED,
            "only version 13 of the WebSocket protocol is served",
            [(b"sec-websocket-version", _VERSION)],
        )
    if sum(name == b"sec-websocket-key" for name, _ in headers) != 1:
        raise RequestRejected(HTTPStatus.BAD_REQUEST, "the WebSocket handshake needs one Sec-WebSocket-Key")
    if not all(value.isascii() for name, value in headers if name in _LISTS):
        raise RequestRejected(HTTPStatus.BAD_REQUEST, "the WebSocket handshake holds bytes beyond ASCII")


class _Incoming:
    """The caller's bytes that wait for the stream, at first until the handshake is accepted.

    Reading pauses above `BUFFER_BYTES`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._paused = False
        self._accepted = self._ended = False
        self._arrived = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Add bytes; stop reading when too many wait."""
        self._chunks.append(data)
        self._bytes += len(data)
        self._arrived.set()
        if self._bytes > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._connection.pause_reading()

    def accept(self) -> None:
        """Let `get` return bytes: they are frames of a WebSocket."""
        self._accepted = True
        self._arrived.set()

    def end(self) -> None:
        """Make `get` return nothing once the waiting frames are read: the connection is lost."""
        self._ended = True
        self._arrived.set()

    async def get(self) -> bytes:
        """Return the next bytes; nothing at the end."""
        while not (self._accepted and self._chunks):
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._chunks.popleft()
        self._bytes -= len(data)
        if self._paused and self._bytes < BUFFER_BYTES // 2:
            self._paused = False
            self._connection.resume_reading()
        return data


async def _serve(server: "Server", connection: Connection, scope: Scope, incoming: _Incoming) -> None:
    async def send(event: Event) -> None:
        if isinstance(event, Response):
            connection.write_head(event.status_code, event.headers)
        elif isinstance(event, Body | Data):
            connection.write(event.data)
            with contextlib.suppress(ConnectionError):
                await connection.drained()
        elif isinstance(event, EndBody | StreamClosed):
            connection.close()
            incoming.end()

    reading = asyncio.timeout(None)  # used as a scope that can be cancelled

    def stop_reading() -> None:
        with contextlib.suppress(RuntimeError):  # It has ended.
            reading.reschedule(0)

    async with TaskGroup(asyncio.get_running_loop()) as group:
        stream = CloseReportingStream(server, group, scope, send, incoming.accept, stop_reading)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        # An application that has ended takes no more messages: the queue to it would stay full.
        with contextlib.suppress(TimeoutError):
            async with reading:
                await stream.handle(
                    Request(
                        stream_id=STREAM_ID,
                        headers=[pair for pair in scope["headers"] if pair[0] != _EXTENSIONS],
                        http_version=scope["http_version"],
                        method=scope["method"],
                        raw_path=target,
                        state=ConnectionState(server.state),
                    )
                )
                while data := await incoming.get():
                    for start in range(0, len(data), PARSED_AT_ONCE):
                        if start:
                            await asyncio.sleep(0)
                        piece = data[start : start + PARSED_AT_ONCE]
                        await stream.handle(Data(stream_id=STREAM_ID, data=piece))
                await stream.handle(StreamClosed(stream_id=STREAM_ID))

"""WebSockets on our own connections, framed by Hypercorn's stream (wsproto, RFC 6455).

Hypercorn's stream reports every close as 1006; the class here passes on the caller's code and reason.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ConnectionState
from wsproto.events import CloseConnection, Ping
from wsproto.frame_protocol import CloseReason

from proxy.server.http1 import Connection, Headers, Refusal

if TYPE_CHECKING:
    from proxy.server.serve import Server

STREAM_ID: Final = 1
BUFFER_BYTES: Final = 256 * 1024
"""Bytes that may wait for the application; beyond it the connection is not read."""
_VERSION: Final = b"13"


class CloseReportingStream(WSStream):
    """Remember the close frame that the caller sent, and report its code and reason."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._close_frame: CloseConnection | None = None
        self._ended = asyncio.Event()

    async def handle(self, event: Any) -> None:
        """Handle an event as the base class does, but for the end."""
        if isinstance(event, StreamClosed):
            self._ended.set()
        if isinstance(event, StreamClosed) and self._close_frame is not None and not self.closed:
            self.closed = True
            code, reason = int(self._close_frame.code), self._close_frame.reason
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})
            return
        await super().handle(event)

    async def _send_wsproto_event(self, event: Any) -> None:
        closes = isinstance(event, CloseConnection) and self.state == ASGIWebsocketState.CONNECTED
        if closes and self._close_frame is None:  # the answer to the caller's frame, or a refused message
            self._close_frame = event
        await super()._send_wsproto_event(event)
        if closes and event.code == CloseReason.MESSAGE_TOO_BIG:
            # The base class would go on to read.
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        """Stop with the stream; the base class sleeps on, and the connection's task waits for it."""
        while not self._ended.is_set():
            await self._send_wsproto_event(Ping())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.websocket_ping_interval):
                    await self._ended.wait()


def serve_websocket(
    server: "Server", connection: Connection, scope: dict[str, Any]
) -> Callable[[bytes], None]:
    """Serve a WebSocket on a connection; return what the bytes of the caller are given to.

    Raises:
        Refusal: the handshake is not one of RFC 6455.
    """
    _check_handshake(scope["headers"])
    incoming = _Incoming(connection)
    connection.when_lost(incoming.end)
    server.run(_serve(server, connection, scope, incoming))
    return incoming.put


def _check_handshake(headers: Headers) -> None:
    """Refuse what WSStream would answer without a body, on a connection without a clock."""
    values = [value.strip() for name, value in headers if name == b"sec-websocket-version"]
    if values != [_VERSION]:
        raise Refusal(
            HTTPStatus.UPGRADE_REQUIRED,
            "only version 13 of the WebSocket protocol is served",
            [(b"sec-websocket-version", _VERSION)],
        )
    if sum(name == b"sec-websocket-key" for name, _ in headers) != 1:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the WebSocket handshake needs one Sec-WebSocket-Key")


class _Incoming:
    """Bytes of the caller that wait for the stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._paused = False
        self._ended = False
        self._arrived = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Add bytes; stop reading when too many wait."""
        self._chunks.append(data)
        self._bytes += len(data)
        self._arrived.set()
        if self._bytes > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._connection.pause_reading()

    def end(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._arrived.set()

    async def get(self) -> bytes:
        """Return the next bytes; nothing at the end."""
        while not self._chunks:
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


async def _serve(
    server: "Server", connection: Connection, scope: dict[str, Any], incoming: _Incoming
) -> None:
    async def send(event: Event) -> None:
        if isinstance(event, Response):
            connection.write_head(event.status_code, event.headers)
        elif isinstance(event, Body | Data):
            connection.write(event.data)
            with contextlib.suppress(ConnectionError):
                await connection.drained()
        elif isinstance(event, EndBody | StreamClosed):
            connection.close()

    async with TaskGroup(asyncio.get_running_loop()) as group:
        stream = CloseReportingStream(
            server.wrapped, server.config, server.context, group, scope["scheme"] == "https",
            scope["client"], scope["server"], send, STREAM_ID,
        )  # fmt: skip
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=scope["headers"],
                http_version=scope["http_version"],
                method=scope["method"],
                raw_path=target,
                state=ConnectionState(cast(Any, server.state)),
            )
        )
        while data := await incoming.get():
            await stream.handle(Data(stream_id=STREAM_ID, data=data))
        await stream.handle(StreamClosed(stream_id=STREAM_ID))

"""Connections to one upstream: which of them another request may use, and which are closed.

HTTP/1.1 has no request numbers: responses are matched to requests by their order alone. An
unsolicited byte of the upstream would therefore become part of the next caller's response. So a connection
serves another request only if all of this holds:

* The request before was sent completely before its response began, and carried no body where servers commonly
  leave one unread: with GET, HEAD, OPTIONS and DELETE, and where the response is an error.
* Its response was plain HTTP/1.1 without interim responses, upgrades or `Connection: close`, ended exactly
  where its framing says, and was read by its caller.
* Nothing has arrived since. A connection that receives anything while it is idle is closed at once, and the
  socket is checked again at the moment of use.
* It has been idle for a while: a server that responds twice often waits a moment. An upstream is on probation
  until several connections have been idle for a whole second without a byte; then a short time is enough. An
  upstream that sends unsolicited bytes gets a new connection for each request for some minutes.
* It has not been idle for so long that the upstream may be about to close it.
* The next request is written in one piece. Larger bodies and uploads get a new connection.

What remains: bytes that an upstream sends unsolicited after that time, while another request waits for its
response, cannot be distinguished from a response to this request.

A connection that dies before the first byte of a response is replaced by a new one if the request is safe to
send again: its method is idempotent (RFC 9110 9.2.2), or the upstream closed the connection before any byte
of it arrived, which shows in what TCP has acknowledged. A POST that may have arrived is never sent again.
With TLS, or where the kernel does not report acknowledgements, no POST is sent again.
"""

import asyncio
import contextlib
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Final, cast

import httpx2
import msgspec

from proxy.descriptors import descriptors_max
from proxy.errors import ProxyError
from proxy.telemetry import get_logger
from proxy.upstream.dialing import Dialer
from proxy.upstream.http1 import ArrivingResponse, request_head
from proxy.wire.headers import Headers, find_header
from proxy.wire.response_end import EXACT, SURPLUS, announced_idle_seconds
from proxy.wire.statuses import BAD_REQUEST

IDLE_SECONDS_MAX: Final = 4.0
"""Below the 5 s after which many servers (uvicorn, Hypercorn, Node) close an idle connection."""
IDLE_SECONDS_MIN: Final = 0.2
"""How long a connection is idle before its next request if the upstream has passed its probation."""
PROBATION_SECONDS: Final = 1.0
"""The same if the upstream has not."""
PROBATION_CONNECTIONS: Final = 8
"""How many connections must be idle for that long without receiving a byte."""
DISTRUST_SECONDS: Final = 600.0
"""How long an upstream that sent unsolicited bytes gets a new connection for each request."""
IDLE_CONNECTIONS_MAX: Final = 1024
"""Enough for 5,000 requests a second, each of which leaves a connection idle for `IDLE_SECONDS_MIN`."""
IDLE_CONNECTIONS_SHARE: Final = 0.25
"""The share of the process's file descriptors that idle connections may use."""
IDLE_ON_PROBATION_MAX: Final = 32
BODY_BUFFER_BYTES: Final = 128 * 1024
"""With more unread bytes of a body than this, the connection is not read."""
WHOLE_BODY_BYTES_MAX: Final = 1024 * 1024
"""A larger body is written in pieces: as a whole it would block the event loop."""
PIECE_BYTES: Final = 64 * 1024

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_BODY_OFTEN_UNREAD: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_IDLE_TIMEOUT: Final = (b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")
"""Servers may send this before they close an idle connection (RFC 9110 15.5.9): no reason for distrust."""
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_TCP_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_TCP_INFO_FIELDS: Final = struct.Struct("=24xI92xQ16xI")
"""tcpi_unacked, tcpi_bytes_acked and tcpi_notsent_bytes of Linux's struct tcp_info."""


class Delivery(msgspec.Struct, frozen=True):
    """What the kernel knows of the bytes that were sent on a connection."""

    acknowledged: int
    outstanding: bool


class _Turn(msgspec.Struct):
    """One request on a connection, and how its response arrives."""

    response: ArrivingResponse
    has_body: bool
    reused: bool
    acknowledged: int
    """Bytes that the upstream's TCP had acknowledged before the request; 0 if the kernel does not say."""
    written: bool = False
    upload: asyncio.Task[None] | None = None
    """Writes a body that is not written at once."""
    early: bool = False
    """Whether the response began before the request was sent completely."""
    unsolicited: bool = False
    """Whether bytes arrived that cannot be its response."""
    exact: bool = False
    """Whether the response ended exactly where its framing says."""
    undelivered: bool = False
    """Whether the upstream closed the connection before anything of the request had reached it."""

    def is_reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        response = self.response
        if (
            not self.written
            or self.early
            or response.error is not None
            or not response.ended
            or response.unread
        ):
            return False
        if self.has_body and (response.method in _BODY_OFTEN_UNREAD or response.status >= BAD_REQUEST):
            return False
        return (
            self.exact and response.version == "1.1" and response.keep_alive and not response.offers_upgrade
        )


class GuardedConnection(asyncio.Protocol):
    """The protocol of one connection, which knows to which request arriving bytes belong.

    Args:
        pool: Where it is kept between two requests.
        connected: Its socket: transports do not expose it, and uvloop returns a new wrapper on each call.
    """

    def __init__(self, pool: "ConnectionPool", connected: socket.socket) -> None:
        self.idle_since: float | None = None
        self.closed = False
        self._pool = pool
        self._socket = connected
        self._poll: select.poll | None = None
        self._transport: asyncio.Transport | None = None
        self._turn: _Turn | None = None
        self._before: Delivery | None = None
        """The kernel's delivery state when the connection was last checked."""
        self._is_reading_paused = False
        self._is_writing_paused = False
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or close it if something has arrived already."""
        self._transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)
        if self.closed:
            self._transport.abort()

    def send(
        self, method: str, head: bytes, body: bytes | AsyncIterable[bytes], length: int | None
    ) -> ArrivingResponse:
        """Send a request; the response has not arrived yet.

        Args:
            method: Its method.
            head: Its whole head.
            body: Its whole body, or a stream.
            length: The length of the body; None if it is sent in chunks.
        """
        self.idle_since = None
        delivery, self._before = self._before or self._delivery(), None
        reused = self._turn is not None
        response = ArrivingResponse(method)
        acknowledged = delivery.acknowledged if delivery else 0
        self._turn = turn = _Turn(response, bool(body), reused, acknowledged)
        transport = self._transport
        if transport is None or self.closed:
            response.lost(None)
        elif isinstance(body, bytes) and len(body) <= WHOLE_BODY_BYTES_MAX:
            transport.write(head + body if body else head)
            turn.written = True
        else:
            pieces = _pieces(body) if isinstance(body, bytes) else body
            transport.write(head)
            turn.upload = asyncio.get_running_loop().create_task(
                self._upload(turn, transport, pieces, length)
            )
        return response

    async def _upload(
        self,
        turn: _Turn,
        transport: asyncio.Transport,
        pieces: AsyncIterable[bytes],
        length: int | None,
    ) -> None:
        """Write a body as fast as the upstream takes it; a failure becomes that of an incomplete response."""
        try:
            sent = 0
            async for piece in pieces:
                sent += len(piece)
                if length is not None and sent > length:
                    break
                if piece:
                    transport.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                await self._drained()
            if length is None:
                transport.write(b"0\r\n\r\n")
            elif sent != length:
                raise httpx2.LocalProtocolError("the body differs from its Content-Length")
            turn.written = True
        except Exception as error:  # Reading the caller's body may raise anything.
            failure = error
            if not isinstance(error, ProxyError):  # Ours says that the caller's body broke off.
                failure = httpx2.ReadError("the request was not sent completely")
                failure.__cause__ = error
            if not turn.response.ended:
                turn.response.fail(failure)
            self.abort()

    async def _drained(self) -> None:
        """Wait while the write buffer is full; the end of the connection cancels the upload."""
        if self._is_writing_paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def pause_writing(self) -> None:
        """Make the upload wait."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Let the upload continue."""
        self._is_writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    @property
    def idle_seconds_max(self) -> float:
        """How long the connection may be idle: less than the upstream keeps it."""
        announced = None if self._turn is None else announced_idle_seconds(self._turn.response.headers)
        return IDLE_SECONDS_MAX if announced is None else min(IDLE_SECONDS_MAX, announced / 2)

    def release(self) -> None:
        """Return the connection to the pool if another request may follow, else close it."""
        if self.closed or self._turn is None or not self._turn.is_reusable() or not self._pool.put(self):
            self.discard()
        elif _TCP_QUICKACK is not None:
            # Until its last bytes are acknowledged, the upstream's kernel may hold more of them back (Nagle).
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)

    def is_ready(self) -> bool:
        """Whether the upstream has received all of the last request."""
        if self.closed:
            return False
        self._before = delivery = self._delivery()
        return delivery is None or not delivery.outstanding

    def is_silent(self) -> bool:
        """Whether the upstream has neither sent anything nor closed, as far as the kernel knows."""
        return not self.closed and not self._is_readable()

    def may_send_again(self) -> bool:
        """Whether a request that got no response here can be sent on another connection."""
        turn = self._turn
        if turn is None or not turn.reused or turn.response.meter.received:
            return False
        return turn.unsolicited or turn.undelivered or turn.response.method in _IDEMPOTENT

    def may_have_run(self) -> bool:
        """Whether the upstream may act on the last request: it was sent completely, and may have arrived."""
        turn = self._turn
        return turn is not None and turn.written and not turn.unsolicited and not turn.undelivered

    def close(self) -> None:
        """Close at once, dropping unwritten bytes, and without a TLS shutdown."""
        self._pool.forget(self)
        self.abort()

    def discard(self) -> None:
        """Close the connection, whose response nobody reads any more."""
        self.close()
        if self._turn is not None:
            self._turn.response.close()

    def abort(self) -> None:
        """Close the connection; nothing that arrives afterwards is read."""
        self.closed = True
        if self._turn is not None and self._turn.upload is not None:
            self._turn.upload.cancel()
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on bytes of the response; unsolicited bytes close the connection."""
        turn, transport = self._turn, self._transport
        if self.closed or transport is None:
            return
        if turn is None or turn.response.ended:
            self._close_over_unsolicited(data)
            return
        response = turn.response
        if not response.meter.received and not self._can_be_response(turn, data):
            return
        response.feed(data)
        if response.ended:
            end = response.end()
            turn.exact = end is EXACT
            if end is SURPLUS:
                self._close_over_unsolicited(b"")
        elif response.error is not None:
            self.abort()
        elif response.unread > BODY_BUFFER_BYTES and not self._is_reading_paused:
            self._is_reading_paused = True
            transport.pause_reading()
            response.drained = self._resume_reading

    def _resume_reading(self) -> None:
        self._is_reading_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note, while the kernel still knows, whether the upstream received the request.

        Only the end of the stream proves that it did not: it acknowledges all that had arrived before it. A
        reset proves nothing, unless it comes after the end of the stream, where it is EPIPE.
        """
        turn, self.closed = self._turn, True
        if turn is not None and self.idle_since is None and isinstance(exc, BrokenPipeError | None):
            turn.undelivered = self._is_undelivered(turn)
        self._pool.lost(self)
        if turn is not None:
            turn.response.lost(exc)
            if turn.upload is not None:
                turn.upload.cancel()
        self._transport = None

    def _delivery(self) -> Delivery | None:
        """Return what the kernel knows (tcp(7), TCP_INFO); None if it does not say."""
        if _TCP_INFO is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_FIELDS.size)
            in_flight, acknowledged, unsent = _TCP_INFO_FIELDS.unpack(info)
        except (OSError, struct.error):
            return None
        return Delivery(acknowledged, bool(in_flight or unsent)) if acknowledged else None

    def _is_undelivered(self, turn: _Turn) -> bool:
        delivery = self._delivery()
        return delivery is not None and turn.acknowledged == delivery.acknowledged

    def _is_readable(self) -> bool:
        descriptor = self._socket.fileno()
        if descriptor < 0 or not hasattr(select, "poll"):
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        return bool(self._poll.poll(0))

    def _can_be_response(self, turn: _Turn, data: bytes) -> bool:
        """Whether the first bytes after a request can be its response, and not the rest of an earlier one.

        Otherwise the connection is closed. A request that was sent on a reused connection is sent again on a
        new one: no upstream can have acted on a request that it has not received completely.
        """
        delivery = self._delivery()
        turn.early = not turn.written or (delivery is not None and delivery.outstanding)
        if delivery is not None and delivery.acknowledged == turn.acknowledged:
            turn.unsolicited = True
            self._close_over_unsolicited(data)
        elif turn.reused and not turn.written:
            turn.unsolicited = True
            self._end("the upstream answered before it had the request")
        return not turn.unsolicited

    def _end(self, words: str) -> None:
        """Close the connection; the response fails unless it is complete."""
        if self._turn is not None and not self._turn.response.ended:
            self._turn.response.fail(httpx2.RemoteProtocolError(words))
        self.close()

    def _close_over_unsolicited(self, data: bytes) -> None:
        self._end("the upstream sent unsolicited bytes")
        if not data.startswith(_IDLE_TIMEOUT):
            self._pool.distrust()


class ConnectionPool:
    """The connections to one origin: which of them are idle, and how far it is trusted.

    Args:
        dialer: Opens connections.
        idle_seconds_min: How long each connection is idle before its next request.
        probation_seconds: The same until the origin has proven to send nothing unsolicited.
    """

    def __init__(self, dialer: Dialer, idle_seconds_min: float, probation_seconds: float) -> None:
        self.dialer = dialer
        self._idle_seconds_min, self._probation_seconds = idle_seconds_min, probation_seconds
        self._open: set[GuardedConnection] = set()
        self._is_closed = False
        self._idle: dict[GuardedConnection, asyncio.TimerHandle] = {}
        self._idle_seconds_max = IDLE_SECONDS_MAX
        """After a longer time, the upstream may be about to close the connection."""
        self._silent_count = 0
        self._distrusted_until = float("-inf")
        self._idle_max = min(IDLE_CONNECTIONS_MAX, IDLE_CONNECTIONS_SHARE * descriptors_max())

    async def open(self, seconds: float | None) -> GuardedConnection:
        """Open a connection; see `Dialer.open`."""
        return await self.dialer.open(lambda connected: GuardedConnection(self, connected), seconds)

    def opened(self, connection: GuardedConnection) -> None:
        """Count a connection."""
        self._open.add(connection)
        if self._is_closed:
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        for connection in tuple(self._open):
            connection.close()

    def put(self, connection: GuardedConnection) -> bool:
        """Keep an idle connection; False if there is no room, or no trust."""
        loop = asyncio.get_running_loop()
        room = self._idle_max
        if self._is_on_probation:
            room = min(room, IDLE_ON_PROBATION_MAX)
        if len(self._idle) >= room or loop.time() < self._distrusted_until:
            return False
        connection.idle_since = loop.time()
        self._idle[connection] = loop.call_later(connection.idle_seconds_max, self._retire, connection)
        return True

    def take(self) -> GuardedConnection | None:
        """Return the connection that has been idle longest, if long enough and without any byte received."""
        now = asyncio.get_running_loop().time()
        needed = max(self._idle_seconds_min, self._probation_seconds if self._is_on_probation else 0.0)
        while (connection := self._oldest(now, needed)) is not None:
            if not connection.is_silent():
                self.lost(connection)
            else:
                self.forget(connection)
                if connection.is_ready():
                    self._count_silence(now - (connection.idle_since or now))
                    return connection
            connection.close()
        return None

    def _oldest(self, now: float, needed: float) -> GuardedConnection | None:
        """Return the connection that has been idle longest, if for long enough."""
        for connection in self._idle:
            idle_for = now - (connection.idle_since or now)
            if idle_for < needed:
                return None
            if idle_for <= self._idle_seconds_max:
                return connection
            # A connection that has been idle longer shows how long the upstream really waits.
        return None

    def lost(self, connection: GuardedConnection) -> None:
        """Note when the upstream closed a connection: others are used after half that time at most."""
        if connection in self._idle and connection.idle_since is not None:
            idle_for = asyncio.get_running_loop().time() - connection.idle_since
            self._idle_seconds_max = min(self._idle_seconds_max, idle_for / 2)
        self.forget(connection)
        self._open.discard(connection)

    def forget(self, connection: GuardedConnection) -> None:
        """Remove a connection from the pool."""
        if (timer := self._idle.pop(connection, None)) is not None:
            timer.cancel()

    def distrust(self) -> None:
        """Use no connection twice for some minutes."""
        now = asyncio.get_running_loop().time()
        if now >= self._distrusted_until:
            get_logger("upstreams").warning(
                "upstream_sends_unsolicited_bytes",
                host=self.dialer.host,
                port=self.dialer.port,
                new_connections_for_s=DISTRUST_SECONDS,
            )
        self._distrusted_until, self._silent_count = now + DISTRUST_SECONDS, 0
        for connection in list(self._idle):
            connection.close()

    def _retire(self, connection: GuardedConnection) -> None:
        self._count_silence(connection.idle_seconds_max)
        self._idle_seconds_max = max(self._idle_seconds_max, connection.idle_seconds_max)
        connection.close()

    def _count_silence(self, seconds: float) -> None:
        if seconds >= self._probation_seconds:
            self._silent_count += 1

    @property
    def _is_on_probation(self) -> bool:
        return self._silent_count < PROBATION_CONNECTIONS


class UpstreamConnector:
    """Sends requests on idle connections, or on new ones.

    Args:
        tls: The TLS context, or False for plain connections.
        proxy: URL of a forward proxy, if there is one.
        idle_seconds_min: See `ConnectionPool`.
        probation_seconds: See `ConnectionPool`.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | bool,
        proxy: str | None = None,
        idle_seconds_min: float = IDLE_SECONDS_MIN,
        probation_seconds: float = PROBATION_SECONDS,
    ) -> None:
        self._tls = tls if isinstance(tls, ssl.SSLContext) else None
        self._proxy = proxy
        self._seconds = (idle_seconds_min, probation_seconds)
        self._pools: dict[str, ConnectionPool] = {}
        self._is_closed = False

    async def send(
        self,
        method: str,
        origin: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterable[bytes],
        *,
        connect: float | None,
        unanswered: Callable[[], None] | None = None,
    ) -> tuple[GuardedConnection, ArrivingResponse]:
        """Send a request, and again if a used connection turned out to be dead.

        Args:
            method, origin, target, headers, body, connect: See `UpstreamTransport.send`.
            unanswered: Called if the upstream may act on the request, and its response does not arrive.

        Returns:
            The response, whose head has arrived, and its connection, which the caller releases.
        """
        pool = self._pools.get(origin) or self._add_pool(origin)
        dialer = pool.dialer
        if dialer.proxy_headers:
            headers = [*headers, *dialer.proxy_headers]
        size = len(body) if isinstance(body, bytes) else None
        length = _announced_length(headers) if size is None else size
        head = request_head(method, dialer.target_prefix + target, dialer.request_host, headers, size)
        # No other task can use the socket before the request is written, so the pool's check stays valid.
        used = pool.take() if size is not None and size <= WHOLE_BODY_BYTES_MAX else None
        while True:
            connection = used or await pool.open(connect)
            has_response = False
            try:
                response = connection.send(method, head, body, length)
                await response.head()
                has_response = True
                return connection, response
            except httpx2.TransportError:
                if used is None or not connection.may_send_again():
                    raise
                used = None
            finally:
                if not has_response:
                    if unanswered is not None and connection.may_have_run():
                        unanswered()
                    connection.discard()

    def close(self) -> None:
        """Close every connection, and those that are opened later."""
        self._is_closed = True
        for pool in self._pools.values():
            pool.close()

    def _add_pool(self, origin: str) -> ConnectionPool:
        dialer = Dialer(origin, tls=self._tls, proxy=self._proxy)
        self._pools[origin] = pool = ConnectionPool(dialer, *self._seconds)
        if self._is_closed:
            pool.close()
        return pool


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def _announced_length(headers: Headers) -> int | None:
    length = find_header(headers, b"content-length")
    return None if length is None else int(length)

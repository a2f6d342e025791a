"""HTTP/1.1 between a caller's connection and an ASGI application (RFC 9110, RFC 9112).

`Connection` is the asyncio protocol of one connection. Its `RequestReader` builds a `Cycle` for each request,
which has the `receive` and `send` of ASGI. Requests of one connection are answered one at a time (RFC 9112
9.3.2), while pipelined ones wait.

Every wait has a timeout, and every input a bound. The timeouts need no timers of their own: the server calls
`Connection.tick` about once a second.
"""

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Final, Protocol, cast

from proxy.server import tcp
from proxy.server.limits import (
    BODY_BUFFER_BYTES,
    FIRST_REQUEST_SECONDS,
    LINGER_BYTES,
    LINGER_SECONDS,
    PIPELINE_MAX,
    PROBE_PAUSES,
    PROBE_SECONDS,
    UNPROBED_SECONDS,
    ConnectionLimits,
    RequestRejected,
)
from proxy.server.request_cycle import CONTINUE, App, Cycle, DisconnectReason, status_line
from proxy.server.request_head import Endpoints, Scope, header_lines
from proxy.server.request_reader import RequestReader
from proxy.wire.headers import Headers

GONE: Final = "client_gone"
SLOW_READER: Final = "slow_reader"
SLOW_BODY: Final = "slow_body"
MALFORMED_BODY: Final = "malformed_body"


class ConnectionOwner(Protocol):
    """The server, as its connections use it."""

    app: App
    limits: ConnectionLimits
    state: dict[str, object]
    root_path: str

    @property
    def draining(self) -> bool:
        """Whether each connection is closed after its current response."""
        ...

    def opened(self, connection: "Connection") -> None:
        """Count a connection.

        Raises:
            RequestRejected: There are too many.
        """
        ...

    def closed(self, connection: "Connection") -> None:
        """Remove a connection from the count."""
        ...

    def run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that the server owns."""
        ...

    def common_headers(self) -> bytes:
        """Return the header lines of every response, such as Date."""
        ...

    def reject(self, rejection: RequestRejected, peer: str | None) -> tuple[Headers, bytes]:
        """Log a rejection; return the headers and the body of its response."""
        ...

    def failed(self, error: BaseException) -> None:
        """Log an exception that escaped from the application."""
        ...

    def upgrade(self, connection: "Connection", scope: Scope) -> Callable[[bytes], None]:
        """Serve a WebSocket on a connection; return what takes the caller's further bytes.

        Raises:
            RequestRejected: The handshake is not one of RFC 6455.
        """
        ...


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection: its requests in order, its reading and writing, its end."""

    def __init__(self, owner: ConnectionOwner, *, secure: bool) -> None:
        self.owner = owner
        self.limits = owner.limits
        self.loop = asyncio.get_running_loop()
        self.peer: str | None = None
        self._scheme = "https" if secure else "http"
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._socket: socket.socket | None = None
        self._reader: RequestReader = cast(RequestReader, None)
        # The request that is being answered, and those behind it.
        self._cycle: Cycle | None = None
        self._pipeline: deque[Cycle] = deque()
        self._rejection: RequestRejected | None = None
        # The transport.
        self._upgraded: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[], None] | None = None
        self._closing = self._lost = self._eof = self._ends_idle = False
        self._reason: DisconnectReason = ""
        self._lingered = -1
        self._linger_until = 0.0
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = False
        # Progress since the beginning of the window.
        self._body_window = (0.0, 0)
        self._write_window: tuple[float, int] | None = None
        self._written = 0
        # The probes of a half-closed caller.
        self._probe_pauses: Iterator[float] | None = None
        self._probe_at = 0.0
        self._written_at_probe = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection with the server; reject it if there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        client = tcp.address(transport.get_extra_info("peername"))
        server = tcp.address(transport.get_extra_info("sockname"))
        self.peer = None if client is None else client[0]
        self._reader = RequestReader(self, Endpoints(self._scheme, client, server, self.owner.root_path))
        try:
            self.owner.opened(self)
        except RequestRejected as rejection:
            self._reject(rejection)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, hand them to the WebSocket, or drop them while the connection is being closed."""
        if self._lingered >= 0:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._cut()
        elif self._upgraded is not None:
            self._upgraded(data)
        elif not self._closing and self._rejection is None:
            rejection = self._reader.feed(data)
            if rejection is not None:
                self._reject(rejection)
            elif self._upgraded is None:
                self.balance_reading()

    def eof_received(self) -> bool:
        """Return whether to keep the connection open for writing.

        The caller sends no more bytes: it has closed the connection, or only its sending side.
        """
        self._eof = True
        if self._upgraded is not None or self._lingered >= 0 or self._cycle is None or self._closing:
            return False
        # Nobody waits for a response to half a request, and TLS connections have no half-closed state.
        if self._reader.incoming is not None or not self._transport.can_write_eof():
            self.abort()
            return False
        if self._probe_pauses is None:
            self._probe()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect to the application, and release the connection."""
        del exc
        if self._lost:
            return
        self._lost = True
        self.owner.closed(self)
        self._disconnect(GONE)
        self.resume_writing()
        if self._on_lost is not None:
            self._on_lost()
            self._on_lost = None
        # These refer to the connection. With them, only the garbage collector could free it.
        self._cycle = self._upgraded = None
        self._reader.close()
        del self._reader

    def pause_writing(self) -> None:
        """Note that the write buffer is full; `drained` waits from now on."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let `drained` return: the caller has read enough."""
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- requests

    @property
    def is_answering(self) -> bool:
        """Whether the response to a request is not complete."""
        return self._cycle is not None

    @property
    def waiting_since(self) -> float | None:
        """Since when it has waited for a whole head of a request; None if it does not.

        It does not while the caller still reads the response to its last request.
        """
        is_busy = self._cycle is not None or self._upgraded is not None or self._closing or self._lost
        return None if is_busy or self._transport.get_write_buffer_size() else self._reader.head_since

    def start(self, cycle: Cycle) -> None:
        """Start a request, or let it wait until the current response is complete.

        Raises:
            RequestRejected: 400, too many wait.
        """
        if self._cycle is None:
            self._cycle = cycle
            self._body_window = (self.loop.time(), 0)
            self.owner.run(cycle.run())
        elif len(self._pipeline) < PIPELINE_MAX:
            self._pipeline.append(cycle)
        else:
            raise RequestRejected(HTTPStatus.BAD_REQUEST, "too many pipelined requests")

    def upgrade(self, scope: Scope, rest: bytes) -> None:
        """Continue as a WebSocket, with the bytes that follow its handshake.

        Raises:
            RequestRejected: The handshake is not one of RFC 6455.
        """
        self._upgraded = self.owner.upgrade(self, scope)
        if rest:
            self._upgraded(rest)

    # --- responses

    @property
    def is_last(self) -> bool:
        """Whether the connection is closed after the response that begins now."""
        ends = self._eof and not self._pipeline and self._rejection is None
        return ends or self.owner.draining or self._reader.requests >= self.limits.requests

    def write(self, data: bytes) -> None:
        """Write bytes to the transport, unless the connection is lost."""
        if not self._lost:
            self._written += len(data)
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the write buffer is full.

        Raises:
            ConnectionResetError: The caller has disconnected.
        """
        if self._writing_paused:
            if self._writable is None:
                self._writable = self.loop.create_future()
            await self._writable
        if self._lost:
            raise ConnectionResetError(self._reason)

    def response_complete(self, cycle: Cycle, *, close: bool) -> None:
        """Start the next request after a complete response, or close the connection."""
        if cycle is not self._cycle:
            return
        self._cycle = None
        if close or not cycle.body_complete:
            self._close_politely(linger=not cycle.body_complete)
        elif self._pipeline:
            self.start(self._pipeline.popleft())
            self.balance_reading()
        elif self._rejection is not None:
            self._reject(self._rejection)
        elif self._eof or self.owner.draining:
            self._close_politely(linger=False)
        else:
            self._reader.head_since = self.loop.time()
            self.balance_reading()

    def response_broken(self, cycle: Cycle) -> None:
        """End an incomplete response: with a 500 if nothing was sent, otherwise by closing the connection."""
        if cycle.has_head:
            cycle.flush_head()
        if not cycle.started:
            cycle.disconnected = GONE
            self._cycle = None
            self._reject(
                RequestRejected(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed to answer the request")
            )
        elif cycle.ends_by_close:
            self._cut()
        else:
            self._close_politely(linger=False)  # The last chunk, or the rest of the length, is missing.

    def balance_reading(self) -> None:
        """Pause or resume reading, so that unread bytes stay below `BODY_BUFFER_BYTES`."""
        cycle = self._cycle
        full = bool(self._pipeline) or (cycle is not None and cycle.unread > BODY_BUFFER_BYTES)
        if full != self._reading_paused and not self._closing and not self._lost:
            self._reading_paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def begin_drain(self) -> None:
        """Close the connection if it is idle; a new one may still send its first request."""
        self._ends_idle = True
        reader = self._reader
        if reader.requests and self._cycle is None and self._upgraded is None and not reader.head_bytes:
            self._close_politely(linger=False)

    def close(self) -> None:
        """Close the connection of a WebSocket once the write buffer is empty."""
        self._close_politely(linger=True)

    def abort(self, reason: DisconnectReason = GONE) -> None:
        """Close the connection at once, without its buffered bytes; the application gets the reason."""
        self._disconnect(reason)
        self._closing = True
        self._cut()

    def pause_reading(self) -> None:
        """Stop reading, for a WebSocket whose messages wait."""
        if not self._lost and not self._closing:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue reading."""
        if not self._lost and not self._closing:
            self._reading_paused = False
            self._transport.resume_reading()

    def write_head(self, status: int, headers: Headers) -> None:
        """Write the head of a response to a WebSocket handshake or to a rejected request."""
        self.write(status_line(status) + header_lines(headers) + self.owner.common_headers() + b"\r\n")

    def when_lost(self, act: Callable[[], None]) -> None:
        """Set a function to call when the connection is lost."""
        self._on_lost = act

    def _reject(self, rejection: RequestRejected) -> None:
        """Reject a request, after the responses to earlier ones, and close the connection."""
        cycle = self._cycle
        if cycle is not None:
            incoming = self._reader.incoming
            if incoming is not cycle:
                # The rejection belongs to a later request: answer the earlier ones first.
                self._rejection = rejection
                if incoming is not None:
                    self._pipeline.remove(incoming)
                    self._reader.incoming = None
                return
            reason = SLOW_BODY if rejection.status == HTTPStatus.REQUEST_TIMEOUT else MALFORMED_BODY
            if cycle.started:
                self.abort(reason)
                return
            cycle.disconnect(reason)
            self._cycle = None
        self._rejection = rejection
        headers, body = self.owner.reject(rejection, self.peer)
        length = (b"content-length", b"%d" % len(body))
        self.write_head(rejection.status, [*headers, length, (b"connection", b"close")])
        self.write(body)
        self._close_politely(linger=True)

    def _close_politely(self, *, linger: bool) -> None:
        """Close once the write buffer is empty (RFC 9112 9.6).

        Args:
            linger: Drop what the caller still sends for a while: closing with unread bytes sends a reset,
                which can destroy the response.
        """
        if self._closing or self._lost:
            return
        self._closing = True
        if not linger or self._eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingered = 0
        self._linger_until = self.loop.time() + LINGER_SECONDS
        self._transport.write_eof()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def _cut(self) -> None:
        """Close the connection at once, without its buffered bytes.

        If a part of a response is missing then, the end is a reset: in HTTP/1.0 the normal end of the
        connection may be the end of the response.
        """
        if self._cycle is not None or self._transport.get_write_buffer_size():
            tcp.prepare_reset(self._socket)
        self._transport.abort()

    def _disconnect(self, reason: DisconnectReason) -> None:
        self._reason = self._reason or reason
        if self._cycle is not None:
            self._cycle.disconnect(reason)
        for cycle in self._pipeline:
            cycle.disconnect(reason)
        self._pipeline.clear()

    # --- clocks

    def tick(self, now: float) -> None:
        """Enforce the timeouts; called about once a second."""
        if self._lost:
            return
        cycle, reader = self._cycle, self._reader
        if self._is_stalled(now):
            self.abort(SLOW_READER)
        elif self._lingered >= 0:
            if self._transport.get_write_buffer_size():  # The caller still takes the response.
                self._linger_until = now + LINGER_SECONDS
            elif now >= self._linger_until:
                self._transport.abort()
        elif self._closing:
            pass
        elif cycle is not None:
            self._detect_disconnect()
            if cycle is reader.incoming and self._is_slow_body(cycle, now):
                self._reject(
                    RequestRejected(HTTPStatus.REQUEST_TIMEOUT, "the request body arrives too slowly")
                )
        elif self._upgraded is not None:
            self._detect_disconnect()
        elif reader.head_bytes and now - reader.head_since > self.limits.head_seconds:
            self._reject(RequestRejected(HTTPStatus.REQUEST_TIMEOUT, "the request head arrives too slowly"))
        elif now - reader.head_since > self._idle_seconds():
            self._close_politely(linger=False)

    def _idle_seconds(self) -> float:
        if self._ends_idle:
            return FIRST_REQUEST_SECONDS
        return self.limits.idle_seconds if self._reader.requests else self.limits.head_seconds

    def _is_slow_body(self, cycle: Cycle, now: float) -> bool:
        since, before = self._body_window
        received = self._reader.body_received
        if not cycle.wants_body:  # The application does not read: that is not the caller's fault.
            self._body_window = (now, received)
            return False
        if now - since < self.limits.window_seconds:
            return False
        self._body_window = (now, received)
        return received - before < self.limits.body_bytes

    def _is_stalled(self, now: float) -> bool:
        """Whether bytes wait for the caller, who has taken too few of them in the last window."""
        if not self._transport.get_write_buffer_size():
            self._write_window = None
            return False
        since, taken = self._write_window = self._write_window or (now, self._taken())
        if now - since < self.limits.window_seconds:
            return False
        now_taken = self._taken()
        self._write_window = (now, now_taken)
        return now_taken - taken < self.limits.response_bytes

    def _taken(self) -> int:
        """Return how many bytes of all responses the caller's kernel has acknowledged."""
        return self._written - self._transport.get_write_buffer_size() - tcp.unacknowledged(self._socket)

    def _detect_disconnect(self) -> None:
        """Detect that the caller has closed a connection that is not being read."""
        if not (self._eof or self._reading_paused):
            return
        state = tcp.state(self._socket)
        if state == tcp.CLOSE:
            self.abort(GONE)
        elif (self._eof or state == tcp.CLOSE_WAIT) and self._is_probe_due():
            self._probe()

    def _is_probe_due(self) -> bool:
        """Whether to probe: at once, and again after each of the pauses in which nothing was sent.

        Whatever is sent is a probe itself, and the pauses begin anew.
        """
        if self._probe_pauses is None:
            return True
        if self._written == self._written_at_probe:
            return self.loop.time() >= self._probe_at
        self._probe_pauses = iter(PROBE_PAUSES)
        self._await_next_probe(self._probe_pauses)
        return False

    def _await_next_probe(self, pauses: Iterator[float]) -> None:
        self._written_at_probe = self._written
        self._probe_at = self.loop.time() + next(pauses, math.inf)

    def _probe(self) -> None:
        """Probe a half-closed connection with bytes that a live caller ignores.

        A caller that has closed the connection answers them with a reset, and its request can be cancelled.
        Before the response the probe is a 100 Continue; within a chunked response it is a leading zero of the
        next chunk size, of which RFC 9112 7.1 allows any number.

        HTTP/1.0 and a body with a length have no such bytes. There the next bytes of the response are the
        probe, and if there are none for `UNPROBED_SECONDS` at first, the caller counts as gone.
        """
        cycle = self._cycle
        if cycle is None or self._lost:
            return
        if cycle.is_chunked and not cycle.complete:
            self.write(b"0")
        elif not cycle.started and not cycle.is_http_1_0:
            self.write(CONTINUE)
        elif self._probe_pauses is None:
            if not cycle.body_complete:
                return  # The rest of the request waits to be read.
            self.loop.call_later(UNPROBED_SECONDS, self._end_unprobed, self._taken())
        if self._probe_pauses is None:
            self._probe_pauses = iter(PROBE_PAUSES)
            tcp.keep_alive(self._socket)
        self._await_next_probe(self._probe_pauses)
        self.loop.call_later(PROBE_SECONDS, self._detect_disconnect)

    def _end_unprobed(self, taken: int) -> None:
        """Abort a half-closed connection if its caller had received everything by then and has been sent
        nothing since.
        """
        if not self._lost and not self._closing and self._written == taken:
            self.abort(GONE)

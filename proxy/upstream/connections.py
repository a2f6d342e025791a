"""Connections to one upstream: which of them another request may use, and which are closed.

HTTP/1.1 has no request numbers: responses are matched to requests by their order alone. An
unsolicited byte of the upstream would therefore become part of the next caller's response. So a connection
serves another request only if all of this holds:

* The request before was sent completely before its answer began, and carried no body where servers commonly
  leave one unread: with GET, HEAD, OPTIONS and DELETE, and where the answer is an error.
* Its answer was plain HTTP/1.1 without interim answers, upgrades or `Connection: close`, ended exactly where
  its framing says, and was read by its caller.
* Nothing has arrived since. A connection that receives anything while it rests is closed at once, and the
  socket is checked again at the moment of use.
* It has rested for a while: servers that answer twice often do so a moment later. An upstream is on probation
  until several connections have rested for a whole second without a byte; then a short rest is enough. An
  upstream that sends unsolicited bytes gets a new connection for each request for some minutes.
* It has not rested for long enough to be closed by the upstream at this very moment.
* The next request is written in one piece. Larger bodies and uploads get a new connection.

What remains: an upstream that sends unsolicited bytes later than that, while another request waits for its
answer, cannot be distinguished from an answer to this request.

A connection that dies before the first byte of an answer is replaced by a new one if the request is safe to
send again: its method is idempotent (RFC 9110 9.2.2), or the upstream closed the connection before any byte
of it arrived, which shows in what TCP has acknowledged. A POST that may have arrived is never sent again;
with TLS, and where the kernel does not say, that is every POST.

All of this uses aiohttp's public interface but for one method, `_create_connection`, which every subclass of
its `BaseConnector` has to implement. `UpstreamConnector.connect` raises if aiohttp no longer calls it.
"""

import asyncio
import contextlib
import functools
import itertools
import select
import socket
import ssl
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace

from proxy.telemetry import get_logger
from proxy.wire.response_end import End, ResponseMeter, announced_idle_seconds

# Below the 5 s after which many servers (uvicorn, Hypercorn, Node) close an idle connection.
KEEP_ALIVE_SECONDS: Final = 4.0
REST_SECONDS: Final = 0.2
"""How long a connection rests after an answer if the upstream has passed its probation."""
PROBATION_SECONDS: Final = 1.0
"""How long it rests if the upstream has not."""
PROBATION_RESTS: Final = 8
"""How many connections must rest for that long without receiving a byte."""
DISTRUST_SECONDS: Final = 600.0
"""How long an upstream that sent unsolicited bytes gets a new connection for each request."""
RESTING_MAX: Final = 256
RESTING_ON_PROBATION_MAX: Final = 32
INTERIM_ANSWERS_MAX: Final = 1000
"""More 1xx answers to one request are a defect or an attack."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_BODY_OFTEN_UNREAD: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_IDLE_TIMEOUT: Final = (b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")
"""Servers may send this before they close an idle connection (RFC 9110 15.5.9): no reason for distrust."""
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_TCP_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_TCP_INFO_FIELDS: Final = struct.Struct("=24xI92xQ16xI")
"""tcpi_unacked, tcpi_bytes_acked and tcpi_notsent_bytes of Linux's struct tcp_info."""


class Delivery(NamedTuple):
    """What the kernel knows of the bytes that were sent on a connection."""

    acknowledged: int
    outstanding: bool


@dataclass(slots=True)
class _Turn:
    """One request on a connection, and how its answer arrives."""

    method: str
    has_body: bool
    keep: bool
    """Whether the connection may serve another request afterwards."""
    reused: bool
    acknowledged: int
    """Bytes that the upstream's TCP had acknowledged before the request; 0 if the kernel does not say."""
    meter: ResponseMeter = field(default_factory=ResponseMeter)
    written: bool = False
    early: bool = False
    """Whether the answer began before the request was sent completely."""
    unsolicited: bool = False
    """Whether bytes arrived that cannot be its answer."""
    undelivered: bool = False
    """Whether the upstream closed the connection before anything of the request had reached it."""
    interim: int = 0
    answers: int = 0
    answer: RawResponseMessage | None = None
    payload: StreamReader | None = None
    known_end: tuple[int, End] = (0, End.UNCLEAR)

    @property
    def ended(self) -> bool:
        """Whether the answer is complete; its caller may still have to read it."""
        return self.payload is not None and self.payload.is_eof()

    def end(self) -> End:
        """Whether anything followed the complete answer."""
        if self.answers > 1:
            return End.SURPLUS
        if self.answer is None or self.interim:
            return End.UNCLEAR
        if self.known_end[0] != self.meter.received:
            end = self.meter.end(self.method, self.answer.code, self.answer.raw_headers)
            self.known_end = (self.meter.received, end)
        return self.known_end[1]

    def is_reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        answer = self.answer
        if not self.keep or not self.written or self.early or answer is None or not self.ended:
            return False
        if self.has_body and (self.method in _BODY_OFTEN_UNREAD or answer.code >= HTTPStatus.BAD_REQUEST):
            return False
        if answer.version != HttpVersion11 or answer.should_close or "Upgrade" in answer.headers:
            return False
        return self.end() is End.EXACT


class GuardedConnection(ResponseHandler):
    """aiohttp's protocol of one connection, which also keeps account of whose bytes arrive on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: "ConnectionPool", lane: int) -> None:
        super().__init__(loop)
        self.lane = lane
        self.rests_since: float | None = None
        self._pool = pool
        self._turn: _Turn | None = None
        self._socket: socket.socket | None = None
        self._before: Delivery | None = None
        """What was delivered when the connection was found ready for another request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket, because uvloop creates a new object for each query."""
        self._socket = transport.get_extra_info("socket")
        super().connection_made(transport)

    def begin(self, request: "UpstreamHttpRequest", *, keep: bool) -> None:
        """Begin the next request.

        Args:
            request: The request.
            keep: Whether another request may follow on the connection.
        """
        self.rests_since = None
        delivery, self._before = self._before or self._delivery(), None
        self._turn = _Turn(
            request.method,
            has_body=bool(request.body),
            keep=keep,
            reused=self._turn is not None,
            acknowledged=delivery.acknowledged if delivery else 0,
        )

    @property
    def idle_seconds(self) -> float:
        """How long the connection may rest: less than the upstream keeps it."""
        headers = self._turn.answer.raw_headers if self._turn is not None and self._turn.answer else ()
        announced = announced_idle_seconds(headers)
        return KEEP_ALIVE_SECONDS if announced is None else min(KEEP_ALIVE_SECONDS, announced / 2)

    def on_released(self) -> None:
        """Return the connection to the pool if another request may follow, else let aiohttp close it."""
        if self._turn is None or not self._turn.is_reusable() or not self._pool.put(self):
            self.force_close()
        elif _TCP_QUICKACK is not None and self._socket is not None:
            # Until its last bytes are acknowledged, the upstream's kernel may hold more of them back (Nagle).
            with contextlib.suppress(OSError, AttributeError, TypeError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)

    def is_ready(self) -> bool:
        """Whether its caller has read the last answer, and the upstream has received all of the request."""
        turn = self._turn
        if turn is None or turn.payload is None or not turn.payload.at_eof() or self.should_close:
            return False
        self._before = delivery = self._delivery()
        return delivery is None or not delivery.outstanding

    def is_silent(self) -> bool:
        """Whether the upstream has neither sent anything nor closed, as far as the kernel knows."""
        return self.is_connected() and not self._is_readable()

    def may_send_again(self) -> bool:
        """Whether a request that got no answer here can be sent on another connection."""
        turn = self._turn
        if turn is None or not turn.reused or turn.meter.received:
            return False
        return turn.unsolicited or turn.undelivered or turn.method in _IDEMPOTENT

    def close(self) -> None:
        """Close at once: a TLS shutdown would wait half a minute for an upstream that does not take part."""
        self._pool.forget(self)
        if self.transport is not None and self.transport.get_extra_info("ssl_object") is not None:
            self.abort()
        else:
            super().close()

    def start_timeout(self) -> None:
        """Note that the request has been written: that is when aiohttp calls this."""
        if self._turn is not None:
            self._turn.written = True
        super().start_timeout()

    def data_received(self, data: bytes) -> None:
        """Pass on bytes of the answer; unsolicited bytes close the connection."""
        turn = self._turn
        if not data or self.upgraded:
            super().data_received(data)
            return
        if turn is None or self.rests_since is not None:
            self._close_over_unsolicited(data)
            return
        if not turn.meter.received and not self._can_be_answer(turn, data):
            return
        turn.meter.feed(data)
        super().data_received(data)
        if turn.ended and turn.end() is End.SURPLUS and not super().upgraded:
            self._close_over_unsolicited(b"")

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Queue a parsed answer, as aiohttp does, unless nobody would read it."""
        message, payload = data
        turn = self._turn
        if turn is None or turn.interim > INTERIM_ANSWERS_MAX:
            return
        if message.code < HTTPStatus.OK and message.code != HTTPStatus.SWITCHING_PROTOCOLS:
            turn.interim += 1
            if turn.interim > INTERIM_ANSWERS_MAX:
                self._fail("the upstream sent too many interim answers")
                return
        else:
            turn.answers += 1
            if turn.answers > 1:
                return
            turn.answer, turn.payload = message, payload
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note, while the kernel still knows, whether the upstream received the request.

        Only the end of the stream proves that it did not: it acknowledges all that had arrived before it. A
        reset proves nothing, unless it comes after the end of the stream, where it is EPIPE.
        """
        if self._turn is not None and self.rests_since is None and isinstance(exc, BrokenPipeError | None):
            self._turn.undelivered = self._is_undelivered(self._turn)
        self._pool.lost(self)
        super().connection_lost(exc)
        if self._turn is not None:
            # It refers to the connection. With it, only the garbage collector could free the two.
            self._turn.payload = None

    def _delivery(self) -> Delivery | None:
        """Return what the kernel knows (tcp(7), TCP_INFO); None if it does not say."""
        if _TCP_INFO is None or self.transport is None or self._socket is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_FIELDS.size)
            in_flight, acknowledged, unsent = _TCP_INFO_FIELDS.unpack(info)
        except (OSError, AttributeError, TypeError, struct.error):
            return None
        return Delivery(acknowledged, bool(in_flight or unsent)) if acknowledged else None

    def _is_undelivered(self, turn: _Turn) -> bool:
        delivery = self._delivery()
        return delivery is not None and turn.acknowledged == delivery.acknowledged

    def _is_readable(self) -> bool:
        descriptor = -1 if self.transport is None or self._socket is None else self._socket.fileno()
        if descriptor < 0 or not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _can_be_answer(self, turn: _Turn, data: bytes) -> bool:
        """Whether the first bytes after a request can be its answer, and not the rest of an earlier one.

        Otherwise the connection is closed. A request that was on a used one goes out on a new one: no
        upstream can have acted on a request that it has not received completely.
        """
        delivery = self._delivery()
        turn.early = not turn.written or (delivery is not None and delivery.outstanding)
        if delivery is not None and delivery.acknowledged == turn.acknowledged:
            turn.unsolicited = True
            self._close_over_unsolicited(data)
        elif turn.reused and not turn.written:
            turn.unsolicited = True
            self._fail("the upstream answered before it had the request")
        return not turn.unsolicited

    def _fail(self, words: str) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(aiohttp.ServerDisconnectedError(words))

    def _close_over_unsolicited(self, data: bytes) -> None:
        self._fail("the upstream sent unsolicited bytes")
        if not data.startswith(_IDLE_TIMEOUT):
            self._pool.distrust()


class ConnectionPool:
    """The resting connections to one origin, and how far it is trusted.

    Args:
        rest_seconds: How long each connection rests.
        probation_seconds: How long it rests until the origin has proven to send nothing unsolicited.
    """

    def __init__(self, origin: ConnectionKey, rest_seconds: float, probation_seconds: float) -> None:
        self._origin = origin
        self._rest_seconds, self._probation_seconds = rest_seconds, probation_seconds
        self._resting: dict[GuardedConnection, asyncio.TimerHandle] = {}
        self._idle_seconds = KEEP_ALIVE_SECONDS
        """After so long a rest the upstream may close a connection just when it is used."""
        self._silent_rests = 0
        self._distrusted_until = float("-inf")

    def put(self, connection: GuardedConnection) -> bool:
        """Let a connection rest; False if there is no room, or no trust."""
        loop = asyncio.get_running_loop()
        room = RESTING_ON_PROBATION_MAX if self._is_on_probation else RESTING_MAX
        if len(self._resting) >= room or loop.time() < self._distrusted_until:
            return False
        connection.rests_since = loop.time()
        self._resting[connection] = loop.call_later(connection.idle_seconds, self._retire, connection)
        return True

    def take(self) -> GuardedConnection | None:
        """The connection that has rested longest, if it has rested enough and nothing has arrived on it."""
        now = asyncio.get_running_loop().time()
        needed = max(self._rest_seconds, self._probation_seconds if self._is_on_probation else 0.0)
        for connection in tuple(self._resting):
            rested = now - (connection.rests_since or now)
            if rested < needed:
                break
            if rested > self._idle_seconds:
                continue  # it shows how long the upstream really waits
            if not connection.is_silent():
                self.lost(connection)
            elif connection.is_ready():
                self.forget(connection)
                self._count_rest(rested)
                return connection
            connection.close()
        return None

    def lost(self, connection: GuardedConnection) -> None:
        """Note when the upstream closed a connection: others are used after half that time at most."""
        if connection in self._resting and connection.rests_since is not None:
            rested = asyncio.get_running_loop().time() - connection.rests_since
            self._idle_seconds = min(self._idle_seconds, rested / 2)
        self.forget(connection)

    def forget(self, connection: GuardedConnection) -> None:
        """Remove a connection from the pool."""
        if (timer := self._resting.pop(connection, None)) is not None:
            timer.cancel()

    def distrust(self) -> None:
        """Use no connection twice for some minutes."""
        now = asyncio.get_running_loop().time()
        if now >= self._distrusted_until:
            get_logger("upstreams").warning(
                "upstream_sends_unasked_bytes",
                host=self._origin.host,
                port=self._origin.port,
                new_connections_for_s=DISTRUST_SECONDS,
            )
        self._distrusted_until, self._silent_rests = now + DISTRUST_SECONDS, 0
        for connection in list(self._resting):
            connection.close()

    def _retire(self, connection: GuardedConnection) -> None:
        self._count_rest(connection.idle_seconds)
        self._idle_seconds = max(self._idle_seconds, connection.idle_seconds)
        connection.close()

    def _count_rest(self, seconds: float) -> None:
        if seconds >= self._probation_seconds:
            self._silent_rests += 1

    @property
    def _is_on_probation(self) -> bool:
        return self._silent_rests < PROBATION_RESTS


class UpstreamHttpRequest(aiohttp.ClientRequest):
    """aiohttp's request, which also says on which connection it goes out.

    aiohttp pools connections by `connection_key`. Here each connection has its own key, its lane, so
    that `UpstreamConnector` chooses the connection and aiohttp merely holds it.
    """

    lane = 0
    must_be_new = False
    """Whether it needs a new connection."""
    sent_on: GuardedConnection | None = None

    @property
    def connection_key(self) -> ConnectionKey:
        """Where it goes, and on which lane."""
        return self.origin._replace(proxy_headers_hash=self.lane)

    @functools.cached_property
    def origin(self) -> ConnectionKey:
        """Where it goes."""
        return super().connection_key

    @property
    def is_one_piece(self) -> bool:
        """Whether it is written at once, and can be written again."""
        return not self.body or isinstance(self.body, aiohttp.BytesPayload)


class UpstreamConnector(aiohttp.TCPConnector):
    """Opens connections, and hands out those that have rested.

    Args:
        tls: The TLS context, or False for plain connections, as aiohttp's `ssl`.
        rest_seconds: See `ConnectionPool`.
        probation_seconds: See `ConnectionPool`.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | bool,
        rest_seconds: float = REST_SECONDS,
        probation_seconds: float = PROBATION_SECONDS,
    ) -> None:
        # No limit here, where callers would wait unseen: the client counts and refuses. Its own timeout only
        # clears away what the pools have closed.
        super().__init__(limit=0, keepalive_timeout=2 * KEEP_ALIVE_SECONDS, ssl=tls)
        self._seconds = (rest_seconds, probation_seconds)
        self._pools: dict[ConnectionKey, ConnectionPool] = {}
        self._lanes = itertools.count(1)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Give the request a connection, used or new."""
        request = cast(UpstreamHttpRequest, req)
        request.sent_on = None
        # No other task can use the socket before the request is written, so the check stays valid.
        handshake = request.url.scheme in {"ws", "wss"}
        used = None
        if request.is_one_piece and not handshake and not request.must_be_new:
            used = self._pool(request.origin).take()
        request.lane = next(self._lanes) if used is None else used.lane
        connection = await super().connect(request, traces, timeout)
        guarded = connection.protocol
        if not isinstance(guarded, GuardedConnection):
            connection.close()
            raise TypeError("aiohttp opened a connection that is not guarded: see proxy.upstream.connections")
        guarded.begin(request, keep=not handshake)
        request.sent_on = guarded
        connection.add_callback(guarded.on_released)
        return connection

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        request = cast(UpstreamHttpRequest, req)
        plain = await super()._create_connection(req, traces, timeout)
        guarded = GuardedConnection(asyncio.get_running_loop(), self._pool(request.origin), request.lane)
        if plain.transport is None or plain.should_close:  # gone already, or it sent something
            plain.close()
            raise aiohttp.ServerDisconnectedError("the upstream spoke before the request")
        guarded.connection_made(plain.transport)
        plain.transport.set_protocol(guarded)
        return guarded

    def _pool(self, origin: ConnectionKey) -> "ConnectionPool":
        if origin not in self._pools:
            self._pools[origin] = ConnectionPool(origin, *self._seconds)
        return self._pools[origin]


async def send_again_if_stale(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request again if a used connection turned out to be dead; a middleware for aiohttp."""
    request = cast(UpstreamHttpRequest, req)
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError:
        if request.sent_on is None or not request.sent_on.may_send_again():
            raise
    await request.close()
    request.must_be_new = True
    return await handler(request)

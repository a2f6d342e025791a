"""Serve an ASGI application until a stop event is set, then drain.

Hypercorn's configuration and lifespan are used as they are. `proxy.server.websocket` extends its WebSocket
stream, and `proxy.server.http1` replaces its HTTP/1.1 (see Decisions in ARCHITECTURE.md).
"""

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from operator import itemgetter
from socket import AF_UNIX, socket
from ssl import SSLContext
from typing import Any, Final, cast
from uuid import uuid4

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from proxy.errors import ErrorEnvelope
from proxy.server.certificates import Certificates
from proxy.server.config import ServerConfig
from proxy.server.http1 import Connection
from proxy.server.limits import FIRST_REQUEST_SECONDS, SURPLUS_MAX, ConnectionLimits, RequestRejected
from proxy.server.request_cycle import App
from proxy.server.request_head import Scope
from proxy.server.tls_listener import TlsListener
from proxy.server.websocket import serve_websocket
from proxy.telemetry import get_logger
from proxy.wire.error_envelope import error_body, error_headers
from proxy.wire.headers import Headers

TICK_SECONDS: Final = 1.0
"""How often the timeouts of all connections are checked."""
QUIET_SECONDS: Final = 1.0
"""Above the limit, a connection that has waited for a request for longer gives way to a new one."""
ABORT_SECONDS: Final = 2.0
"""How long the tasks of aborted connections may take to end."""

_KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Lets the path of a Unix socket stay: the service manager or other workers may still listen on it."""

REJECTION_CODES: Final = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.EXPECTATION_FAILED: "expectation_failed",
    HTTPStatus.UPGRADE_REQUIRED: "upgrade_required",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "request_header_fields_too_large",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error",
    HTTPStatus.NOT_IMPLEMENTED: "not_implemented",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_overloaded",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "http_version_not_supported",
}
"""The codes of all statuses with which the HTTP layer rejects a request (docs/errors.md)."""


class Server:
    """The connections of one worker, and the tasks that serve them.

    Args:
        app: The application.
        config: The settings of `hypercorn.toml`.
        limits: The limits of each connection.
        max_connections: The number of concurrent connections. A further one takes the place of one that waits
            for a request; without such a one it is answered 503.
        is_leaving: Whether callers should connect to another process; then each response ends its connection.
        rejections: Counts the requests that the server itself rejects, by status.
    """

    def __init__(
        self,
        app: ASGIFramework,
        config: ServerConfig,
        limits: ConnectionLimits,
        max_connections: int | None = None,
        is_leaving: Callable[[], bool] = lambda: False,
        rejections: Counter[int] | None = None,
    ) -> None:
        self.limits = limits
        self.state: dict[str, object] = {}
        self.root_path = config.root_path
        self.connections: set[Connection] = set()
        self._surplus: set[Connection] = set()
        """Those of them that are being closed because there are too many."""
        self._waiting: deque[Connection] | None = None
        """Connections without a request, the quietest first; None until they are needed after a tick."""
        self._handshakes: dict[asyncio.Task[None], None] = {}
        """TLS handshakes in progress, the oldest first; their connections are not among `connections` yet."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.wrapped = ASGIWrapper(app)
        self.config = config
        self.context = WorkerContext(None)
        self.app = cast(App, app)
        self._max_connections = max_connections
        self._rejections = Counter[int]() if rejections is None else rejections
        self._is_draining = False
        self._is_leaving = is_leaving
        self._log = get_logger("server")
        self._common = b""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    # --- connections

    def opened(self, connection: Connection) -> None:
        """Count a connection.

        Raises:
            RequestRejected: 503, there are too many connections.
        """
        served = len(self.connections) - len(self._surplus)
        has_place = self._max_connections is None or served < self._max_connections or self._close_waiting()
        self.connections.add(connection)
        self._emptied.clear()
        if self._is_draining:
            connection.begin_drain()
        if has_place:
            return
        self._surplus.add(connection)
        if len(self._surplus) > SURPLUS_MAX:
            connection.abort()
            return
        raise RequestRejected(
            HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", [(b"retry-after", b"1")]
        )

    def _close_waiting(self) -> bool:
        """Close the connection that has waited longest for a request; return whether there is one."""
        now = self._loop.time()
        if self._waiting is None:
            found = [(since, each) for each in self.connections if (since := each.waiting_since) is not None]
            self._waiting = deque(each for _, each in sorted(found, key=itemgetter(0)))
        while self._waiting:
            connection = self._waiting.popleft()
            since = connection.waiting_since
            if since is not None and now - since >= QUIET_SECONDS:
                self._surplus.add(connection)
                connection.abort()
                return True
        return False

    def closed(self, connection: Connection) -> None:
        """Remove a connection from the count."""
        self.connections.discard(connection)
        self._surplus.discard(connection)
        self._check_emptied()

    def make_room(self) -> bool:
        """Return whether another connection may be accepted; if need be, end the oldest TLS handshake first.

        A handshake takes milliseconds: where there are so many, the oldest are those of silent callers.
        """
        if self._max_connections is None:
            return True
        if len(self.connections) + len(self._handshakes) < self._max_connections + SURPLUS_MAX:
            return True
        oldest = next(iter(self._handshakes), None)
        if oldest is None:
            return False
        del self._handshakes[oldest]
        oldest.cancel()
        return True

    def run_handshake(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a TLS handshake in a task, which counts as a connection."""
        task = self.run(work)
        self._handshakes[task] = None
        self._emptied.clear()
        task.add_done_callback(self._handshake_done)
        return task

    def _handshake_done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self._check_emptied()

    def _check_emptied(self) -> None:
        if not self.connections and not self._handshakes:
            self._emptied.set()

    def run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that `abort` cancels at the latest."""
        task = self._loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def upgrade(self, connection: Connection, scope: Scope) -> Callable[[bytes], None]:
        """Serve a WebSocket on a connection; return what takes the caller's further bytes."""
        return serve_websocket(self, connection, scope)

    def common_headers(self) -> bytes:
        """Return the header lines of every response, such as Date."""
        return self._common

    def reject(self, rejection: RequestRejected, peer: str | None) -> tuple[Headers, bytes]:
        """Log a rejection; return the headers and the body of its response, in OpenAI's error envelope."""
        request_id = uuid4().hex
        status = rejection.status
        self._rejections[status.value] += 1
        self._log.info(
            "request_rejected", status=status.value, reason=rejection.reason, peer=peer, request_id=request_id
        )
        envelope: ErrorEnvelope = {
            "error": {
                "message": rejection.reason,
                "type": "invalid_request_error"
                if status < HTTPStatus.INTERNAL_SERVER_ERROR
                else "server_error",
                "param": None,
                "code": REJECTION_CODES[status],
            }
        }
        headers = [*error_headers({}), (b"x-request-id", request_id.encode()), *rejection.headers]
        return headers, error_body(envelope)

    def failed(self, error: BaseException) -> None:
        """Log an exception that escaped from the application."""
        self._log.error("application_failed", exc_info=error)

    # --- the clock

    def start_clock(self) -> None:
        """Check the timeouts of all connections once a second, and refresh the Date header."""
        date = (b"date", formatdate(time.time(), usegmt=True).encode())
        self._common = b"".join(b"%s: %s\r\n" % pair for pair in [*self._own_headers(), date])
        now = self._loop.time()
        for connection in [*self.connections]:
            connection.tick(now)
        self._waiting = None
        self._timer = self._loop.call_later(TICK_SECONDS, self.start_clock)

    def _own_headers(self) -> Headers:
        return [pair for pair in self.config.response_headers("h11") if pair[0].lower() != b"date"]

    # --- the end

    @property
    def draining(self) -> bool:
        """Whether each connection is closed after its current response."""
        return self._is_draining or self._is_leaving()

    async def drain(self, seconds: float) -> None:
        """Close idle connections, and wait up to `seconds` until the others have ended."""
        self._is_draining = True
        await self.context.terminated.set()
        for connection in [*self.connections]:
            connection.begin_drain()
        if self.connections or self._handshakes:
            silent = self._loop.call_later(FIRST_REQUEST_SECONDS, self._cancel_handshakes)
            try:
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
            except TimeoutError:
                pass
            finally:
                silent.cancel()

    def _cancel_handshakes(self) -> None:
        for task in self._handshakes:
            task.cancel()

    async def abort(self) -> None:
        """Abort the remaining connections, and wait until their tasks have ended."""
        for connection in [*self.connections]:
            connection.abort("shutdown")
        for task in [*self.tasks]:
            task.cancel()
        if self.tasks:
            await asyncio.wait([*self.tasks], timeout=ABORT_SECONDS)
        if self._timer is not None:
            self._timer.cancel()


async def serve(
    app: ASGIFramework,
    config: ServerConfig,
    sockets: list[socket],
    stopped: Callable[[], Awaitable[object]],
    limits: ConnectionLimits | None = None,
    max_connections: int | None = None,
    is_leaving: Callable[[], bool] = lambda: False,
    certificates: Certificates | None = None,
    rejections: Counter[int] | None = None,
) -> None:
    """Serve until `stopped` returns; then let requests end, within `graceful_timeout` of the configuration.

    Args:
        app: An ASGI application.
        config: The settings of `hypercorn.toml`.
        sockets: The bound sockets; they are closed at the end.
        stopped: Returns when the service should accept no more connections.
        limits: The limits of each connection; by default those of the configuration.
        max_connections: The number of concurrent connections.
        is_leaving: Whether callers should connect to another process; this begins before `stopped` returns.
        certificates: Makes the server use TLS.
        rejections: Counts the requests that the server itself rejects, by status.

    Raises:
        Exception: The application did not start.
    """
    loop = asyncio.get_running_loop()
    state: LifespanState = {}
    server = Server(app, config, limits or limits_of(config), max_connections, is_leaving, rejections)
    lifespan = Lifespan(server.wrapped, config, loop, state)
    lifespan_task = loop.create_task(lifespan.handle_lifespan())
    try:
        await lifespan.wait_for_startup()
        if lifespan_task.done() and (error := lifespan_task.exception()) is not None:
            raise error
        server.state = dict(state)
        secure = None if certificates is None else certificates.context
        await _accept_until(server, config, sockets, secure, stopped)
        await lifespan.wait_for_shutdown()
    finally:
        lifespan_task.cancel()
        await asyncio.wait([lifespan_task])


async def _accept_until(
    server: Server,
    config: ServerConfig,
    sockets: list[socket],
    secure: SSLContext | None,
    stopped: Callable[[], Awaitable[object]],
) -> None:
    loop = asyncio.get_running_loop()
    server.start_clock()
    listeners: list[asyncio.AbstractServer | TlsListener] = []

    def connect() -> Connection:
        return Connection(server, secure=secure is not None)

    # A handshake may take as long as the head of a request.
    seconds = min(config.ssl_handshake_timeout, server.limits.head_seconds)
    try:
        for listening in sockets:
            if secure is not None:
                listeners.append(TlsListener(server, listening, config.backlog, connect, secure, seconds))
            elif listening.family == AF_UNIX:
                listeners.append(
                    await loop.create_unix_server(
                        connect, sock=listening, backlog=config.backlog, **_KEEP_PATH
                    )
                )
            else:
                listeners.append(await loop.create_server(connect, sock=listening, backlog=config.backlog))
        await stopped()
    finally:
        for listener in listeners:
            listener.close()
        try:
            await server.drain(config.graceful_timeout)
        finally:
            await server.abort()


def limits_of(config: ServerConfig) -> ConnectionLimits:
    """Return the limits for which Hypercorn's configuration has keys, and the defaults of the others."""
    return ConnectionLimits(
        head_bytes=config.h11_max_incomplete_size,
        idle_seconds=config.keep_alive_timeout,
        requests=config.keep_alive_max_requests,
    )

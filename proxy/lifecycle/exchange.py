"""The scope of one exchange: its record, what must be closed at its end, and its one log line."""

import contextlib
import sys
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from proxy.access import Caller
from proxy.errors import InternalError, ProxyError
from proxy.request_body import Holding
from proxy.services import Services
from proxy.telemetry import BodyLog, ExchangeRecord, get_logger, request_context
from proxy.telemetry.readings import OTHER_MODEL
from proxy.wire.endpoints import Endpoint
from proxy.wire.headers import Headers

_ANSWERED: Final = frozenset({HTTPStatus.OK, HTTPStatus.SWITCHING_PROTOCOLS})

_log: Final = get_logger("exchange")


class CallerGone(Exception):
    """Nothing can be written to the caller any more."""


class ExchangeScope:
    """One exchange with a caller; an async context manager around all that is done for it.

    At the end, it closes whatever the exchange opened, last opened first, and writes one log line, whether
    the exchange succeeded, failed or was cancelled. Errors pass through.

    Args:
        record: Written to while the exchange runs, and read at its end only.
        current: Returns the services of the current configuration.
        headers: The request headers; they may name the trace that it belongs to.
        interrupted: The outcome if the exchange is cancelled.
    """

    def __init__(
        self,
        record: ExchangeRecord,
        current: Callable[[], Services],
        headers: Headers | None = None,
        *,
        interrupted: str = "client_gone",
    ) -> None:
        self.record = record
        self.closing = contextlib.AsyncExitStack()
        self.caller: Caller | None = None
        """Set once the caller is known."""
        self._current = current
        self._headers = headers
        self._services: Services | None = None
        self.interrupted = interrupted
        self._context = request_context(record.request_id)
        self._is_counted_stream = False
        self._holding: Holding | None = None
        self._charged: tuple[Caller, Endpoint] | None = None
        """Who is charged for the tokens of the exchange, and by which endpoint's rules."""
        self._loading: Caller | None = None
        """The caller whose load the exchange is a part of."""
        self._is_waiting = False
        self.is_logged = False
        """Whether the exchange has ended with its log line and has been counted."""

    @property
    def services(self) -> Services:
        """The services of the configuration that was current at the first access, held until the end."""
        if self._services is None:
            self._services = self._current()
            self._services.users.acquire()
        return self._services

    def count_load(self, caller: Caller) -> None:
        """Count the exchange as a part of the load, until its end.

        Raises:
            ServerOverloaded: The process is overloaded, and the caller already uses its share.
        """
        services = self.services
        services.worker.load.begin(caller, services.settings.limits.max_loop_lag)
        self._loading, self._is_waiting = caller, True

    def begin_response(self) -> None:
        """Note that the response begins, or that there will be none."""
        if self._is_waiting and self._loading is not None and self._services is not None:
            self._is_waiting = False
            self._services.worker.load.begin_response(self._loading)

    async def count_stream(self, caller: Caller) -> None:
        """Count the exchange as a stream of its caller, once, until its end.

        Raises:
            RateLimited: The caller has too many streams.
        """
        if not self._is_counted_stream:
            await self.closing.enter_async_context(self.services.worker.limits.streams.counted(caller))
            self._is_counted_stream = True

    def hold_bytes(self, caller: Caller) -> Holding:
        """Return what counts the bytes of the caller that are held; they are released at the end."""
        services = self.services
        self._holding = Holding(services.worker.held, caller.name, services.settings.limits)
        return self._holding

    def count_usage(self, caller: Caller, endpoint: Endpoint) -> None:
        """Have the tokens of the exchange counted at its end."""
        self._charged = caller, endpoint

    def log_bodies(self, request: bytes, *, whole: bool) -> None:
        """Log the body of the request now and that of the response at the end, if `[logs]` asks for it."""
        logs = self.services.settings.logs
        if logs.bodies:
            bodies = self.record.bodies = BodyLog(logs.body_bytes)
            bodies.log_request(request, whole=whole)
            self.closing.callback(bodies.log_response)

    async def _count_usage(self) -> None:
        if self._charged is None or self._services is None:
            return
        (caller, endpoint), record, worker = self._charged, self.record, self._services.worker
        if record.prompt_tokens is not None:
            # Only a model that the upstream answered for becomes a label of the metrics.
            model = (record.model or "") if record.status in _ANSWERED else OTHER_MODEL
            names = (caller.name, model, record.upstream or "")
            worker.usage.add(*names, record.prompt_tokens, record.completion_tokens or 0)
        await worker.limits.count_usage(caller, record, endpoint)

    async def __aenter__(self) -> Self:
        self._context.__enter__()
        traces = self._current().worker.traces
        if traces is not None:
            self.record.span = traces.begin(self.record.method, self.record.path, self._headers or [])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            try:
                await self.closing.__aexit__(kind, error, traceback)
            finally:
                await self._count_usage()
        finally:
            self._release()
            self._note_outcome(sys.exception())  # that of the block, or a later one of the closing
            write = _log.debug if self.record.quiet else _log.info
            write("exchange", **self.record.fields())
            if self.record.span is not None and not self.record.quiet:
                self.record.span.end(self.record.fields())
            services = self._services or self._current()
            services.worker.exchanges.count(self.record)
            if services.traffic is not None:
                services.traffic.count(self.record)
            self.is_logged = True
            self._context.__exit__(None, None, None)

    def _release(self) -> None:
        """End what every exchange counts in; entries of `closing` would cost several times as much."""
        if self._holding is not None:
            self._holding.release()
        if self._services is not None:
            if self._loading is not None:
                self.begin_response()
                self._services.worker.load.end(self._loading)
            self._services.users.release()

    def _note_outcome(self, error: BaseException | None) -> None:
        record = self.record
        if isinstance(error, ProxyError):
            record.fail(error)
        elif error is None:
            record.outcome = record.outcome or "ok"
        elif isinstance(error, Exception) and not isinstance(error, CallerGone):
            _log.error("response_failed", exc_info=error)
            record.fail(InternalError(reason=type(error).__name__))
        else:
            record.outcome = record.outcome or self.interrupted

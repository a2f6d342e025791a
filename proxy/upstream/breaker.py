"""The circuit breaker of an upstream: after failures in a row it is left alone, then one request tries it."""

import time

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import HALF_OPENED, OPENED, Context, OpenedState

from proxy.errors import CircuitOpen
from proxy.settings import Breaker
from proxy.telemetry import get_logger


class CircuitBreaker:
    """Counts how attempts end.

    Args:
        upstream: Its name, for the log.
        settings: How many failures, and how long it stays open.
    """

    def __init__(self, upstream: str, settings: Breaker) -> None:
        self._upstream = upstream
        self._context = Context(upstream, settings.failures, settings.cool_down)
        self._probing = False
        self._log = get_logger("upstreams")

    @property
    def state(self) -> str:
        """`closed`, `opened` or `half-opened`."""
        return self._context.state

    @property
    def opens_in(self) -> float:
        """Seconds until an attempt may be made; 0 if it may now."""
        if self.state == HALF_OPENED:
            return 1.0 if self._probing else 0.0
        if self.state == OPENED:
            opened_at = self._context.opened_at or 0.0
            # The library reads the wall clock: one that was set back must not hold an upstream off for ever.
            return min(max(opened_at + self._context.ttl - time.time(), 0.0), self._context.ttl)
        return 0.0

    def begin(self) -> None:
        """An attempt begins; `end` must follow.

        Raises:
            CircuitOpen: the upstream is left alone, or is being tried by another request.
        """
        wait = self.opens_in
        if not wait:
            try:
                self._context.handle_new_request()
            except OpenedState as state:
                state.with_traceback(None)  # the library raises one object again and again
                wait = 1.0
        if wait:
            raise CircuitOpen(retry_after=wait, reason="the circuit is open")
        if self.state == HALF_OPENED:
            self._probing = True
        self._tell()

    def end(self, failure: Exception | None) -> None:
        """An attempt ended: with an answer, or with a failure of the upstream."""
        if failure is not None:
            self._context.handle_exception(failure)
        else:
            self._context.handle_end_request()
        self._probing = False
        self._tell()

    def abandon(self) -> None:
        """An attempt ended without telling anything of the upstream: its caller left, say."""
        self._probing = False

    def _tell(self) -> None:
        for message in self._context.messages:
            if isinstance(message, ContextChanged):
                self._log.warning("circuit", upstream=self._upstream, state=message.state)
        self._context.messages.clear()

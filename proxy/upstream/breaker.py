"""The circuit breaker of an upstream: after failures in a row it is left alone, then one request tries it."""

import time
from typing import NamedTuple

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import OPENED, Context, HalfOpenedState, OpenedState

from proxy.errors import CircuitOpen
from proxy.settings import Breaker
from proxy.telemetry import get_logger


class Ticket(NamedTuple):
    """An attempt, and the state of the circuit that it was made in."""

    period: int
    """Counts the changes of state: what an attempt of an earlier one tells is out of date."""


class CircuitBreaker:
    """Counts how attempts end.

    The library holds the states and the count. The time is ours, since it reads the wall clock, which may be
    set back; and so is the one probe, since it lets everybody through a half-open circuit.

    Args:
        upstream: Its name, for the log.
        settings: How many failures, and how long it stays open.
    """

    def __init__(self, upstream: str, settings: Breaker) -> None:
        self._upstream = upstream
        self._context = Context(upstream, settings.failures, settings.cool_down)
        self._opened_at = 0.0
        self._period = 0
        self._probing = False
        self._log = get_logger("upstreams")

    @property
    def state(self) -> str:
        """`closed`, `opened` or `half-opened`."""
        return self._context.state

    @property
    def opens_in(self) -> float:
        """Seconds until an attempt may be made; 0 if it may now."""
        if self.state == OPENED:
            return max(self._opened_at + self._context.ttl - time.monotonic(), 0.0)
        return 1.0 if self._probing else 0.0

    def begin(self) -> Ticket:
        """An attempt begins; `end` or `abandon` must follow.

        Raises:
            CircuitOpen: the upstream is left alone, or is being tried by another request.
        """
        wait = self.opens_in
        if wait:
            raise CircuitOpen(retry_after=wait, reason="the circuit is open")
        if self.state == OPENED:
            self._context.set_state(HalfOpenedState())
            self._note()
            self._probing = True
        return Ticket(self._period)

    def end(self, ticket: Ticket, failure: Exception | None) -> None:
        """An attempt ended: with an answer, or with a failure of the upstream."""
        if ticket.period != self._period:
            return
        self._probing = False
        if failure is not None:
            self._context.handle_exception(failure)
        else:
            self._context.handle_end_request()
        self._note()

    def abandon(self, ticket: Ticket) -> None:
        """An attempt ended without telling anything of the upstream: its caller left, say."""
        if ticket.period == self._period and self._probing:
            self._probing = False
            self._context.set_state(OpenedState(self._upstream))  # for the next one to try
            self._context.messages.clear()

    def _note(self) -> None:
        for message in self._context.messages:
            if isinstance(message, ContextChanged):
                self._period += 1
                if message.state == OPENED:
                    self._opened_at = time.monotonic()
                self._log.warning("circuit", upstream=self._upstream, state=message.state)
        self._context.messages.clear()

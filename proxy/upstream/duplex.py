"""Relay the messages of a WebSocket in both directions, until one side closes or a timeout ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import httpx2
import msgspec

from proxy.errors import Aborted, CallerError, Draining, ProxyError, ServerOverloaded
from proxy.request_body import Holding
from proxy.telemetry import ExchangeRecord
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.websocket import CLOSE_SECONDS, ArrivingMessages
from proxy.wire.usage import read_event_usage
from proxy.wire.websocket import (
    GOING_AWAY,
    INTERNAL,
    LOST,
    NO_CODE,
    NORMAL,
    POLICY,
    TRY_AGAIN_LATER,
    Close,
    OpenResponses,
    message_size,
    sendable_close,
)

ERROR: Final = "error"
"""A message that holds this word may be an error, which may quote the request."""
_ORDERLY: Final = frozenset({NORMAL, GOING_AWAY, NO_CODE})
"""The codes of a close that needs no reason in the log."""


class CallerMessages(Protocol):
    """The caller's side of a WebSocket."""

    async def receive(self, hold: Callable[[int], None]) -> str | bytes | Close:
        """Return the next message, or how the caller closed, even if called again.

        Args:
            hold: Counts the bytes of the message as they arrive; it may raise.
        """

    async def wait_closed(self) -> Close:
        """Drop all further messages, and return how the caller closed."""

    async def send(self, message: str | bytes) -> None:
        """Send a message after the caller has taken the previous ones."""

    async def close(self, close: Close) -> None:
        """Close it."""


async def _accept(_message: str | bytes) -> None:
    pass


async def _keep(message: bytes) -> bytes:
    return message


async def _count_nothing() -> None:
    pass


class Duplex(msgspec.Struct, frozen=True):
    """Both sides of one WebSocket; at most one message is held in each direction."""

    caller: CallerMessages
    upstream: ArrivingMessages
    clock: ExchangeClock
    record: ExchangeRecord
    holding: Holding
    """Counts the bytes of the caller's message from their arrival until they are forwarded."""
    mask: Callable[[bytes], Awaitable[bytes]] = _keep
    """Masks secrets in the upstream's reason to close, and in messages that may be errors."""
    check: Callable[[str | bytes], Awaitable[None]] = _accept
    """Raises a `CallerError` for a message that the caller may not send."""
    count_usage: Callable[[], Awaitable[None]] = _count_nothing
    """Counts the tokens that the record has; raises a `CallerError` if the caller may use no more."""
    open_responses: OpenResponses = msgspec.field(default_factory=OpenResponses)

    async def relay(self) -> None:
        """Relay until one side closes, then close the other side with the same code (RFC 6455 7.1.5, 7.4).

        A lost connection (1006) becomes 1001 for the upstream and 1011 for the caller. A timeout, the drain,
        a message that the caller may not send or that exceeds the memory for all of them, or the end of its
        token budget closes both sides.
        """
        stopped = asyncio.get_running_loop().create_future()

        def stop(error: ProxyError) -> None:
            if not stopped.done():
                stopped.set_result(error)

        self.clock.watch(stop)
        try:
            async with asyncio.TaskGroup() as group:
                up, down = group.create_task(self._up(stop)), group.create_task(self._down(stop))
                try:
                    await asyncio.wait((up, down, stopped), return_when=asyncio.FIRST_COMPLETED)
                    if down.done():
                        await self._closed_by_upstream(down.result())
                    elif up.done():
                        await self._closed_by_caller(up.result())
                    else:
                        await self._stop(stopped.result())
                    # Read what the caller still sends until it closes too: closing a connection over unread
                    # bytes resets it, and the close frame is lost.
                    await asyncio.wait((up,), timeout=CLOSE_SECONDS)
                finally:
                    up.cancel()
                    down.cancel()
        finally:
            self.clock.close()

    async def _up(self, stop: Callable[[ProxyError], None]) -> Close:
        try:
            while not isinstance(message := await self.caller.receive(self.holding.add), Close):
                self.record.bytes_up += message_size(message)
                await self.check(message)
                await self.upstream.send(message)
                del message  # It may be large, and the next one late.
                self.holding.release()
        except httpx2.TransportError:
            pass  # `_down` closes both sides.
        except ProxyError as error:
            stop(error)
        else:
            return message
        return await self.caller.wait_closed()

    async def _down(self, stop: Callable[[ProxyError], None]) -> Close:
        while not isinstance(message := await self.upstream.receive(), Close):
            reported = self._count(message)
            await self.caller.send(await self._without_secrets(message))
            self.record.bytes_down += message_size(message)
            if reported:
                try:
                    await self.count_usage()
                except CallerError as error:
                    stop(error)
            del message
        return message

    def _count(self, message: str | bytes) -> bool:
        """Count a message of the upstream; return whether it reports usage."""
        record, responses = self.record, self.open_responses
        record.events = (record.events or 0) + 1
        responses.add(message)
        reported = False
        if isinstance(message, str) and '"usage"' in message:
            usage = read_event_usage(message.encode())
            if usage is not None:
                reported = True
                record.add_usage(*usage)
                responses.settle(message)
        record.events_unreported = responses.messages
        return reported

    async def _without_secrets(self, message: str | bytes) -> str | bytes:
        if isinstance(message, bytes):
            return await self.mask(message) if ERROR.encode() in message else message
        return (await self.mask(message.encode())).decode() if ERROR in message else message

    async def _closed_by_upstream(self, close: Close) -> None:
        close = Close(close.code, (await self.mask(close.reason.encode())).decode(errors="replace"))
        if close.code == LOST:
            self.record.fail(Aborted(reason="the WebSocket was lost"))
            close = Close(INTERNAL, "the connection to the upstream was lost")
        elif close.code not in _ORDERLY:
            self.record.reason = f"the upstream closed the WebSocket with {close.code}"
        await self.caller.close(sendable_close(close))

    async def _closed_by_caller(self, close: Close) -> None:
        if close.code == LOST:
            self.record.end("client_gone")
            close = Close(GOING_AWAY)
        elif close.code not in _ORDERLY:
            self.record.reason = f"the caller closed the WebSocket with {close.code}"
        await self.upstream.close(sendable_close(close))

    async def _stop(self, error: ProxyError) -> None:
        self.record.fail(error)
        close = sendable_close(Close(_code_of(error), str(error)))
        await self.caller.close(close)
        await self.upstream.close(Close(close.code))


def _code_of(error: ProxyError) -> int:
    match error:
        case CallerError():
            return POLICY
        case Draining():
            return GOING_AWAY
        case ServerOverloaded():
            return TRY_AGAIN_LATER
    return INTERNAL

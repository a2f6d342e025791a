"""Hypercorn's WebSockets, which tell the application how the caller closed: its own always say 1006."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import hypercorn.protocol.h11
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.events import CloseConnection, Ping
from wsproto.frame_protocol import CloseReason


class _TellingStream(WSStream):
    """Remember the close frame that is answered, and hand its code and reason on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._said: CloseConnection | None = None
        self._ended = asyncio.Event()

    async def handle(self, event: Any) -> None:
        """As the base does, but for the end."""
        if isinstance(event, StreamClosed):
            self._ended.set()
        if isinstance(event, StreamClosed) and self._said is not None and not self.closed:
            self.closed = True
            code, reason = int(self._said.code), self._said.reason
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})
            return
        await super().handle(event)

    async def _send_wsproto_event(self, event: Any) -> None:
        closes = isinstance(event, CloseConnection) and self.state == ASGIWebsocketState.CONNECTED
        if closes and self._said is None:  # an answer to the caller's, or one that refuses its message
            self._said = event
        await super()._send_wsproto_event(event)
        if closes and event.code == CloseReason.MESSAGE_TOO_BIG:
            # The base goes on to take in what follows.
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        """Stop with the stream: the base sleeps on, and the connection's task waits for it."""
        while not self._ended.is_set():
            await self._send_wsproto_event(Ping())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.websocket_ping_interval):
                    await self._ended.wait()


@contextlib.contextmanager
def closes_told() -> Iterator[None]:
    """Make servers use it: there is no setting."""
    # The name is imported there and not exported, which is what is ignored.
    original = hypercorn.protocol.h11.WSStream  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = _TellingStream  # type: ignore[attr-defined]
    try:
        yield
    finally:
        hypercorn.protocol.h11.WSStream = original  # type: ignore[attr-defined]

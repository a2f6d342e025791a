"""The demonstration gateway, whose streamed answers wait before an event until the test lets them go on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

from proxy.gateway.app import create_gateway
from proxy.gateway.state import GatewayOptions

ANSWER: Final = b'{"content":'
"""In each event with a piece of the answer, but in none with a piece of the reasoning."""
END: Final = b'"finish_reason":"stop"'
"""In the last event of an answer."""


class HeldGateway:
    """An ASGI app: a gateway that never pauses, except where a test holds it.

    Attributes:
        app: The gateway itself.
    """

    def __init__(self) -> None:
        self.app: Any = create_gateway(GatewayOptions(word_delay=0.0))
        self._held: dict[bytes, asyncio.Event] = {}

    @contextmanager
    def holding(self, *marks: bytes) -> Iterator[None]:
        """Hold every stream before each event that contains a mark, at most until the end of the block."""
        self._held = {mark: asyncio.Event() for mark in marks}
        try:
            yield
        finally:
            self.release(*marks)
            self._held = {}

    def release(self, *marks: bytes) -> None:
        """Let events with these marks pass, those of later streams too."""
        for mark in marks:
            self._held[mark].set()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request."""

        async def send_when_released(event: ASGISendEvent) -> None:
            for mark, released in self._held.items():
                if event["type"] == "http.response.body" and mark in event["body"]:
                    await released.wait()
            await send(event)

        await self.app(scope, receive, send_when_released)

"""What the tests of the gateway hold in hand: a clock that they move, and a caller with a token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from quart.typing import TestClientProtocol, TestHTTPConnectionProtocol

from proxy.gateway import Gateway


@dataclass
class ManualClock:
    """A clock that moves when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Caller:
    """Asks a gateway in process, with a token that it holds."""

    client: TestClientProtocol
    gateway: Gateway

    @property
    def headers(self) -> dict[str, str]:
        """A fresh token as a header."""
        return {"Authorization": f"Bearer {self.gateway.tokens.issue(60.0)}"}

    @asynccontextmanager
    async def asking(
        self, path: str, *parts: bytes, method: str = "POST"
    ) -> AsyncIterator[TestHTTPConnectionProtocol]:
        """Send a request part by part, and leave the answer to be received."""
        async with self.client.request(path, method=method, headers=self.headers) as connection:
            for part in parts:
                await connection.send(part)
            await connection.send_complete()
            yield connection

"""Fixtures of the gateway's tests: a clock that they set, and a caller with a token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from quart.typing import TestClientProtocol, TestHTTPConnectionProtocol

from proxy.gateway import DemoGateway


@dataclass
class ManualClock:
    """A clock that tests set."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Caller:
    """Sends requests to a gateway in the same process, with a token."""

    client: TestClientProtocol
    gateway: DemoGateway

    @property
    def headers(self) -> dict[str, str]:
        """A header with a new token."""
        return {"Authorization": f"Bearer {self.gateway.tokens.issue(60.0)}"}

    @asynccontextmanager
    async def asking(
        self, path: str, *parts: bytes, method: str = "POST"
    ) -> AsyncIterator[TestHTTPConnectionProtocol]:
        """Send a request in parts; the block receives the response."""
        async with self.client.request(path, method=method, headers=self.headers) as connection:
            for part in parts:
                await connection.send(part)
            await connection.send_complete()
            yield connection

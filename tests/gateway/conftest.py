"""A gateway with no pauses, the client that asks it in process, and the same one on a loopback socket."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from openai import AsyncOpenAI
from quart import Quart
from quart.typing import TestClientProtocol, TestHTTPConnectionProtocol

from proxy.gateway import Gateway, GatewayOptions, create_gateway
from tests.gateway.loopback import serve_on_loopback


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


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app(clock: Callable[[], float]) -> Quart:
    return create_gateway(GatewayOptions(word_delay=0.0), clock=clock)


@pytest.fixture
def gateway(app: Quart) -> Gateway:
    gateway = app.extensions["gateway"]
    assert isinstance(gateway, Gateway)
    return gateway


@pytest.fixture
def caller(app: Quart, gateway: Gateway) -> Caller:
    return Caller(app.test_client(), gateway)


@pytest.fixture
async def address(app: Quart) -> AsyncIterator[str]:
    async with serve_on_loopback(app) as address:
        yield address


@pytest.fixture
async def openai(address: str, gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    token = gateway.tokens.issue(60.0)
    async with AsyncOpenAI(api_key=token, base_url=f"{address}/v1", max_retries=0) as client:
        yield client

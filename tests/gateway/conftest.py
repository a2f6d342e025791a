"""A gateway without pauses, with a client in the same process and on a loopback socket."""

from collections.abc import AsyncIterator, Callable

import pytest
from openai import AsyncOpenAI
from quart import Quart

from proxy.gateway import DemoGateway, GatewayOptions, create_gateway
from tests.gateway.caller import Caller, ManualClock
from tests.loopback import serve_on_loopback
from tests.pace import PATIENCE


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app(clock: Callable[[], float]) -> Quart:
    return create_gateway(GatewayOptions(word_delay=0.0), clock=clock)


@pytest.fixture
def gateway(app: Quart) -> DemoGateway:
    gateway = app.extensions["gateway"]
    assert isinstance(gateway, DemoGateway)
    return gateway


@pytest.fixture
def caller(app: Quart, gateway: DemoGateway) -> Caller:
    return Caller(app.test_client(), gateway)


@pytest.fixture
async def address(app: Quart) -> AsyncIterator[str]:
    async with serve_on_loopback(app) as address:
        yield address


@pytest.fixture
async def openai(address: str, gateway: DemoGateway) -> AsyncIterator[AsyncOpenAI]:
    token = gateway.tokens.issue(60.0)
    async with AsyncOpenAI(
        api_key=token, base_url=f"{address}/v1", max_retries=0, timeout=PATIENCE
    ) as client:
        yield client

"""The service before two upstreams: the demonstration gateway, and one that does what it never does."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.clients.odd_upstream import OddUpstream, odd_upstream
from tests.conftest import RunningGateway, RunningProxy, RunProxy
from tests.loopback import until


@dataclass(frozen=True)
class Place:
    """Where a client is let loose."""

    proxy: RunningProxy
    odd: OddUpstream

    @property
    def url(self) -> str:
        """What a client is told."""
        return self.proxy.url

    def outcomes(self, model: str) -> list[str]:
        """How the exchanges for a model have ended."""
        return [line["outcome"] for line in self.proxy.exchanges if line.get("model") == model]

    async def client_has_left(self) -> bool:
        """Wait until the client of a held stream is gone, here and at the upstream."""
        await until(self.odd.left.is_set)
        await until(lambda: bool(self.outcomes("odd-held")))
        return self.outcomes("odd-held") == ["client_gone"]


@pytest.fixture
async def place(run_proxy: RunProxy, gateway: RunningGateway) -> AsyncIterator[Place]:
    """A running service with both upstreams behind it."""
    async with (
        odd_upstream() as odd,
        run_proxy(gateway.url, credential=gateway.credential, more=odd.settings) as proxy,
    ):
        yield Place(proxy, odd)

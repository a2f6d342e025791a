"""The service in front of the test gateway, which has the oddity that a model name asks for."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from proxy.gateway import DemoGateway
from tests.conftest import RECIPE, RunningOddGateway, RunningProxy, RunProxy
from tests.loopback import until

# A rejection that one request provokes must not affect the token of other requests. The rejected credential
# is used for nothing else, so that it is never accepted, in any order of requests.
ODD = """
[[routes.models]]
match = "odd:status_401"
upstream = "refusing"

[[routes.models]]
match = "odd:*"
upstream = "odd"

[upstreams.refusing]
base_url = "{url}/v1"
credential = "refused"

[upstreams.odd]
base_url = "{url}/v1"
credential = "odd"

[credentials.refused]
{recipe}

[credentials.odd]
{recipe}
"""


@dataclass(frozen=True)
class Place:
    """A running proxy with the test gateway behind it."""

    proxy: RunningProxy
    gateway: DemoGateway
    played: Counter[str]

    @property
    def url(self) -> str:
        """The URL for clients."""
        return self.proxy.url

    def outcomes(self, model: str) -> list[str]:
        """Return the outcomes of the exchanges with a model."""
        return [line["outcome"] for line in self.proxy.exchanges if line.get("model") == model]

    async def client_has_left(self) -> bool:
        """Wait until the disconnection of a held stream's client has reached the proxy and the gateway."""
        await until(lambda: self.gateway.stats.streams_closed_early == 1)
        await until(lambda: bool(self.outcomes("odd:held")))
        return self.outcomes("odd:held") == ["client_gone"]


@pytest.fixture
async def place(run_proxy: RunProxy, odd_gateway: RunningOddGateway) -> AsyncIterator[Place]:
    """A running service with the gateway behind it."""
    odd = ODD.format(url=odd_gateway.url, recipe=RECIPE.format(issuer=odd_gateway.url))
    async with run_proxy(odd_gateway.url, credential=odd_gateway.credential, more=odd) as proxy:
        yield Place(proxy, odd_gateway.gateway, odd_gateway.played)

"""A token in the configuration."""

import math

from proxy.credentials.sources.local import StaticTokenSource
from proxy.secret import Secret


async def test_a_static_token_never_changes() -> None:
    source = StaticTokenSource(Secret("s3cret"))
    first, second = await source.fetch(), await source.fetch()
    assert first.secret == second.secret == Secret("s3cret")
    assert first.lifetime == math.inf
    assert first.refresh_in is None
    await source.close()

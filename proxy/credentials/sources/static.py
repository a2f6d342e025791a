"""A token that stands in the configuration and does not expire."""

import math

from proxy.credentials.credential import FetchedToken
from proxy.secret import Secret


class StaticTokenSource:
    """Hands out the same token for ever."""

    def __init__(self, value: Secret) -> None:
        self._token = FetchedToken(value, math.inf)

    async def fetch(self) -> FetchedToken:
        """The token."""
        return self._token

    async def close(self) -> None:
        """Nothing to let go of."""

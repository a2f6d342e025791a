"""A token that stands in the configuration, or alone in a file, and does not expire."""

import math

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources.file import FileTokenSource
from proxy.secret import Secret
from proxy.settings import FileCredential, StaticCredential


class StaticTokenSource:
    """Hands out the same token for ever."""

    def __init__(self, value: Secret) -> None:
        self._token = FetchedToken(value, math.inf)

    async def fetch(self) -> FetchedToken:
        """The token."""
        return self._token

    async def close(self) -> None:
        """Nothing to let go of."""


def static_source(section: StaticCredential) -> StaticTokenSource | FileTokenSource:
    """The source of the one place that the section names."""
    if section.file is not None:
        # Its path was checked with this section.
        file = FileCredential.model_construct(source="file", path=section.file)
        return FileTokenSource(file, ends=False)
    return StaticTokenSource(section.value or Secret(""))  # one of the two is there: the section sees to it

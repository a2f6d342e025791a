"""`[cors]`: the pages of other origins that may call the API from a browser."""

from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.settings.fields import Seconds
from proxy.settings.section import Section
from proxy.settings.urls import origin

ANY_ORIGIN = "*"


def _page(value: str) -> str:
    return value if value == ANY_ORIGIN else origin(value)


class Cors(Section):
    """Without this section no page of another origin can call, and OPTIONS is relayed."""

    origins: Annotated[tuple[Annotated[str, AfterValidator(_page)], ...], Field(min_length=1)]
    """Such as `https://app.example`; `*` is all of them. A key is asked in any case."""
    max_age: Seconds = 600
    """Seconds for which a browser remembers what it was told."""

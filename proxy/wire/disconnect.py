"""An extension of ASGI through which our server reports that a caller has left, and whether a body waits.

Without it, an application has to wait for `http.disconnect` in a second task next to the one that responds.
"""

from collections.abc import Callable
from typing import Final, TypedDict

EXTENSION: Final = "llm_token_proxy.disconnect"
"""The key of a `DisconnectExtension` among the extensions of a scope."""

OnDisconnect = Callable[[str], None]
"""Receives the reason, such as `client_gone`; called at most once."""
Subscribe = Callable[[OnDisconnect], None]


class DisconnectExtension(TypedDict):
    """The members of the extension."""

    subscribe: Subscribe
    has_body: Callable[[], bool]
    """Returns whether bytes of the body, or its end, wait to be received."""

"""An extension of ASGI through which our server reports that a caller has left, and whether a body waits.

Without it, an application has to wait for `http.disconnect` in a second task beside the one that responds.
"""

from collections.abc import Callable
from typing import Final

EXTENSION: Final = "llm_token_proxy.disconnect"
"""Its name among the extensions of a scope."""
SUBSCRIBE: Final = "subscribe"
"""The key of a `Subscribe` in it."""
HAS_BODY: Final = "has_body"
"""The key of a function in it that returns whether bytes of the body, or its end, wait to be received."""

Left = Callable[[str], None]
"""Receives the reason, such as `client_gone`; called at most once, and not in the task of the request."""
Subscribe = Callable[[Left], None]

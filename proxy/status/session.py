"""The session of a browser that has signed in to the status page (pure).

A session is its expiry and an HMAC of it under the key of the page, which it does not contain. It needs no
memory, is valid in every worker and after a restart, and ends when the key changes.
"""

import hmac
from typing import Final

from proxy.secret import Secret

SECONDS: Final = 12 * 3600
"""How long a session lasts."""
_PURPOSE: Final = b"llm-token-proxy status session "


def new_session(key: Secret, now: float) -> str:
    """Return a new session.

    Args:
        key: The key of the page.
        now: Seconds since the epoch.
    """
    expiry = str(int(now) + SECONDS)
    return f"{expiry}.{_signature(key, expiry)}"


def is_valid(session: str, key: Secret, now: float) -> bool:
    """Whether a session was made with this key and has not expired."""
    expiry, _, signature = session.partition(".")
    if not hmac.compare_digest(_signature(key, expiry).encode(), signature.encode()):
        return False
    return int(expiry) > now


def _signature(key: Secret, expiry: str) -> str:
    return hmac.digest(key.digest(), _PURPOSE + expiry.encode(), "sha256").hex()

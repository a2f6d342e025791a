"""When a credential is fetched without being asked for (pure)."""

import math

from proxy.credentials.credential import Credential
from proxy.credentials.refresh_policy import IDLE_LIFETIMES, IDLE_SECONDS


def is_in_use(current: Credential | None, idle: float) -> bool:
    """Whether somebody wanted a credential lately enough for it to be renewed.

    Args:
        current: The one that may be sent, if there is one.
        idle: Seconds since it was last asked for.
    """
    return idle <= (IDLE_SECONDS if current is None else IDLE_LIFETIMES * current.lifetime)


def next_fetch(
    current: Credential | None, now: float, *, idle: float, failures: int, backoff_until: float
) -> float:
    """When the next fetch is due: at the soft end of the token, or at the end of the back-off.

    A failure is probed for ever, if seldom while nobody asks: a service that is not ready gets no requests
    that would. Infinite where nothing is due.
    """
    if failures == 0:
        return current.soft if current is not None and current.soft < current.hard else math.inf
    due = max(backoff_until, current.soft if current else now)
    return due if is_in_use(current, idle) else max(due, now + IDLE_SECONDS)

"""Who is calling, and what each caller may use."""

from proxy.access.caller import Caller
from proxy.access.keys import (
    AccessControl,
    is_public,
    public,
    uses_default_keys,
    uses_original_key,
)
from proxy.access.limits import CallerLimits
from proxy.access.sites import SiteRules, is_loopback

__all__ = [
    "AccessControl",
    "Caller",
    "CallerLimits",
    "SiteRules",
    "is_loopback",
    "is_public",
    "public",
    "uses_default_keys",
    "uses_original_key",
]

"""Credentials: any token source behind one shared, always fresh token.

TokenSource            asks for one token, knows nothing of sharing        sources/
Token                  a fetched token with its deadlines                  token.py
CachedTokenSource      one token for all, replaced ahead and after a 401   cached_source.py
TokenFlights           one flight at a time, back-off, the timer           token_flights.py
Sharing                one fetch for several processes                     sharing/
UpstreamCredential     a cached source and where its token is written      upstream_credential.py
"""

from proxy.credentials.cached_source import CachedTokenSource
from proxy.credentials.refresh_policy import RefreshPolicy
from proxy.credentials.sharing import Sharing
from proxy.credentials.sharing.local import LocalSharing, MemoryTokenStore
from proxy.credentials.token import Token
from proxy.credentials.upstream_credential import UpstreamCredential

__all__ = [
    "CachedTokenSource",
    "LocalSharing",
    "MemoryTokenStore",
    "RefreshPolicy",
    "Sharing",
    "Token",
    "UpstreamCredential",
]

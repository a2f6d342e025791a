"""One exchange from its arrival to its log line, the same for HTTP, WebSockets and the chat."""

from proxy.lifecycle.admission import admit_caller, admit_request
from proxy.lifecycle.exchange import CallerGone, ExchangeScope

__all__ = ["CallerGone", "ExchangeScope", "admit_caller", "admit_request"]

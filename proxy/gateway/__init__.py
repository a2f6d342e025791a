"""The demonstration gateway: an OpenAI-compatible echo server behind its own token endpoint.

It knows nothing of the rest of the package. A test in the same process steers it through
`app.extensions["gateway"]`: counters to read, tokens to revoke, options to replace.
"""

from proxy.gateway.app import create_gateway
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway, GatewayStats

__all__ = ["Gateway", "GatewayOptions", "GatewayStats", "create_gateway"]

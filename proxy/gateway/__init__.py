"""The demonstration gateway: an OpenAI-compatible echo server behind its own token endpoints.

It imports nothing from the rest of the package. Tests in the same process control it through
`app.extensions["gateway"]`: they read counters, revoke tokens and replace options.
"""

from proxy.gateway.app import create_gateway
from proxy.gateway.state import DemoGateway, GatewayOptions, GatewayStats

__all__ = ["DemoGateway", "GatewayOptions", "GatewayStats", "create_gateway"]

"""Endpoints by their paths, for tests that need one."""

from proxy.wire.endpoints import Endpoint, match


def endpoint_of(path: str, method: str = "POST") -> Endpoint:
    """Return the endpoint of a path below the version, such as `chat/completions`."""
    return match(method, path.split("/")).endpoint

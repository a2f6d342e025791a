"""`health`: ask a running service whether it is ready, for health checks of containers."""

import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection, InvalidURL
from typing import Final
from urllib.parse import urlsplit

from proxy.errors import SettingsError

WAIT_SECONDS: Final = 3.0
"""The timeout of each step: to connect, and to read."""
RESPONSE_BYTES_MAX: Final = 200


def health(url: str) -> int:
    """Print the response of a probe; return 0 if it is 200, otherwise 1.

    Raises:
        SettingsError: The URL is not valid.
    """
    try:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=WAIT_SECONDS)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, InvalidURL):  # also a port that is not a number from 0 to 65535
        is_valid = False
    if not is_valid:
        raise SettingsError("--url: must be an http:// or https:// URL with a host")
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        text = response.read(RESPONSE_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, HTTPException, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        print(f"{url}: {words}; is the service running there? --url names another address", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print(f"{response.status} {text}")
    return int(response.status != HTTPStatus.OK)

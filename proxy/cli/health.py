"""`health`: ask a running service whether it is ready, for health checks of containers."""

import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

WAIT_SECONDS: Final = 3.0
"""The timeout of each step: to connect, and to read."""
RESPONSE_BYTES_MAX: Final = 200


def health(url: str) -> int:
    """Print the response of a probe; return 0 if it is 200, otherwise 1."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc, timeout=WAIT_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        text = response.read(RESPONSE_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, HTTPException, ValueError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print(f"{response.status} {text}")
    return int(response.status != HTTPStatus.OK)

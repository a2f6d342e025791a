"""`health`: ask a running service whether it is ready, for health checks of containers."""

import sys
import threading
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection, InvalidURL
from queue import Empty, SimpleQueue
from typing import Final
from urllib.parse import urlsplit

from proxy.errors import SettingsError

WAIT_SECONDS: Final = 3.0
"""How long the probe may take, from the name lookup to the response."""
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
        is_valid = is_valid and "@" not in parts.netloc
    except (ValueError, InvalidURL):  # also a port that is not a number from 0 to 65535
        is_valid = False
    if not is_valid:
        raise SettingsError("--url: must be an http:// or https:// URL with a host, and without a password")
    answers = SimpleQueue[tuple[int, str] | Exception]()
    # The timeout of a socket is one for each step, and a server could send one byte in each.
    asking = threading.Thread(target=lambda: answers.put(_ask(connection, parts.path or "/")), daemon=True)
    asking.start()
    try:
        answer = answers.get(timeout=WAIT_SECONDS)
    except Empty:
        answer = TimeoutError("timed out")
    if isinstance(answer, Exception):
        words = getattr(answer, "strerror", None) or answer
        print(f"{url}: {words}; is the service running there? --url names another address", file=sys.stderr)
        return 1
    status, text = answer
    print(f"{status} {text}")
    return int(status != HTTPStatus.OK)


def _ask(connection: HTTPConnection, path: str) -> tuple[int, str] | Exception:
    """Return the status and the text of the response, or why there is none."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(RESPONSE_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, HTTPException, ValueError) as error:
        return error
    finally:
        connection.close()

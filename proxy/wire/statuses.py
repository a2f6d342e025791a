"""HTTP statuses as plain integers, for code that runs in every request.

Python 3.11 calls a function for each access to a member of `HTTPStatus`.
"""

from http import HTTPStatus
from typing import Final

SWITCHING_PROTOCOLS: Final = HTTPStatus.SWITCHING_PROTOCOLS.value
OK: Final = HTTPStatus.OK.value
NO_CONTENT: Final = HTTPStatus.NO_CONTENT.value
BAD_REQUEST: Final = HTTPStatus.BAD_REQUEST.value
NOT_FOUND: Final = HTTPStatus.NOT_FOUND.value
SUCCESSES: Final = range(HTTPStatus.OK.value, HTTPStatus.MULTIPLE_CHOICES.value)

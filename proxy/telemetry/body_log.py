"""Log the bodies of requests and responses, for debugging. It is off by default."""

from typing import Final

from proxy.telemetry.logs import get_logger

_log: Final = get_logger("bodies")


class BodyLog:
    """Logs the beginning of the request body and of the response body of one exchange.

    Args:
        limit: The number of bytes of each body to log.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answer = bytearray()
        self._answer_bytes = 0

    def request(self, head: bytes, *, whole: bool) -> None:
        """Log the request body immediately, so that the line exists even if the exchange fails.

        Args:
            head: The body, or its beginning.
            whole: Whether this is the whole body.
        """
        _write("request_body", head[: self._limit], truncated=not whole or len(head) > self._limit)

    def answered(self, chunk: bytes) -> None:
        """Add bytes of the response, up to the limit."""
        self._answer_bytes += len(chunk)
        self._answer += chunk[: self._limit - len(self._answer)]

    def discard_answer(self) -> None:
        """Discard the response so far, because none of it was sent."""
        self._answer.clear()
        self._answer_bytes = 0

    def close(self) -> None:
        """Log the response body."""
        _write("response_body", bytes(self._answer), truncated=self._answer_bytes > self._limit)


def _write(event: str, body: bytes, *, truncated: bool) -> None:
    _log.info(event, body=body.decode(errors="replace"), truncated=truncated)

"""What callers ask and what they are answered, in the log: for debugging only, and off unless asked for."""

from typing import Final

from proxy.telemetry.logs import get_logger

_log: Final = get_logger("bodies")


class BodyLog:
    """The beginnings of one exchange's two bodies, as two lines.

    Args:
        limit: Bytes of each that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answer = bytearray()
        self._answer_bytes = 0

    def request(self, head: bytes, *, whole: bool) -> None:
        """Write what is asked, at once: whatever then goes wrong, the line is there.

        Args:
            head: The body, or as much of it as was read.
            whole: Whether that is all of it.
        """
        _write("request_body", head[: self._limit], truncated=not whole or len(head) > self._limit)

    def answered(self, chunk: bytes) -> None:
        """Keep what comes down, up to the limit."""
        self._answer_bytes += len(chunk)
        self._answer += chunk[: self._limit - len(self._answer)]

    def discard_answer(self) -> None:
        """Forget the answer so far: none of it was sent."""
        self._answer.clear()
        self._answer_bytes = 0

    def close(self) -> None:
        """Write what was answered."""
        _write("response_body", bytes(self._answer), truncated=self._answer_bytes > self._limit)


def _write(event: str, body: bytes, *, truncated: bool) -> None:
    _log.info(event, body=body.decode(errors="replace"), truncated=truncated)

"""The log lines of the tests of credentials, which are captured instead of printed."""

from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """Every log line of the test, with its bound context."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines

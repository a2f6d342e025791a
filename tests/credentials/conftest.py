"""What all tests of the credentials hold: the log lines, caught before they are printed."""

from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """Every line of the test, with the context that was bound where it was written."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines

"""`[cors]`: origins as browsers write them."""

import pytest
from pydantic import ValidationError

from proxy.settings import Cors


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.Example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("*", "*"),
    ],
)
def test_an_origin_is_taken_as_browsers_write_it(written: str, read: str) -> None:
    assert Cors(origins=(written,)).origins == (read,)


@pytest.mark.parametrize(
    "written",
    ["app.example", "https://app.example/path", "https://a@app.example", "https://app.example?x", "", "null"],
)
def test_an_invalid_origin_is_rejected(written: str) -> None:
    with pytest.raises(ValidationError):
        Cors(origins=(written,))


def test_at_least_one_origin_is_needed() -> None:
    with pytest.raises(ValidationError):
        Cors(origins=())

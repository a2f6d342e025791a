"""The request that the chat sends: JSON values of the settings, with their secrets revealed."""

import msgspec
import pytest

from proxy.chat.upstream import plain
from proxy.secret import Secret
from proxy.settings.recipe_values import Json


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": ({"b": Secret("s3cret")}, 1, None)}, {"a": [{"b": "s3cret"}, 1, None]}),
        ((), []),
        ({}, {}),
        (Secret("s3cret"), "s3cret"),
        (0.5, 0.5),
        (True, True),
        ("text", "text"),
    ],
)
def test_a_value_of_the_settings_is_written_as_json(value: Json, written: object) -> None:
    assert msgspec.json.decode(msgspec.json.encode(plain(value))) == written

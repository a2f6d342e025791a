"""Pydantic's errors: each kind that the models can raise has a message of ours."""

import pytest
from pydantic import ValidationError

from proxy.settings import CallerKey, Settings
from proxy.settings.load import problems_of


def test_every_kind_of_error_has_a_message() -> None:
    values: list[object] = [None, 1, True, "x", [], [1], {"x": 1}, {"x": {"x": 1}}, float("nan"), b"x"]
    tables = [
        *(dict.fromkeys(Settings.model_fields, value) for value in values),
        {"credentials": {"a": {"source": "http", "expires": [1], "basic": {}, "success": 1, "json": b"x"}}},
        {"access": {"keys": [1, {"name": 1, "key": 1}]}, "upstreams": {"a": {"headers": 1, "ca_file": 1}}},
    ]
    for table in tables:
        with pytest.raises(ValidationError) as refusal:
            Settings.model_validate(table)
        for problem in problems_of(refusal.value):
            assert problem.words != "is not valid", problem


def test_the_models_own_message_does_not_contain_the_value() -> None:
    with pytest.raises(ValidationError) as refusal:
        CallerKey.model_validate({"name": "a", "key": "s3cr3t\n", "s3cr3t_field": "s3cr3t-value"})

    assert "s3cr3t\n" not in str(refusal.value)
    assert "s3cr3t-value" not in str(refusal.value)

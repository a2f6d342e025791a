"""Codes and messages of success."""

import pytest

from proxy.wire.success import is_success


@pytest.mark.parametrize(
    "text",
    ["0", "200", "20000", "00000", "000000", "SUCCESS", "Success.", "succ", " ok ", "OK!", "操作成功。"],
)
def test_success_is_recognised_in_its_usual_forms(text: str) -> None:
    assert is_success(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1", "-1", "1000", "500", "10012", "InvalidApiKey"),
        *("not successful", "ok, but slow", "成功率过低", "ok" + " " * 99),
    ],
)
def test_anything_else_is_not_success(text: str) -> None:
    assert not is_success(text)

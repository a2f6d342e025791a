"""The style sheet of code: up to date, with sufficient contrast."""

import re
from importlib.resources import files

import pytest

from proxy.chat.code_colours import ROLES, code_styles

PAGE = files("proxy.chat").joinpath("page")
LIGHT, DARK, *_ = re.findall(
    r"--code-paper: (#\w+);", PAGE.joinpath("tokens.css").read_text(encoding="utf-8")
)


def luminance(colour: str) -> float:
    """Return the relative luminance: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_style_sheet_is_up_to_date() -> None:
    assert PAGE.joinpath("code.css").read_text(encoding="utf-8") == code_styles()


@pytest.mark.parametrize("role", ROLES)
def test_code_is_readable_on_light_and_dark_backgrounds(role: str) -> None:
    light, dark, _ = ROLES[role]
    assert contrast(light, LIGHT) >= 7
    assert contrast(dark, DARK) >= 7


def test_no_token_has_two_roles() -> None:
    names = [name for _, _, names in ROLES.values() for name in names.split()]
    assert len(names) == len(set(names))

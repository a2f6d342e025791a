"""The characters as numbers."""

import pytest

from proxy.wire import characters


@pytest.mark.parametrize(
    ("name", "character"),
    [
        ("NUL", b"\0"),
        ("LF", b"\n"),
        ("CR", b"\r"),
        ("SPACE", b" "),
        ("NUMBER_SIGN", b"#"),
        ("PERCENT", b"%"),
        ("SLASH", b"/"),
    ],
)
def test_a_number_is_found_where_its_character_is(name: str, character: bytes) -> None:
    number = getattr(characters, name)
    assert number in b"a" + character
    assert number not in bytes(range(256)).replace(character, b"")

"""`[status]`: a strong key that no caller has."""

import hashlib

import pytest

from tests.settings.conftest import MINIMAL, Load, Problems

KEY = "status-key-8f3a-5b20"
CALLER = """\
[access]
keys = [{{ name = "a", {key} }}]
[upstreams.chat]
base_url = "https://llm.example/v1"
[status]
key = "status-key-8f3a-5b20"
"""


def test_there_is_no_page_by_default(load: Load) -> None:
    assert load(MINIMAL).status is None


def test_the_key_is_a_secret(load: Load) -> None:
    status = load(MINIMAL + '[status]\nkey = "status-key-8f3a-5b20"').status
    assert status is not None
    assert status.key.reveal() == "status-key-8f3a-5b20"
    assert "8f3a" not in repr(status)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "key: is required"),
        ('key = "short"', "key: must have at least 16 characters"),
        ('key = "your-key-here"', "key: "),
        ('key = "status-key-8f3a-5b20"\nother = 1', 'other: unknown key, known: "key"'),
    ],
)
def test_a_weak_or_missing_key_is_reported(problems: Problems, line: str, words: str) -> None:
    (told,) = problems(f"{MINIMAL}[status]\n{line}")
    assert f"status.{words}" in told


@pytest.mark.parametrize("is_hashed", [False, True])
def test_no_caller_may_have_the_same_key(problems: Problems, *, is_hashed: bool) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (told,) = problems(CALLER.format(key=f'sha256 = "{digest}"' if is_hashed else f'key = "{KEY}"'))
    assert "status.key: is also the key of a caller" in told

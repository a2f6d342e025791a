"""`[access]`: valid keys, and the problems of invalid ones."""

import hashlib
import tomllib

import pytest
from pydantic import ValidationError

from proxy.settings import DEFAULT_CALLER_KEYS, Access
from tests.settings.conftest import Load, Problems

UPSTREAM = '[upstreams.chat]\nbase_url = "https://llm.example/v1"\n'
DIGEST = hashlib.sha256(b"k").hexdigest()


def with_keys(*keys: str) -> str:
    return UPSTREAM + "[access]\n" + "keys = [" + ", ".join(keys) + "]\n"


def test_a_key_is_plain_text_or_a_digest(load: Load) -> None:
    clear, hashed = load(
        with_keys('{ name = "a", key = "k2" }', f'{{ name = "b", sha256 = "{DIGEST.upper()}" }}')
    ).access.keys

    assert clear.key is not None
    assert clear.key.reveal() == "k2"
    assert clear.digest == hashlib.sha256(b"k2").digest()
    assert hashed.key is None
    assert hashed.sha256 == DIGEST
    assert hashed.digest == hashlib.sha256(b"k").digest()


def test_keys_are_required_unless_access_is_open(load: Load, problems: Problems) -> None:
    told = (
        "access.keys: no caller would be accepted: "
        'add [[access.keys]] with name and key, or set mode = "open"'
    )

    assert load(UPSTREAM + "[access]\nmode = 'open'").access.keys == ()
    assert problems(UPSTREAM) == [f"x.toml: {told}"]
    assert problems(UPSTREAM + "[access]\nmode = 'keys'") == [f"x.toml:3: {told}"]
    assert problems(UPSTREAM + "[access]\nkeys = []") == [f"x.toml:4: {told}"]


@pytest.mark.parametrize("key", sorted(DEFAULT_CALLER_KEYS))
def test_the_default_keys_are_accepted_here(load: Load, key: str) -> None:
    (caller,) = load(with_keys(f'{{ name = "a", key = "{key}" }}')).access.keys

    assert caller.key is not None
    assert caller.key.reveal() == key


@pytest.mark.parametrize("listed", ['["chat/completions"]', '["audio", "models"]', '["*"]', "[]"])
def test_a_key_may_name_endpoints_and_models(load: Load, listed: str) -> None:
    keys = f'{{ name = "a", key = "k2", models = ["cheap"], endpoints = {listed} }}'
    (caller,) = load(with_keys(keys)).access.keys

    assert caller.endpoints == tuple(tomllib.loads(f"listed = {listed}")["listed"])


def test_an_unknown_endpoint_is_reported(problems: Problems) -> None:
    keys = with_keys('{ name = "a", key = "k2", endpoints = ["chat/completion"] }')

    assert problems(keys) == [
        'x.toml:4: access.keys.0.endpoints.0: unknown endpoint, did you mean "chat/completions"?'
    ]


@pytest.mark.parametrize("name", ["batches", "threads", "engines", "fine_tuning", "agents"])
def test_an_endpoint_with_hidden_models_is_rejected_together_with_models(
    load: Load, problems: Problems, name: str
) -> None:
    both = with_keys(f'{{ name = "a", key = "k2", models = ["cheap"], endpoints = ["files", "{name}"] }}')
    alone = with_keys(f'{{ name = "a", key = "k2", endpoints = ["{name}"] }}')

    words = f"{name} cannot be combined with models: its requests do not name their model"
    assert problems(both) == [f"x.toml:4: access.keys.0.endpoints: {words}"]
    assert load(alone).access.keys[0].endpoints == (name,)


@pytest.mark.parametrize("key", ["b", "sk-abc", "xx", "two words", "sk-xylophone", "secretary", "a.b..."])
def test_other_keys_are_accepted(load: Load, key: str) -> None:
    assert load(with_keys(f'{{ name = "a", key = "{key}" }}')).access.keys


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["changeme", "change-me", "CHANGE_ME", "replace this"], '"change me" or "replace this"'),
        (
            ["your-key", "your_api_key", "your-api-key-here", "sk-your-key", "My API Key"],
            '"my key" or "your key"',
        ),
        (["xxxx", "xxx", "sk-xxx"], "only the letter x"),
        (["...", "sk-..."], "only dots"),
        (["<your key>"], "text in angle brackets"),
        (
            ["secret", "password", "todo", "placeholder"],
            'the word "secret", "password", "todo" or "placeholder"',
        ),
    ],
)
def test_a_placeholder_is_rejected_with_the_rule_it_matches(
    problems: Problems, keys: list[str], kind: str
) -> None:
    for key in keys:
        assert problems(with_keys(f'{{ name = "a", key = "{key}" }}')) == [
            f"x.toml:4: access.keys.0.key: is a placeholder ({kind}): replace it with the real key"
        ]


@pytest.mark.parametrize("key", ["a\\nb", "a\\u0000", "\\u2026", " a", "a ", "a\\u00a0b", "\\u007f", "密"])
def test_a_key_must_fit_in_a_header(problems: Problems, key: str) -> None:
    assert problems(with_keys(f'{{ name = "a", key = "{key}" }}')) == [
        "x.toml:4: access.keys.0.key: does not fit in an HTTP header: it has surrounding spaces, control or "
        "non-ASCII characters"
    ]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('name = "a"', "key: is required: the caller's key, or its digest as sha256"),
        ('name = "a", key = ""', "key: is empty"),
        ('name = "a", key = 1', "key: must be a string"),
        (
            f'name = "a", key = "k", sha256 = "{DIGEST}"',
            "sha256: cannot be combined with key: give only one of them",
        ),
        ('name = "a", sha256 = "abc"', "sha256: must be 64 hexadecimal digits: the SHA-256 of the key"),
        ('key = "k"', "name: is required"),
        ('name = "", key = "k"', "name: must be a name: printable, without spaces around it"),
        ('name = "a\\n", key = "k"', "name: must be a name: printable, without spaces around it"),
    ],
)
def test_an_entry_that_is_not_a_key_is_reported(problems: Problems, entry: str, told: str) -> None:
    assert problems(with_keys(f"{{ {entry} }}")) == [f"x.toml:4: access.keys.0.{told}"]


def test_every_repetition_is_reported(problems: Problems) -> None:
    text = with_keys(
        '{ name = "a", key = "k" }',
        '{ name = "a", key = "other" }',
        '{ name = "b", key = "k" }',
        f'{{ name = "c", sha256 = "{DIGEST}" }}',
    )

    assert problems(text) == [
        "x.toml:4: access.keys.1.name: is also the name of access.keys.0",
        "x.toml:4: access.keys.2.key: is also the key of access.keys.0",
        "x.toml:4: access.keys.3.sha256: is also the key of access.keys.0",
    ]


@pytest.mark.parametrize(
    "name", ["llm.corp.example", "LLM.corp", "a_b", "10.0.0.1", "[2001:db8::1]", "::1", "*"]
)
def test_a_host_is_a_name_or_an_address(name: str) -> None:
    assert Access(mode="open", hosts=(name,)).hosts == (name.lower().strip("[]"),)


@pytest.mark.parametrize("name", ["", "http://a", "a:80", "a/b", "a b", "a..b", "[::1]:80", "x" * 64, "你好"])
def test_nothing_else_is_a_host(name: str) -> None:
    with pytest.raises(ValidationError, match="without scheme and port"):
        Access(mode="open", hosts=(name,))

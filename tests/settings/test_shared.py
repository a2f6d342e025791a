"""`[shared]`: the Redis of a fleet, and the keys that encrypt its records."""

import base64
import re

import pytest

from proxy.secret import MASK
from proxy.settings import Shared, describe
from tests.settings.conftest import MINIMAL, Load, Problems

HEX = "00" * 16 + "ff" * 16
BASE64 = base64.b64encode(bytes.fromhex(HEX)).decode()
URL = 'redis_url = "redis://user:s3cret@redis.example:6380/2"\n'
KEY = f'encryption_key = "{HEX}"\n'


def shared(load: Load, text: str, **environ: str) -> Shared:
    loaded = load(f"{MINIMAL}[shared]\n{text}", environ).shared
    assert loaded is not None
    return loaded


def test_nothing_is_shared_by_default(load: Load) -> None:
    assert load(MINIMAL).shared is None


@pytest.mark.parametrize(
    "text", [HEX, HEX.upper(), BASE64, BASE64.rstrip("="), BASE64.replace("/", "_").replace("+", "-")]
)
def test_a_key_in_any_of_its_spellings(load: Load, text: str) -> None:
    loaded = shared(load, URL + 'encryption_key = "${env:KEY}"', KEY=text)
    assert loaded.keys == [bytes.fromhex(HEX)]


def test_every_default(load: Load) -> None:
    loaded = shared(load, URL + KEY)
    assert loaded.redis_url.reveal() == "redis://user:s3cret@redis.example:6380/2"
    assert (loaded.decryption_keys, loaded.sentinels, loaded.sentinel_password) == ((), (), None)
    assert (loaded.redis_ca_file, loaded.redis_timeout) == (None, 0.5)


def test_the_encryption_key_precedes_the_decryption_keys(load: Load) -> None:
    other = "11" * 32
    assert shared(load, URL + KEY + f'decryption_keys = ["{other}"]').keys == [
        bytes.fromhex(HEX),
        bytes.fromhex(other),
    ]


def test_nothing_secret_is_shown(load: Load) -> None:
    text = URL + KEY + 'sentinel_password = "s3cret"\nsentinels = ["s1.example:26379"]'
    shown = describe(load(f"{MINIMAL}[shared]\n{text}"))
    assert f'redis_url = "{MASK}"' in shown
    assert 'sentinels = ["s1.example:26379"]' in shown
    assert not re.search(f"s3cret|{HEX}", shown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (KEY, "redis_url: is required"),
        (URL, "encryption_key: is required"),
        ('redis_url = "http://redis.example"\n' + KEY, "redis_url: must be a redis://, rediss:// (TLS)"),
        ('redis_url = "redis://"\n' + KEY, "redis_url: must be a redis://"),
        ('redis_url = "redis://h:x"\n' + KEY, "redis_url: is not a valid URL"),
        (URL.replace("/2", "/x") + KEY, "redis_url: must give the database as a number"),
        (URL.replace("/2", "?db=zz") + KEY, "redis_url: must give the database as a number"),
        (URL.replace("/2", "?nonsense=1") + KEY, "redis_url: has an unknown parameter"),
        (URL + 'encryption_key = "short"', "encryption_key: must be 32 bytes in base64 or hexadecimal"),
        (URL + f'encryption_key = "{HEX}00"', "encryption_key: must be 32 bytes"),
        (URL + 'encryption_key = "${env:EMPTY:-}"', "encryption_key: is empty"),
        (URL + KEY + f'decryption_keys = ["{BASE64}"]', "decryption_keys: repeats a key"),
        (URL + KEY + 'sentinels = ["s1.example"]', 'sentinels.0: must be "host:port"'),
        (URL + KEY + "redis_timeout = 0", "redis_timeout: must be greater than 0"),
        (
            URL + KEY + 'redis_ca_file = "x.toml"',
            "redis_ca_file: the file x.toml contains no certificate in PEM form",
        ),
    ],
)
def test_unusable_values_are_reported(problems: Problems, text: str, words: str) -> None:
    (told,) = problems(f"{MINIMAL}[shared]\n{text}")
    assert f"shared.{words}" in re.sub(r"the file /\S*/", "the file ", told)
    assert "s3cret" not in told

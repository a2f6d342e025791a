"""`[chat]`: its settings, their defaults, and rejected values."""

import pytest

from proxy.secret import MASK, Secret
from proxy.settings import Chat, describe
from tests.settings.conftest import MINIMAL, Load, Problems

SHARED = f'[shared]\nredis_url = "redis://127.0.0.1:6379/0"\nencryption_key = "{"11" * 32}"\n'


def chat(load: Load, text: str = "", **environ: str) -> Chat:
    loaded = load(f"{MINIMAL}[chat]\n{text}", environ).chat
    assert loaded is not None
    return loaded


def test_there_is_no_chat_without_its_section(load: Load) -> None:
    assert load(MINIMAL).chat is None


def test_an_empty_section_is_enough(load: Load) -> None:
    loaded = chat(load)

    assert (loaded.upstream, loaded.model, loaded.rate, loaded.secret) == (None, "x1", "2/second", None)
    assert (loaded.models, loaded.title) == ((), None)
    assert (loaded.turns, loaded.max_prompt_chars, loaded.max_seconds) == (6, 8000, 600)
    assert chat(load, 'secret = ""').secret is None
    assert (loaded.keep, loaded.keep_bytes, loaded.keep_seconds, loaded.origins) == (500, 4194304, 3600, ())


def test_tools_and_options_are_free_and_read_only(load: Load) -> None:
    loaded = chat(
        load,
        'options = { temperature = 0.5, thinking = { type = "${env:KIND}" } }\n'
        'tools = [{ type = "web_search", web_search = { enable = true, search_mode = "deep" } }]\n',
        KIND="enabled",
    )

    assert loaded.tools == ({"type": "web_search", "web_search": {"enable": True, "search_mode": "deep"}},)
    assert loaded.options["temperature"] == 0.5
    assert loaded.options["thinking"] == {"type": Secret("enabled")}


def test_the_secret_is_not_shown(load: Load) -> None:
    shown = describe(load(f'{MINIMAL}[chat]\nsecret = "a-long-one"'))

    assert f'secret = "{MASK}"' in shown
    assert "a-long-one" not in shown


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://Blog.example", "https://blog.example"),
        ("https://blog.example/", "https://blog.example"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(load: Load, written: str, kept: str) -> None:
    assert chat(load, f'origins = ["{written}"]').origins == (kept,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('upstream = "chta"', 'chat.upstream: is not the name of an upstream, did you mean "chat"?'),
        ('rate = "often"', "chat.rate: must be a rate"),
        ("turns = -1", "chat.turns: "),
        ("keep = 0", "chat.keep: "),
        ('models = ["a", "b"]', 'chat.models: does not contain the default model "x1"'),
        ('origins = ["blog.example"]', "chat.origins.0: must be an http:// or https:// URL with a host"),
        ('origins = ["https://blog.example/x"]', "chat.origins.0: must be an origin"),
        ('origins = ["https://me@blog.example"]', "chat.origins.0: must be an origin"),
        ('origins = ["https://blog.example:x"]', "chat.origins.0: is not a valid URL"),
        ('tools = ["web_search"]', "chat.tools.0: must be a table"),
        ("options = { day = 2026-11-24 }", "chat.options.day: cannot be represented in JSON"),
        ('options = { model = "x" }', "chat.options.model: is a key of [chat]"),
        ("options = { messages = [] }", "chat.options.messages: is set by the chat itself"),
        ("secret = 1", "chat.secret: must be a string"),
        ("sekret = 1", "chat.sekret: unknown key"),
    ],
)
def test_impossible_values_are_reported(problems: Problems, text: str, words: str) -> None:
    (told,) = problems(f"{MINIMAL}[chat]\n{text}")

    assert words in told


def test_a_fleet_needs_one_secret(problems: Problems, load: Load) -> None:
    for text in ("", 'secret = ""'):
        (told,) = problems(f"{MINIMAL}{SHARED}[chat]\n{text}")
        assert "chat.secret: is required with [shared]" in told
    assert load(f'{MINIMAL}{SHARED}[chat]\nsecret = "s"').chat is not None


@pytest.mark.parametrize(
    ("written", "kept"), [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("::1", "::1/128")]
)
def test_trusted_proxies_are_addresses_or_networks(load: Load, written: str, kept: str) -> None:
    text = MINIMAL.replace('mode = "open"', f'mode = "open"\ntrusted_proxies = ["{written}"]')

    assert load(text).access.trusted_proxies == (kept,)


def test_a_proxy_by_name_is_rejected(problems: Problems) -> None:
    text = MINIMAL.replace('mode = "open"', 'mode = "open"\ntrusted_proxies = ["nginx"]')
    (told,) = problems(text)

    assert "access.trusted_proxies.0: must be an address or a network" in told

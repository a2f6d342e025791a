"""The files of config/: they load, and the example names every key with a comment."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from proxy.errors import SettingsError
from proxy.secret import Secret
from proxy.settings import (
    DEFAULT_CALLER_KEYS,
    Chat,
    CredentialSection,
    CredentialSettings,
    HttpCredential,
    Routes,
    Settings,
    describe,
    load_settings,
)
from proxy.settings.credentials.section import RequestSection
from proxy.settings.section import Section
from tests.config.examples import Surroundings
from tests.signing_keys import certificate_pem

CONFIG = Path(__file__).parents[2] / "config"
HEADER = re.compile(r"\[+([\w.]+)\]")
KEY = re.compile(r"(\w+) =")
SOURCE = re.compile(r'source = "(\w+)"')
BLOCK = re.compile(r"^# \[.*\n(?:#.*\n)+", re.MULTILINE)
UNCOMMENTED = re.compile(r"^# ", re.MULTILINE)
SEALING_KEY = re.compile(r"\$\{env:(\w*(?:ENCRYPTION|NAME)_KEY)\b")
WITH_DEFAULT = re.compile(r"\$\{env:(\w+):-")
PEM = re.compile(r"/([\w-]+\.pem)")
ACCOUNT = "service-account.json"
EXAMPLE_ENVIRONMENT = {
    name: f"canary-{name.lower()}-of-32-bytes-and-more"
    for name in (
        *("RAGFLOW_KEY", "CORP_APP_SECRET", "ENTRA_SECRET", "PERSON_CLIENT_SECRET", "PERSON_PASSWORD"),
        *("SPEECH_KEY", "SIGNING_KEY"),
    )
}
"""Variables that the example needs; its commented-out sections need more."""
NOT_SET = re.compile(r"the environment variable (\w+) is not set")
SECRET_NAME = re.compile(r"(?i)^key$|secret|password|^value$|api_?key|^encryption_key$")
REFERENCE = re.compile(r"(?:Bearer )?\$\{(?:env:\w+(?::-)?|file:[^}]+|credential:\w+)\}")


def sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def keys_of(section: type[Section]) -> Iterator[str]:
    """Yield every key of a section and of its subsections."""
    for name, field in section.model_fields.items():
        yield field.alias or name
        for below in sections_in(field.annotation):
            yield from keys_of(below)


def documented() -> Iterator[tuple[str, str]]:
    """Yield the keys of the example that have a comment on their line, each with its section.

    A credential's source is added to its section.
    """
    section, sources = "", dict[str, str]()
    for line in (CONFIG / "example.toml").read_text().splitlines():
        code, _, comment = line.removeprefix("# ").partition(" # ")  # keys that are commented out count too
        header = HEADER.match(code)
        if header:
            section = header[1]
        source = SOURCE.match(code)
        if source:
            sources[".".join(section.split(".")[:2])] = source[1]
        if comment:
            names = header[1].split(".") if header else KEY.findall(code)
            within = sources.get(".".join(section.split(".")[:2]), "")
            yield from ((place, name) for name in names for place in (section.split(".")[0], within))


@pytest.mark.parametrize("section", [name for name in Settings.model_fields if name != "routes"])
def test_every_key_is_in_the_example_with_a_comment(section: str) -> None:
    known = {*documented()}
    models = [*sections_in(Settings.model_fields[section].annotation)]

    assert models
    for model in models:
        assert {key for key in keys_of(model) if (section, key) not in known} == set()


@pytest.mark.parametrize("model", [*sections_in(CredentialSettings)])
def test_every_key_of_a_source_is_in_a_block_of_that_source(model: type[Section]) -> None:
    (source,) = get_args(model.model_fields["source"].annotation)
    everywhere = {*keys_of(CredentialSection), *keys_of(RequestSection)}
    shown = {name for place, name in documented() if place == source}

    assert {*keys_of(model)} - everywhere - shown == set()


def surroundings_of(text: str, folder: Path) -> Surroundings:
    """Return valid values for everything that a text refers to."""
    keys = {key: hashlib.sha256(key.encode()).hexdigest() for key in SEALING_KEY.findall(text)}
    defaults = {**dict.fromkeys(WITH_DEFAULT.findall(text), ""), **EXAMPLE_ENVIRONMENT, "CHAT_SECRET": "c"}
    files = {name: certificate_pem("rsa") for name in PEM.findall(text) if "key" not in name}
    return Surroundings(
        folder, environ={**defaults, **keys}, files={**files, ACCOUNT: '{"type": "service_account"}'}
    )


def test_the_blocks_that_are_commented_out_load_too(tmp_path: Path) -> None:
    text = BLOCK.sub(lambda block: UNCOMMENTED.sub("", block[0]), (CONFIG / "example.toml").read_text())
    settings = surroundings_of(text, tmp_path).load(text)

    assert {section.source for section in settings.credentials.values()} == {
        source
        for model in sections_in(CredentialSettings)
        for source in get_args(model.model_fields["source"].annotation)
    }
    assert settings.shared is not None


def test_the_example_loads_and_shows_no_secret() -> None:
    settings = example()

    assert set(settings.credentials) == {"corp", "entra", "person", "exchanged", "speech", "signed"}
    assert isinstance(settings.routes, Routes)
    assert settings.gateway is None
    shown = describe(settings)
    assert [value for value in EXAMPLE_ENVIRONMENT.values() if value in shown] == []


def test_the_example_has_no_secret_of_its_own() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(CONFIG / "example.toml", {})

    missing = {found[1] for problem in caught.value.problems if (found := NOT_SET.search(problem))}
    assert missing == {*EXAMPLE_ENVIRONMENT}
    assert len(caught.value.problems) == len(missing)


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.toml")), ids=lambda path: path.name)
def test_no_secret_in_the_examples_is_public(path: Path) -> None:
    if path.name == "proxy.toml":
        return  # the runnable default, whose keys have other rules
    tree = tomllib.loads(path.read_text())

    assert [*literal_secrets(tree, "")] == []


def literal_secrets(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield every secret that is written literally or has a default, with its name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from literal_secrets(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from literal_secrets(item, name)
    elif (
        SECRET_NAME.search(name)
        and value not in DEFAULT_CALLER_KEYS
        and not (isinstance(value, str) and REFERENCE.fullmatch(value))
    ):
        yield name, value


def example() -> Settings:
    """Load the example with its variables set."""
    return load_settings(CONFIG / "example.toml", EXAMPLE_ENVIRONMENT)


def test_the_runnable_default() -> None:
    settings = load_settings(CONFIG / "proxy.toml", {})
    corp = settings.credentials["corp"]

    assert {key.name: key.key for key in settings.access.keys} == {
        "local": Secret("sk-local"),
        "original": Secret("fake key"),
    }
    assert {key.key.reveal() for key in settings.access.keys if key.key} == DEFAULT_CALLER_KEYS
    assert (settings.routes.default, settings.routes.endpoints) == ("chat", {"embeddings": "embed"})
    assert {upstream.base_url for upstream in settings.upstreams.values()} == {"embedded:/v1"}
    assert isinstance(corp, HttpCredential)
    assert corp.json_body == {"appId": "demo", "appSecret": "demo-secret"}
    assert settings.gateway is not None
    assert settings.gateway.token_ttl == 300
    assert settings.chat == Chat(model="x1")


@pytest.mark.parametrize("name", ["proxy.toml", "example.toml"])
def test_the_defaults_in_the_example_are_the_defaults(name: str) -> None:
    settings = load_settings(CONFIG / name, EXAMPLE_ENVIRONMENT)

    assert settings.limits == type(settings.limits)()
    assert settings.logs == type(settings.logs)()
    assert settings.gateway == type(settings.gateway)() if settings.gateway else True


def test_the_chat_on_spark_sends_the_request_of_the_article(tmp_path: Path) -> None:
    settings = Surroundings(tmp_path).load((CONFIG / "spark.toml").read_text())

    assert settings.upstreams["spark"].base_url == "https://spark-api-open.xf-yun.com/v2"
    assert settings.upstreams["spark"].credential == "spark"
    chat = settings.chat
    assert chat is not None
    assert (chat.model, chat.user, chat.rate, chat.secret) == ("x1", "user_id", "2/second", None)
    assert chat.tools == ({"type": "web_search", "web_search": {"enable": True, "search_mode": "deep"}},)
    assert "of-spark-api-password" not in describe(settings)

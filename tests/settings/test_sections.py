"""The sections without a separate module, and the address of the embedded gateway."""

import pytest

from proxy.secret import Secret
from proxy.settings import Gateway, HttpCredential, Limits, Logs, OAuth2Credential, resolve_embedded
from tests.settings.conftest import MINIMAL, Load, Problems


def test_the_defaults(load: Load) -> None:
    settings = load(MINIMAL)

    assert settings.limits == Limits(
        max_body_bytes=67108864, held_body_bytes=1048576, max_event_bytes=16777216, body_timeout=60
    )
    assert settings.logs == Logs(level="info", format="auto", bodies=False, body_bytes=16384)
    assert settings.gateway is None
    assert settings.credentials == {}
    assert load(MINIMAL + "[gateway]").gateway == Gateway(
        token_ttl=300, word_delay=0.1, app_id="demo", app_secret=Secret("demo-secret")
    )


@pytest.mark.parametrize(
    ("section", "line", "told"),
    [
        ("limits", "max_body_bytes = 0", "max_body_bytes: must be greater than 0"),
        ("limits", "held_body_bytes = 1.5", "held_body_bytes: must be a whole number"),
        ("limits", "body_timeout = inf", "body_timeout: must be a finite number"),
        ("limits", "max_events_bytes = 1", 'max_events_bytes: unknown key, did you mean "max_event_bytes"?'),
        ("logs", "bodies = 'perhaps'", "bodies: must be true or false"),
        ("logs", "format = 'xml'", 'format: must be "auto", "json" or "console"'),
        ("gateway", "token_ttl = 0", "token_ttl: must be greater than 0"),
        ("gateway", "word_delay = 0.6", "word_delay: must be at most 0.5"),
        ("gateway", "word_delay = -0.1", "word_delay: must be at least 0"),
        ("gateway", "app_secret = ''", "app_secret: is empty"),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, section: str, line: str, told: str) -> None:
    assert problems(f"{MINIMAL}[{section}]\n{line}") == [f"x.toml:6: {section}.{told}"]


def test_the_origin_of_the_gateway_replaces_embedded(load: Load) -> None:
    text = """\
access.mode = "open"
routes.default = "chat"
[upstreams.chat]
base_url = "embedded:/v1"
[upstreams.real]
base_url = "https://llm.example/v1"
[credentials.a]
source = "http"
url = "embedded:/token"
token = "t"
[credentials.b]
source = "oauth2"
token_url = "embedded:/oauth2/token"
client_id = "id"
client_secret = "s"
[credentials.c]
source = "static"
value = "v"
[gateway]
"""
    settings = load(text)
    resolved = resolve_embedded(settings, "http://127.0.0.1:5003")
    a, b = resolved.credentials["a"], resolved.credentials["b"]

    assert resolved.upstreams["chat"].base_url == "http://127.0.0.1:5003/v1"
    assert resolved.upstreams["real"] == settings.upstreams["real"]
    assert isinstance(a, HttpCredential)
    assert a.url == "http://127.0.0.1:5003/token"
    assert isinstance(b, OAuth2Credential)
    assert b.token_url == "http://127.0.0.1:5003/oauth2/token"
    assert resolved.credentials["c"] == settings.credentials["c"]
    assert settings.upstreams["chat"].base_url == "embedded:/v1"
    assert not isinstance(resolved.upstreams, dict)


def test_the_list_of_models_is_relayed_by_default(load: Load) -> None:
    assert (load(MINIMAL).models.list, load(MINIMAL).models.known) == ("relayed", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('list = "configured"', "list: lists nothing: add [[models.known]] with an id"),
        ('list = "x"', 'list: must be "relayed", "configured" or "merged"'),
        ('[[models.known]]\nid = "a"\n[[models.known]]\nid = "a"', "known: names a model twice"),
        ("[[models.known]]\ncontext_length = 5", "known.0.id: is required"),
        ('[[models.known]]\nid = "a"\ncontext_length = 0', "known.0.context_length: must be greater than 0"),
    ],
)
def test_an_invalid_list_of_models_is_reported(problems: Problems, text: str, words: str) -> None:
    (told,) = problems(f"{MINIMAL}[models]\n{text}")
    assert f"models.{words}" in told

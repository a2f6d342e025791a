"""Printed settings: complete, and without secrets."""

import tomllib
from collections.abc import Iterator
from typing import get_args

from proxy.secret import MASK
from proxy.settings import Settings, describe
from proxy.settings.section import FREE_TABLES, Section
from tests.settings.conftest import MINIMAL, Load

TEXT = """\
[[access.keys]]
name = "a"
key = "SECRET"
[[access.keys]]
name = "b"
sha256 = "DIGEST"
[routes]
default = "chat"
"audio/speech" = "chat"
[upstreams.chat]
base_url = "https://llm.example/k/9f8Ab37cQ1zX0pLm4Tt7/v1"
credential = "h"
headers = { X-App = "ragflow", X-Tenant = "${env:TENANT}", X-Api-Key = "SECRET" }
proxy = "http://SECRET:SECRET@proxy.example:3128"
[credentials.h]
source = "http"
url = "https://auth.example/hook/9f86d081884c7d659a2feaa0c55ad015/token?a=SECRET&b=SECRET"
json = { id = "plain", n = 1, appSecret = "SECRET", deep = [{ password = ["SECRET"] }], x = "<${env:VALUE}>" }
query = { sig = "SECRET", key = "SECRET", tenant = "t" }
headers = { Authorization = "SECRET", Accept = "application/json", X-Plain = "SECRET" }
basic = ["id", "SECRET"]
token = "data.token"
expires = [{ path = "data.at", as = "epoch" }]
[credentials.o]
source = "oauth2"
token_url = "https://auth.example/token"
client_id = "client"
client_secret = "SECRET"
params = { grant = "g", assertion = "SECRET", user = "${env:VALUE}" }
[credentials.e]
source = "http"
url = "embedded:/token?secret=SECRET"
token_header = "X-Token"
[credentials.s]
source = "static"
value = "SECRET"
inject = { query = "q" }
[credentials.u]
source = "http"
url = "https://auth.example/"
token = "t"
[credentials.u.json]
passcode = "SECRET"
otp = 123456
sid = ["SECRET"]
"\u5bc6\u7801" = "SECRET"
on = true
code = "SECRET"
late = "SECRET ${now}"
other = "Bearer ${credential:s}"
[credentials.x]
source = "exec"
command = ["sh", "-c", "SECRET", "--secret", "--secret=SECRET", "SECRET", "-p", "-pSECRET", "-pLetters"]
env = { PLAIN = "SECRET", LANG = "C" }
[credentials.j]
source = "jwt"
algorithm = "HS256"
key = "SECRET-and-more-than-32-bytes-long"
claims = { api_key = "SECRET", scope = "llm" }
headers = { x = "SECRET", typ = "JWT" }
[chat]
options = { temperature = 1.2, x = "SECRET" }
tools = [{ type = "web_search", key = "SECRET" }]
[gateway]
app_secret = "SECRET"
"""


def shown(load: Load) -> str:
    text = TEXT.replace("DIGEST", "5ec2e7" + "0" * 58).replace(
        '"a"\nkey = "SECRET"', '"a"\nkey = "s3cr3t-key"'
    )
    return describe(load(text.replace("SECRET", "s3cr3t"), {"VALUE": "s3cr3t", "TENANT": "s3cr3t"}))


def test_no_secret_is_shown(load: Load) -> None:
    text = shown(load)

    assert "s3cr3t" not in text
    assert "5ec2e7" not in text


def test_the_output_is_valid_toml(load: Load) -> None:
    tree = tomllib.loads(shown(load))

    assert tree["access"] == {
        "mode": "keys",
        "sharing": "local",
        "hosts": [],
        "trusted_proxies": ["127.0.0.0/8", "::1/128"],
        "keys": [
            {"name": "a", "key": MASK, "models": ["*"], "repairs": []},
            {"name": "b", "sha256": MASK, "models": ["*"], "repairs": []},
        ],
    }
    assert tree["routes"] == {"default": "chat", "audio/speech": "chat"}
    chat = tree["upstreams"]["chat"]
    assert chat["base_url"] == f"https://llm.example/k/{MASK}/v1"
    assert chat["headers"] == {"X-App": MASK, "X-Tenant": MASK, "X-Api-Key": MASK}
    assert chat["proxy"] == f"http://{MASK}@proxy.example:3128"
    assert chat["timeouts"] == {"connect": 5, "first_byte": 120, "idle": 60, "total": 0}
    http = tree["credentials"]["h"]
    assert http["url"] == f"https://auth.example/hook/{MASK}/token?a={MASK}&b={MASK}"
    assert http["json"] == {
        "id": "plain",
        "n": MASK,
        "appSecret": MASK,
        "deep": [{"password": [MASK]}],
        "x": MASK,
    }
    assert http["query"] == {"sig": MASK, "key": MASK, "tenant": "t"}
    assert http["headers"] == {
        "Authorization": MASK,
        "Accept": "application/json",
        "X-Plain": MASK,
    }
    assert tree["credentials"]["u"]["json"] == {
        "passcode": MASK,
        "otp": MASK,
        "sid": [MASK],
        "\u5bc6\u7801": MASK,
        "on": True,
        "code": MASK,
        "late": f"{MASK}${{now}}",
        "other": "Bearer ${credential:s}",
    }
    assert http["basic"] == ["id", MASK]
    assert http["token"] == "data.token"
    assert http["expires"] == [{"path": "data.at", "as": "epoch"}]
    assert tree["credentials"]["o"]["params"] == {"grant": "g", "assertion": MASK, "user": MASK}
    command = tree["credentials"]["x"]["command"]
    assert command[0].endswith("/sh")
    assert command[1:] == ["-c", MASK, "--secret", MASK, MASK, "-p", MASK, MASK]
    assert tree["credentials"]["x"]["env"] == {"PLAIN": MASK, "LANG": "C"}
    assert tree["credentials"]["j"]["claims"] == {"api_key": MASK, "scope": "llm"}
    assert tree["credentials"]["j"]["headers"] == {"x": MASK, "typ": "JWT"}
    assert tree["chat"]["options"] == {"temperature": 1.2, "x": MASK}
    assert tree["chat"]["tools"] == [{"type": "web_search", "key": MASK}]
    assert tree["credentials"]["s"]["inject"] == {"query": "q", "template": "{token}"}
    assert tree["gateway"] == {"token_ttl": 300, "word_delay": 0.1, "app_id": "demo", "app_secret": MASK}
    assert tree["logs"]["bodies"] is False


def test_names_and_texts_are_quoted_where_toml_wants_it(load: Load) -> None:
    text = MINIMAL + '[upstreams."a.b \\"c"]\nbase_url = "https://x.example"\n[routes]\ndefault = "chat"\n'

    tree = tomllib.loads(describe(load(text + '[gateway]\napp_id = "\\\\ \\" é 密"\n')))

    assert tree["upstreams"]['a.b "c']["base_url"] == "https://x.example"
    assert tree["gateway"]["app_id"] == '\\ " é 密'


def test_output_without_secrets_loads_again(load: Load) -> None:
    settings = load(
        MINIMAL
        + "[routes]\ndefault = 'chat'\nmodels = 'chat'\nrerank = { chat = 3 }\n[limits]\nbody_timeout = 1.5\n"
        + "[upstreams.b]\nbase_url = 'http://b.test'\nfallback = 'chat'\nbreaker = { failures = 2 }\n"
        + "renames = { 'gpt-*' = 'x' }\n[upstreams.b.retries]\nattempts = 2\n"
    )

    assert load(describe(settings)) == settings


FIXED_NAMES = {"credentials", "endpoints", "renames", "upstreams"}
"""Tables whose keys and values are names of the user, which are neither sent nor secret."""


def test_every_table_with_keys_of_the_users_is_masked_unless_its_values_are_names() -> None:
    open_tables = {
        field.alias or name
        for section in sections(Settings)
        for name, field in section.model_fields.items()
        if "Mapping[" in str(field.annotation) or "Json" in str(field.annotation)
    }

    assert open_tables - {"default", "upstream"} == FREE_TABLES | FIXED_NAMES


def sections(model: type[Section]) -> Iterator[type[Section]]:
    """Yield the model and every section below it."""
    found, waiting = set[type[Section]](), [model]
    while waiting:
        section = waiting.pop()
        if section not in found:
            found.add(section)
            yield section
            for field in section.model_fields.values():
                waiting += sections_in(field.annotation)


def sections_in(annotation: object) -> Iterator[type[Section]]:
    """Yield the sections in an annotation, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)

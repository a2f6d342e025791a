"""Showing the settings: everything is there, and no secret is."""

import tomllib

from proxy.secret import MASK
from proxy.settings import describe
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
base_url = "https://llm.example/v1"
credential = "h"
headers = { X-App = "ragflow", X-Tenant = "${env:TENANT}", X-Api-Key = "SECRET" }
proxy = "http://SECRET:SECRET@proxy.example:3128"
[credentials.h]
source = "http"
url = "https://auth.example/token?a=SECRET&b=SECRET"
json = { id = "plain", n = 1, appSecret = "SECRET", deep = [{ password = ["SECRET"] }], x = "<${env:VALUE}>" }
query = { key = "SECRET", tenant = "t" }
headers = { Authorization = "SECRET" }
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


def test_what_is_shown_reads_as_toml(load: Load) -> None:
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
    assert chat["headers"] == {"X-App": "ragflow", "X-Tenant": MASK, "X-Api-Key": MASK}
    assert chat["proxy"] == f"http://{MASK}@proxy.example:3128"
    assert chat["timeouts"] == {"connect": 5, "first_byte": 120, "idle": 60, "total": 0}
    http = tree["credentials"]["h"]
    assert http["url"] == f"https://auth.example/token?a={MASK}&b={MASK}"
    assert http["json"] == {
        "id": "plain",
        "n": 1,
        "appSecret": MASK,
        "deep": [{"password": [MASK]}],
        "x": MASK,
    }
    assert http["query"] == {"key": MASK, "tenant": "t"}
    assert http["basic"] == ["id", MASK]
    assert http["token"] == "data.token"
    assert http["expires"] == [{"path": "data.at", "as": "epoch"}]
    assert tree["credentials"]["o"]["params"] == {"grant": "g", "assertion": MASK, "user": MASK}
    assert tree["credentials"]["s"]["inject"] == {"query": "q", "template": "{token}"}
    assert tree["gateway"] == {"token_ttl": 300, "word_delay": 0.1, "app_id": "demo", "app_secret": MASK}
    assert tree["logs"]["bodies"] is False


def test_names_and_texts_are_quoted_where_toml_wants_it(load: Load) -> None:
    text = MINIMAL + '[upstreams."a.b \\"c"]\nbase_url = "https://x.example"\n[routes]\ndefault = "chat"\n'

    tree = tomllib.loads(describe(load(text + '[gateway]\napp_id = "\\\\ \\" é 密"\n')))

    assert tree["upstreams"]['a.b "c']["base_url"] == "https://x.example"
    assert tree["gateway"]["app_id"] == '\\ " é 密'


def test_what_is_shown_without_secrets_loads_again(load: Load) -> None:
    settings = load(
        MINIMAL
        + "[routes]\ndefault = 'chat'\nmodels = 'chat'\nrerank = { chat = 3 }\n[limits]\nbody_timeout = 1.5\n"
        + "[upstreams.b]\nbase_url = 'http://b.test'\nfallback = 'chat'\nbreaker = { failures = 2 }\n"
        + "renames = { 'gpt-*' = 'x' }\n[upstreams.b.retries]\nattempts = 2\n"
    )

    assert load(describe(settings)) == settings

"""Names that one section uses and another defines."""

import pytest

from proxy.wire.endpoints import ENDPOINT_NAMES
from tests.settings.conftest import Load, Problems

TWO = """\
[access]
mode = "open"
[upstreams.chat]
base_url = "https://llm.example/v1"
[upstreams.embed]
base_url = "https://embed.example/v1"
[routes]
"""


def test_a_sole_upstream_is_the_default(load: Load) -> None:
    settings = load(TWO.split("[upstreams.embed]", maxsplit=1)[0])

    assert (settings.routes.default, settings.routes.endpoints) == ("chat", {})


def test_every_known_endpoint_can_be_routed(load: Load) -> None:
    lines = "\n".join(f'"{endpoint}" = "embed"' for endpoint in ENDPOINT_NAMES)

    routes = load(f'{TWO}default = "chat"\n{lines}').routes

    assert routes.default == "chat"
    assert routes.endpoints == dict.fromkeys(ENDPOINT_NAMES, "embed")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", '7: routes.default: is required: one of "chat", "embed"'),
        ("default = 'chta'", '8: routes.default: is not the name of an upstream, did you mean "chat"?'),
        ("default = 'x'", '8: routes.default: is not the name of an upstream, known: "chat", "embed"'),
        (
            "default = 1",
            "8: routes.default: must be the name of an upstream, or a table of several with their weights",
        ),
        (
            "default = 'chat'\nrerank = 'embd'",
            '9: routes.rerank: is not the name of an upstream, did you mean "embed"?',
        ),
        (
            "default = 'chat'\nrerank = 1",
            "9: routes.rerank: must be the name of an upstream, or a table of several with their weights",
        ),
        (
            "default = 'chat'\nembedding = 'chat'",
            '9: routes.embedding: unknown key or endpoint, did you mean "embeddings"?',
        ),
        (
            "default = 'chat'\nmodel = 'chat'",
            '9: routes.model: unknown key or endpoint, did you mean "models"?',
        ),
        ("defualt = 'chat'", '8: routes.defualt: unknown key or endpoint, did you mean "default"?'),
    ],
)
def test_a_route_to_an_unknown_upstream_is_reported(problems: Problems, line: str, told: str) -> None:
    assert f"x.toml:{told}" in problems(TWO + line)


def test_a_credential_must_exist(problems: Problems) -> None:
    text = TWO + 'default = "chat"\n[credentials.corp]\nsource = "static"\nvalue = "v"\n'

    assert problems(text.replace("[upstreams.embed]", 'credential = "crop"\n[upstreams.embed]')) == [
        'x.toml:5: upstreams.chat.credential: is not the name of a credential, did you mean "corp"?'
    ]


def test_an_embedded_url_needs_the_gateway(load: Load, problems: Problems) -> None:
    text = """\
access.mode = "open"
[upstreams.chat]
base_url = "embedded:/v1"
[credentials.a]
source = "http"
url = "embedded:/token"
token = "t"
[credentials.b]
source = "oauth2"
token_url = "embedded:/oauth2/token"
client_id = "id"
client_secret = "s"
"""

    assert load(text + "[gateway]").gateway is not None
    assert problems(text) == [
        "x.toml:3: upstreams.chat.base_url: an embedded: URL needs a [gateway] section",
        "x.toml:6: credentials.a.url: an embedded: URL needs a [gateway] section",
        "x.toml:10: credentials.b.token_url: an embedded: URL needs a [gateway] section",
    ]


def test_at_least_one_upstream(problems: Problems) -> None:
    told = "upstreams: is required: add [upstreams.NAME] with a base_url"

    assert problems('access.mode = "open"') == [f"x.toml: {told}"]
    assert problems('access.mode = "open"\n[upstreams]') == [f"x.toml:2: {told}"]
    assert problems('access.mode = "open"\nroutes.default = "chat"') == [f"x.toml: {told}"]


MODELS = """default = "chat"
[[routes.models]]
match = "bge-*"
upstream = "embed"
rename = "bge-m3-corp"
"""


def test_routes_of_models_combine_with_those_of_endpoints(load: Load) -> None:
    routes = load(TWO + 'embeddings = "embed"\n' + MODELS).routes
    (route,) = routes.models
    assert (route.match, route.upstream, route.rename) == ("bge-*", "embed", "bge-m3-corp")
    assert routes.endpoints == {"embeddings": "embed"}


def test_the_endpoint_of_models_may_be_routed_like_any_other(load: Load) -> None:
    routes = load(TWO + 'default = "chat"\nmodels = "embed"').routes
    assert (routes.endpoints, routes.models) == ({"models": "embed"}, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ('upstream = "embed"', 'upstream = "embd"'),
            'upstream: is not the name of an upstream, did you mean "embed"?',
        ),
        (('upstream = "embed"', ""), "upstream: is required"),
        (('match = "bge-*"', ""), "match: is required"),
        (("rename", "renaem"), 'renaem: unknown key, did you mean "rename"?'),
    ],
)
def test_a_model_route_to_an_unknown_upstream_is_reported(
    problems: Problems, change: tuple[str, str], words: str
) -> None:
    (told,) = problems(TWO + MODELS.replace(*change))
    assert f"routes.models.0.{words}" in told


CREDENTIAL = """\
access.mode = "open"
[upstreams.chat]
base_url = "https://llm.example/v1"
credential = "corp"
headers = {{ {header} = "x" }}
[credentials.corp]
source = "static"
value = "t-0123456789"
{inject}
"""


@pytest.mark.parametrize(
    ("header", "inject"),
    [
        ("authorization", ""),
        ("Authorization", 'inject.template = "{token}"'),
        ("X_Token", 'inject.header = "X-Token"'),
    ],
)
def test_a_header_that_the_token_overwrites_is_reported(problems: Problems, header: str, inject: str) -> None:
    (told,) = problems(CREDENTIAL.format(header=header, inject=inject))
    assert f"upstreams.chat.headers.{header}: is overwritten by the token of the credential corp" in told


@pytest.mark.parametrize("inject", ['inject.header = "X-Token"', 'inject.query = "access_token"'])
def test_a_header_beside_the_token_is_accepted(load: Load, inject: str) -> None:
    settings = load(CREDENTIAL.format(header="Authorization", inject=inject))
    assert settings.upstreams["chat"].headers == {"Authorization": "x"}

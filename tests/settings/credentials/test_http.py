"""`[credentials.NAME]`: the three basic sources, and keys that none of them accepts."""

from typing import get_args

import pytest

from proxy.secret import Secret
from proxy.settings import (
    CredentialSettings,
    Expiry,
    HttpCredential,
    Inject,
    Invalidation,
    OAuth2Credential,
    StaticCredential,
    Success,
)
from tests.settings.conftest import MINIMAL, Load, Problems

HTTP = 'source = "http"\nurl = "https://auth.example/token"\n'
RECIPE = HTTP + 'token = "t"\n'
STATIC = 'source = "static"\nvalue = "sk-1"\n'
OAUTH2 = (
    'source = "oauth2"\ntoken_url = "https://auth.example/token"\nclient_id = "id"\nclient_secret = "s"\n'
)
SOURCES = [
    f'"{get_args(kind.model_fields["source"].annotation)[0]}"'
    for kind in get_args(get_args(CredentialSettings)[0])
]
FIRST_LINE = MINIMAL.count("\n") + 2


def credential(load: Load, text: str, **environ: str) -> CredentialSettings:
    return load(f"{MINIMAL}[credentials.corp]\n{text}", environ).credentials["corp"]


def http(load: Load, text: str, **environ: str) -> HttpCredential:
    loaded = credential(load, RECIPE + text, **environ)
    assert isinstance(loaded, HttpCredential)
    return loaded


def test_a_static_token_with_every_default(load: Load) -> None:
    loaded = credential(load, STATIC)

    assert isinstance(loaded, StaticCredential)
    assert loaded.value == Secret("sk-1")
    assert loaded.inject == Inject(header="Authorization", template="Bearer {token}")
    assert (loaded.default_ttl, loaded.timeout) == (300, 10)
    assert loaded.invalidate_on == (Invalidation(status=401),)
    assert (loaded.reissue, loaded.sharing) == ("independent", "local")


def test_client_credentials(load: Load) -> None:
    loaded = credential(
        load, OAUTH2 + 'scope = "a b"\naudience = "c"\nauth = "post"\nparams = { resource = "r" }\n'
    )

    assert isinstance(loaded, OAuth2Credential)
    assert loaded.token_url == "https://auth.example/token"
    assert (loaded.client_id, loaded.client_secret) == ("id", Secret("s"))
    assert (loaded.scope, loaded.audience, loaded.auth) == ("a b", "c", "post")
    assert loaded.params == {"resource": "r"}


def test_a_recipe_with_every_default(load: Load) -> None:
    loaded = http(load, "")

    assert (loaded.url, loaded.method) == ("https://auth.example/token", "POST")
    assert (loaded.json_body, loaded.form, loaded.basic) == (None, None, None)
    assert (loaded.query, loaded.headers, loaded.expires) == ({}, {}, ())
    assert (loaded.success, loaded.token, loaded.token_header) == (None, "t", None)
    assert loaded.max_ttl == 31 * 24 * 3600


def test_a_whole_recipe(load: Load) -> None:
    loaded = http(
        load,
        """\
method = "put"
json = { id = "a", key = "${env:KEY}", n = [1, 2.5, true, { deep = "x-${env:KEY}" }] }
query = { q = "1", k = "${env:KEY}" }
headers = { x-a = "b", x-k = "${env:KEY}" }
basic = ["id", "literal"]
success = { path = "code", equals = 0 }
expires = [{ path = "data.at", as = "epoch_ms" }, { path = "in", as = "seconds" }]
""",
        KEY="s3cr3t",
    )

    assert loaded.method == "PUT"
    assert loaded.json_body == {
        "id": "a",
        "key": Secret("s3cr3t"),
        "n": (1, 2.5, True, {"deep": Secret("x-s3cr3t")}),
    }
    assert loaded.query == {"q": "1", "k": Secret("s3cr3t")}
    assert loaded.headers == {"x-a": "b", "x-k": Secret("s3cr3t")}
    assert loaded.basic == ("id", Secret("literal"))
    assert loaded.success == Success(path="code", equals=0)
    assert [(expiry.path, expiry.unit) for expiry in loaded.expires] == [
        ("data.at", "epoch_ms"),
        ("in", "seconds"),
    ]
    assert all(isinstance(expiry, Expiry) for expiry in loaded.expires)
    assert "s3cr3t" not in repr(loaded)


def test_a_form_instead_of_json(load: Load) -> None:
    loaded = http(load, 'form = { a = "b", c = "${env:C}" }\nbasic = ["${env:C}", "${env:C}"]\n', C="d")

    assert loaded.form == {"a": "b", "c": Secret("d")}
    assert loaded.basic == (Secret("d"), Secret("d"))


@pytest.mark.parametrize("value", ["0", '"0"', "true", "0.5"])
def test_success_keeps_the_type_of_its_value(load: Load, value: str) -> None:
    success = http(load, f'success = {{ path = "code", equals = {value} }}').success

    assert success is not None
    assert repr(success.equals) == value.replace('"', "'").replace("true", "True")


def test_a_recipe_may_take_its_strings_from_overrides(load: Load) -> None:
    loaded = http(load, 'json = { appSecret = "x" }', PROXY__CREDENTIALS__CORP__JSON__APPSECRET="s3cr3t")

    assert loaded.json_body == {"appSecret": Secret("s3cr3t")}


@pytest.mark.parametrize(
    ("inject", "resolved"),
    [
        ("{}", ("Authorization", None, "Bearer {token}")),
        ('{ template = "{token}" }', ("Authorization", None, "{token}")),
        ('{ header = "X-Key" }', ("X-Key", None, "Bearer {token}")),
        ('{ query = "access_token" }', (None, "access_token", "{token}")),
        ('{ query = "key", template = "v1:{token}" }', (None, "key", "v1:{token}")),
    ],
)
def test_a_token_is_sent_in_a_header_or_the_query(
    load: Load, inject: str, resolved: tuple[str | None, str | None, str]
) -> None:
    loaded = credential(load, f"{STATIC}inject = {inject}").inject

    assert (loaded.header, loaded.query, loaded.template) == resolved


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", f"-1 source: is required: {', '.join(SOURCES[:-1])} or {SOURCES[-1]}"),
        ('source = "htp"', f"0 source: must be one of {', '.join(SOURCES)}"),
        ("source = 1", f"0 source: must be one of {', '.join(SOURCES)}"),
        (
            'source = "static"',
            "-1 value: is required: the token itself, or file with the path of a file that contains it",
        ),
        (STATIC + 'file = "x.toml"', "2 file: cannot be combined with value: give only one of them"),
        (
            'source = "static"\nfile = "missing"',
            "1 file: the file cannot be read: No such file or directory",
        ),
        ('source = "static"\nvalue = ""', "1 value: is empty"),
        (
            'source = "static"\nvalue = "your-key"',
            '1 value: is a placeholder ("my key" or "your key"): replace it with the real key',
        ),
        (
            STATIC + 'clientid = "x"',
            '2 clientid: unknown key, known: "default_ttl", "file", "inject", "invalidate_on", '
            '"reissue", "sharing", "source", "timeout", "value"',
        ),
        (STATIC + "default_ttl = 0", "2 default_ttl: must be greater than 0"),
        (STATIC + "timeout = nan", "2 timeout: must be greater than 0"),
        (STATIC + 'sharing = "fleet"', '2 sharing: must be "local", "redis" or "redis_required"'),
        (
            STATIC + 'sharing = "redis"',
            "2 sharing: cannot be shared: each process reads this token for itself",
        ),
        (OAUTH2 + 'sharing = "redis"', "4 sharing: needs a [shared] section with a redis_url"),
        (OAUTH2 + "invalidate_on = [{}]", "4 invalidate_on.0.status: is required"),
        (
            OAUTH2 + "invalidate_on = [{ status = 99 }]",
            "4 invalidate_on.0.status: must be at least 200",
        ),
        (
            OAUTH2 + "invalidate_on = [{ status = 200 }]",
            "4 invalidate_on.0.status: would match every response: restrict it with path and in",
        ),
        (
            OAUTH2 + 'invalidate_on = [{ status = 200, path = "error_code" }]',
            "4 invalidate_on.0.in: is required with path: the values that mean a rejection",
        ),
        (
            OAUTH2 + "invalidate_on = [{ status = 200, in = [110] }]",
            "4 invalidate_on.0.path: is required with in: where the body holds the value",
        ),
        (
            STATIC + 'inject = { header = "Host" }',
            "2 inject.header: controls the connection and cannot carry a token",
        ),
        (
            STATIC + 'reissue = "x"',
            '2 reissue: must be "independent", "same_until_near_expiry" or "revokes_previous"',
        ),
        (
            STATIC + 'inject = { header = "a", query = "b" }',
            "2 inject.query: cannot be combined with header: give only one of them",
        ),
        (STATIC + 'inject = { header = "a b" }', "2 inject.header: is not a valid header name"),
        (STATIC + 'inject = { template = "Bearer" }', "2 inject.template: must contain {token}"),
        (
            STATIC + 'inject = { template = "{token}\\n" }',
            "2 inject.template: has characters that an HTTP header cannot carry "
            "(control characters, or outside Latin-1)",
        ),
        (STATIC + 'inject = "Bearer"', "2 inject: must be a table"),
        (OAUTH2 + "client_ids = 1", '4 client_ids: unknown key, did you mean "client_id"?'),
        (
            OAUTH2 + 'auth = "mtls"',
            '4 auth: must be "basic", "post", "client_secret_jwt", "private_key_jwt" or "none"',
        ),
        (OAUTH2 + "params = { a = 1 }", "4 params.a: must be a string"),
        (HTTP, '-1 token: is required: the path of the token in the reply, such as "data.token"'),
        (
            HTTP + 'token = "a"\ntoken_header = "b"',
            "3 token_header: cannot be combined with token: give only one of them",
        ),
        (HTTP + 'token = "a..b"', '2 token: must be a path into the reply, such as "data.token"'),
        (RECIPE + "json = {}\nform = {}", "4 form: cannot be combined with json: give only one of them"),
        (
            RECIPE + "json = { a = [1979-05-27] }",
            "3 json.a.0: cannot be represented in JSON: write it as a string",
        ),
        (RECIPE + "json = [nan]", "3 json.0: must be a finite number"),
        (RECIPE + "form = { a = 1 }", "3 form.a: must be a string"),
        (
            RECIPE + 'headers = { a = "\\n" }',
            "3 headers.a: has characters that an HTTP header cannot carry "
            "(control characters, or outside Latin-1)",
        ),
        (RECIPE + 'basic = ["id"]', '3 basic: must be a pair: ["id", "secret"]'),
        (RECIPE + 'basic = ["id", 1]', "3 basic.1: must be a string"),
        (
            RECIPE + 'success = { path = "a", equals = [] }',
            "3 success.equals: must be a single string, number, true or false",
        ),
        (
            RECIPE + 'expires = { path = "a", as = "jwt" }',
            "3 expires: must be an array: put it in square brackets; the header of an array of tables has "
            "double ones, such as [[access.keys]]",
        ),
        (
            RECIPE + 'expires = [{ path = "a", as = "s" }]',
            '3 expires.0.as: must be "seconds", "milliseconds", "epoch", "epoch_ms", "iso8601" or "jwt"',
        ),
        (RECIPE + 'expires = [{ path = "a", unit = "s" }]', "3 expires.0.as: is required"),
        (RECIPE + 'expires = [{ as = "seconds" }]', "3 expires.0.path: is required"),
        (
            RECIPE + 'expires = [{ path = "a", as = "epoch", offset = "+08:00" }]',
            '3 expires.0.offset: is only used with as = "iso8601"',
        ),
        *(
            (
                RECIPE + f'expires = [{{ path = "a", as = "iso8601", offset = "{offset}" }}]',
                '3 expires.0.offset: must be an offset from UTC, such as "+08:00" or "+00:00"',
            )
            for offset in ("8", "+8:00", "+25:00", "CST", "+08:60")
        ),
        (RECIPE + 'method = "HEAD"', '3 method: must be "GET", "POST", "PUT" or "PATCH"'),
        (RECIPE + "method = 1", '3 method: must be "GET", "POST", "PUT" or "PATCH"'),
        (RECIPE + "max_ttl = -1", "3 max_ttl: must be greater than 0"),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, text: str, told: str) -> None:
    line, words = told.split(" ", 1)

    assert problems(f"{MINIMAL}[credentials.corp]\n{text}")[0] == (
        f"x.toml:{FIRST_LINE + int(line)}: credentials.corp.{words}"
    )

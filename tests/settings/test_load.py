"""Loading a file: the result is the settings, or all problems at once."""

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.errors import SettingsError
from proxy.settings import load_settings
from tests.settings.conftest import MINIMAL, Load, Problems
from tests.signing_keys import certificate_pem

TORN = """\
colour = "${env:NO}"
[access]
mode = "kees"
[[access.keys]]
name = "a"
kee = "x"
[routes]
"chat/completion" = "two"
[upstreams.chat]
base_ur = "https://llm.example"
credential = "crop"
[upstreams."a b"]
base_url = "${file:absent}"
[credentials.corp]
source = "static"
value = "${env:NO}"
default_ttl = 0
[limits]
max_body_bytes = "lots"
"""


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    assert problems(TORN, {"PROXY__LOGS__LEVL": "info"}) == [
        'environment PROXY__LOGS__LEVL: logs.levl: unknown key, did you mean "level"?',
        "x.toml:1: colour: the environment variable NO is not set and has no default",
        'x.toml:3: access.mode: must be "keys" or "open"',
        'x.toml:6: access.keys.0.kee: unknown key, did you mean "key"?',
        'x.toml:7: routes.default: is required: one of "a b", "chat"',
        'x.toml:8: routes."chat/completion": unknown key or endpoint, did you mean "chat/completions"?',
        "x.toml:9: upstreams.chat.base_url: is required",
        'x.toml:10: upstreams.chat.base_ur: unknown key, did you mean "base_url"?',
        'x.toml:11: upstreams.chat.credential: is not the name of a credential, did you mean "corp"?',
        'x.toml:13: upstreams."a b".base_url: the file absent cannot be read: No such file or directory',
        "x.toml:16: credentials.corp.value: the environment variable NO is not set and has no default",
        "x.toml:17: credentials.corp.default_ttl: must be greater than 0",
        "x.toml:19: limits.max_body_bytes: must be a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "",
            "x.toml: access.keys: no caller would be accepted: add [[access.keys]] with name and key, "
            'or set mode = "open"',
        ),
        ("", "x.toml: upstreams: is required: add [upstreams.NAME] with a base_url"),
        ("upstreams = 1", "x.toml:1: upstreams: must be a table"),
        ("[upstreams]\nchat = 'https://x'", "x.toml:2: upstreams.chat: must be a table"),
        (
            "[access.keys]\nname = 'a'",
            "x.toml:1: access.keys: must be an array: put it in square brackets; the header of an array of "
            "tables has double ones, such as [[access.keys]]",
        ),
        ("routes = []", "x.toml:1: routes: must be a table"),
        ("[credentials]\na = 1", "x.toml:2: credentials.a: must be a table"),
        ("[upstreams.'']", 'x.toml:1: upstreams."": must be a name: printable, without spaces around it'),
    ],
)
def test_a_wrong_shape_is_reported(problems: Problems, text: str, told: str) -> None:
    assert told in problems(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\n\nb =\n", "x.toml:3: not valid TOML: Invalid value"),
        ("a = 1\na = 2\n", "x.toml:2: not valid TOML: Cannot overwrite a value"),
        ("[a]\n[b]\n[a]\n", "x.toml:3: not valid TOML: Cannot declare ('a',) twice"),
        ("a = '''\n\n", "x.toml:3: not valid TOML: Expected"),
        ("a = " + "[" * 5000, "x.toml: not valid TOML: nested too deeply"),
    ],
)
def test_a_syntax_error_has_its_line(problems: Problems, text: str, told: str) -> None:
    (problem,) = problems(text)

    assert problem.startswith(told)


def test_an_unreadable_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")

    with pytest.raises(SettingsError, match=r"^config/x.toml: cannot be read: No such file or directory; "):
        load_settings(Path("config/x.toml"), {})
    with pytest.raises(SettingsError, match=r"^latin.toml:2: is not valid UTF-8: save "):
        load_settings(Path("latin.toml"), {})


def test_files_of_windows_load(load: Load) -> None:
    text = "\ufeff" + MINIMAL.replace("\n", "\r\n")

    assert load(text).upstreams["chat"].base_url == "https://llm.example/v1"


def test_windows_line_ends_give_the_same_line_numbers(problems: Problems) -> None:
    assert problems(MINIMAL.replace("\n", "\r\n") + "x = 1") == [
        'x.toml:5: upstreams.chat.x: unknown key, known: "base_url", "breaker", "ca_file", "credential", '
        '"fallback", "fallback_statuses", "forward_openai_account", "headers", "heartbeat", '
        '"max_connections", "proxy", "renames", "repairs", "retries", "timeouts"'
    ]


def test_relative_files_start_from_the_folder_of_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "url").write_text("https://llm.example/v2\n")
    (folder / "ca.pem").write_text(certificate_pem("p256"))
    (folder / "x.toml").write_text(
        '[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "${file:url}"\nca_file = "ca.pem"\n'
    )

    upstream = load_settings(folder / "x.toml", {}).upstreams["chat"]

    assert upstream.base_url == "https://llm.example/v2"
    assert upstream.ca_file == folder / "ca.pem"


def test_strings_become_numbers(load: Load) -> None:
    text = MINIMAL + 'max_connections = "${env:MANY:-7}"\ntimeouts = { idle = "${env:IDLE}" }\n'

    upstream = load(text, {"IDLE": "0.5"}).upstreams["chat"]

    assert (upstream.max_connections, upstream.timeouts.idle) == (7, 0.5)


def test_an_empty_secret_is_rejected(problems: Problems) -> None:
    text = (
        MINIMAL
        + """\
[[access.keys]]
name = "a"
key = "${env:EMPTY}"
[credentials.a]
source = "static"
value = "${env:EMPTY}"
[credentials.b]
source = "http"
url = "https://auth.example"
token = "t"
json = { a = [{ b = "${env:EMPTY}" }], c = "${env:EMPTY}", d = "" }
query = { q = "${env:EMPTY}" }
headers = { h = "${env:EMPTY}" }
basic = ["id", "${env:EMPTY}"]
[credentials.c]
source = "oauth2"
token_url = "https://auth.example"
client_id = "id"
client_secret = "${file:empty}"
"""
    )
    Path("empty").write_text("\n")

    assert [problem.rsplit(": ", 1)[0] for problem in problems(text, {"EMPTY": ""})] == [
        "x.toml:7: access.keys.0.key",
        "x.toml:10: credentials.a.value",
        "x.toml:15: credentials.b.json.a.0.b",
        "x.toml:15: credentials.b.json.c",
        "x.toml:16: credentials.b.query.q",
        "x.toml:17: credentials.b.headers.h",
        "x.toml:18: credentials.b.basic.1",
        "x.toml:23: credentials.c.client_secret",
    ]


def test_settings_cannot_be_changed(load: Load) -> None:
    settings = load(MINIMAL + "[routes]\nembeddings = 'chat'\n")

    with pytest.raises(ValidationError):
        settings.logs.level = "debug"  # type: ignore[misc]
    tables = (
        settings.upstreams,
        settings.credentials,
        settings.routes.endpoints,
        settings.upstreams["chat"].headers,
    )
    assert {type(table) for table in tables} == {MappingProxyType}


def test_the_same_text_makes_equal_settings(load: Load) -> None:
    text = MINIMAL + "[[access.keys]]\nname = 'a'\nkey = '${env:K}'\n"

    assert load(text, {"K": "one"}) == load(text, {"K": "one"})
    assert load(text, {"K": "one"}) != load(text, {"K": "two"})


SECRET_PLACES = """\
[access]
keys = [{ name = "a", key = VALUE }, { name = "b", sha256 = VALUE }, { name = VALUE, key = "k" }, VALUE]
mode = VALUE
[routes]
default = VALUE
embeddings = VALUE
[upstreams.a]
base_url = VALUE
credential = VALUE
proxy = VALUE
ca_file = VALUE
max_connections = VALUE
timeouts = VALUE
headers = { "x" = VALUE, "y" = [VALUE] }
[credentials.s]
source = "static"
value = [VALUE]
inject = { header = VALUE, template = VALUE }
[credentials.h]
source = "http"
url = VALUE
method = VALUE
json = { a = 1979-05-27, b = VALUE }
form = [VALUE]
query = VALUE
headers = { "a b" = VALUE, b = VALUE }
basic = [VALUE]
success = { path = VALUE, equals = [VALUE] }
token = VALUE
token_header = VALUE
expires = [{ path = VALUE, as = VALUE }]
default_ttl = VALUE
sharing = VALUE
[credentials.o]
source = "oauth2"
token_url = VALUE
client_secret = { x = VALUE }
params = { a = [VALUE] }
[credentials.u]
source = VALUE
[limits]
max_body_bytes = VALUE
[logs]
bodies = VALUE
[gateway]
word_delay = VALUE
app_secret = { x = VALUE }
"""


@pytest.mark.parametrize(
    "mangling", ["{}", " {}\n", "http://{}@x y", "https://u:{}@h", "embedded:{}", "{}\u2026"]
)
@pytest.mark.parametrize("given_by", ["file", "environment"])
def test_no_problem_repeats_a_value(problems: Problems, mangling: str, given_by: str) -> None:
    value = mangling.format("s3cr3t")
    written = json.dumps(value if given_by == "file" else "${env:VALUE}")

    found = problems(SECRET_PLACES.replace("VALUE", written), {"VALUE": value})

    assert len(found) > 25
    assert not [problem for problem in found if "s3cr3t" in problem]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=3), below, max_size=2),
    max_leaves=4,
)


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["access", "routes", "upstreams", "credentials", "limits", "gateway"]), trees
    )
)
def test_invalid_sections_raise_only_settings_errors(
    sections: dict[str, object],
) -> None:
    environ = {f"PROXY__{name.upper()}": json.dumps(tree) for name, tree in sections.items()}

    with pytest.raises(SettingsError):
        load_settings(Path("/dev/null"), environ)

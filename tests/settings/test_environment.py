"""`PROXY__SECTION__KEY` overrides the file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.settings.environment import apply_overrides
from proxy.settings.interpolation import Interpolated
from proxy.settings.locations import Place
from proxy.settings.section import FREE_TABLES, KeyPath
from tests.settings.conftest import MINIMAL, Load, Problems


def overridden(tree: dict[str, object], **variables: str) -> dict[str, object]:
    assert (
        apply_overrides(
            tree, {(): Place("x.toml")}, {f"PROXY__{key}": text for key, text in variables.items()}
        )
        == []
    )
    return tree


def test_a_variable_overrides_the_file(load: Load) -> None:
    text = MINIMAL + "[gateway]\ntoken_ttl = 300\n"
    environ = {
        "PROXY__GATEWAY__TOKEN_TTL": "2",
        "PROXY__UPSTREAMS__CHAT__BASE_URL": "http://elsewhere.example",
        "PROXY__UPSTREAMS__CHAT__TIMEOUTS__IDLE": "1.5",
        "PROXY__LOGS__BODIES": "true",
        "PROXY_CONFIG": "of no concern",
    }

    settings = load(text, environ)

    assert settings.gateway is not None
    assert settings.gateway.token_ttl == 2
    assert settings.upstreams["chat"].base_url == "http://elsewhere.example"
    assert settings.upstreams["chat"].timeouts.idle == 1.5
    assert settings.logs.bodies is True


def test_the_environment_alone_can_create_a_section(load: Load) -> None:
    environ = {
        "PROXY__ACCESS__MODE": "keys",
        "PROXY__ACCESS__KEYS__0__NAME": "a",
        "PROXY__ACCESS__KEYS__0__KEY": "b",
    }

    assert [key.name for key in load(MINIMAL, environ).access.keys] == ["a"]


@pytest.mark.parametrize(
    "text",
    ['[{name = "a", key = "b"}]', '[{"name": "a", "key": "b"}]', ' [ { name = "a", key = "${env:KEY}" } ] '],
)
def test_a_list_may_be_toml_or_json(load: Load, text: str) -> None:
    environ = {"PROXY__ACCESS__KEYS": text, "KEY": "b"}
    written = (
        MINIMAL
        + '[[access.keys]]\nname = "of the file"\nkey = "k1"\n[[access.keys]]\nname = "2"\nkey = "k2"\n'
    )

    (key,) = load(written, environ).access.keys

    assert key.name == "a"
    assert key.key is not None
    assert key.key.reveal() == "b"


def test_an_index_reaches_into_a_list_and_the_next_one_appends() -> None:
    tree = overridden({"list": [{"a": "0"}]}, LIST__0__A="x", LIST__1__A="y", LIST__0__B="z")

    assert tree == {"list": [{"a": "x", "b": "z"}, {"a": "y"}]}


def test_indexes_count_as_numbers_and_a_whole_list_comes_first() -> None:
    variables = {f"LIST__{index}": str(index) for index in range(12)}

    assert overridden({}, **variables) == {"list": [str(index) for index in range(12)]}
    assert overridden({}, LIST__0="x", LIST="['a', 'b']") == {"list": ["x", "b"]}


def test_a_key_is_found_whatever_its_case_and_punctuation() -> None:
    tree = overridden(
        {"json": {"appSecret": "a"}, "routes": {"chat/completions": "b"}, "upstreams": {"my-llm": {}}},
        JSON__APPSECRET="x",
        ROUTES__CHAT_COMPLETIONS="y",
        UPSTREAMS__MY_LLM__BASE_URL="z",
    )

    assert tree == {
        "json": {"appSecret": "x"},
        "routes": {"chat/completions": "y"},
        "upstreams": {"my-llm": {"base_url": "z"}},
    }


def test_strings_from_the_environment_are_marked() -> None:
    tree = overridden({}, A="x", B='["y", {z = "w", n = 1}]')

    assert isinstance(tree["a"], Interpolated)
    assert repr(tree["b"]) == "['y', {'z': 'w', 'n': 1}]"
    assert isinstance(tree["b"], list)
    assert isinstance(tree["b"][0], Interpolated)
    assert isinstance(tree["b"][1]["z"], Interpolated)


@pytest.mark.parametrize("text", ["{token}", "[half", "{}}", "[1]\nother = 2", "plain", "", "3", "true"])
def test_any_other_value_is_a_string(text: str) -> None:
    assert overridden({}, KEY=text) == {"key": text}


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("PROXY__LOGS__LEVL", 'logs.levl: unknown key, did you mean "level"?'),
        ("PROXY__LOG__LEVEL", 'log: unknown key, did you mean "logs"?'),
        (
            "PROXY__UPSTREAMS__CHAT__BASE_URL__X",
            "upstreams.chat.base_url.x: is below a single value, which is not a table",
        ),
        (
            "PROXY__ACCESS__KEYS__1__KEY",
            "access.keys.1.key: is an item of a list of 0: give an index from 0 to 0",
        ),
        ("PROXY____LEVEL", '"".level: names no key: write PROXY__SECTION__KEY'),
        ("PROXY__LOGS__", 'logs."": names no key: write PROXY__SECTION__KEY'),
        ("PROXY__LOGS__LEVEL", 'logs.level: must be "debug", "info", "warning" or "error"'),
    ],
)
def test_an_unknown_variable_is_named(problems: Problems, variable: str, told: str) -> None:
    text = MINIMAL.replace("[access]", "[access]\nkeys = []")

    assert problems(text, {variable: "loud"}) == [f"environment {variable}: {told}"]


def test_bytes_that_are_not_text_are_rejected(problems: Problems) -> None:
    assert problems(MINIMAL, {"PROXY__LOGS__LEVEL": "\udcff"}) == [
        "environment PROXY__LOGS__LEVEL: logs.level: is not valid UTF-8"
    ]


def test_a_key_that_a_variable_omits_is_reported_for_the_variable(problems: Problems) -> None:
    environ = {
        "PROXY__UPSTREAMS__CHAT": '{credential = "none"}',
        "PROXY__UPSTREAMS__NEW__MAX_CONNECTIONS": "1",
    }

    assert problems(MINIMAL + "[routes]\ndefault = 'chat'\n", environ) == [
        "environment PROXY__UPSTREAMS__CHAT: upstreams.chat.base_url: is required",
        "environment PROXY__UPSTREAMS__CHAT: upstreams.chat.credential: "
        "is not the name of a credential, there are none",
        "environment PROXY__UPSTREAMS__NEW__MAX_CONNECTIONS: upstreams.new.base_url: is required",
    ]


@settings(max_examples=30)
@given(st.dictionaries(st.text("ABC_019", min_size=1, max_size=9), st.text(max_size=6)))
def test_every_problem_is_reported_for_a_variable(variables: dict[str, str]) -> None:
    places: dict[KeyPath, Place] = {(): Place("x.toml")}
    environ = {f"PROXY__{name}": text for name, text in variables.items()}

    problems = apply_overrides({}, places, environ)

    assert {places[problem.path].source for problem in problems} <= {
        f"environment {name}" for name in environ
    }


@pytest.mark.parametrize(
    ("variable", "table", "expected"),
    [
        ("JSON__APPSECRET", {"json": {"appSecret": "old"}}, {"json": {"appSecret": "new"}}),
        ("JSON__appSecret", {"json": {"appId": "x"}}, {"json": {"appId": "x", "appSecret": "new"}}),
        ("JSON__user__passWord", {}, {"json": {"user": {"passWord": "new"}}}),
        ("FORM__client_id", {}, {"form": {"client_id": "new"}}),
        ("ENV__APP_SECRET", {}, {"env": {"APP_SECRET": "new"}}),
        ("HEADERS__X_KEY", {}, {"headers": {"x_key": "new"}}),
        ("TIMEOUT", {}, {"timeout": "new"}),
    ],
)
def test_a_new_key_of_a_free_table_is_spelled_as_in_the_variable(
    variable: str, table: dict[str, object], expected: dict[str, object]
) -> None:
    tree = overridden({"credentials": {"json": table}}, **{f"CREDENTIALS__JSON__{variable}": "new"})
    assert tree == {"credentials": {"json": expected}}


@pytest.mark.parametrize("table", sorted(FREE_TABLES - {"env", "headers"}))
def test_a_new_key_in_capitals_is_a_problem_where_its_spelling_is_sent(table: str) -> None:
    section = "CHAT" if table in {"options", "tools"} else "CREDENTIALS__CORP"
    variable = f"PROXY__{section}__{table.upper()}__APPSECRET"
    (problem,) = apply_overrides({}, {(): Place("x.toml")}, {variable: "s3cr3t"})
    assert f"does not show how {table} spells it" in problem.words
    assert "s3cr3t" not in problem.words

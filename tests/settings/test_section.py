"""The form in which problems are reported."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.settings.locations import Place, report
from proxy.settings.section import KeyPath, Problem, dotted, suggestion


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("upstreams", "chat", "base_url"), "upstreams.chat.base_url"),
        (("access", "keys", 0, "key"), "access.keys.0.key"),
        (("routes", "chat/completions"), 'routes."chat/completions"'),
        (("a b", 'c"', "d.e", ""), '"a b"."c\\""."d.e".""'),
    ],
)
def test_a_path_is_written_as_toml_does(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=3))
def test_a_path_of_names_reads_as_toml(names: list[str]) -> None:
    node: object = tomllib.loads(f"{dotted(tuple(names))} = 1")

    for name in names:
        assert isinstance(node, dict)
        node = node[name]
    assert node == 1


def test_problems_are_listed_once_in_the_order_of_the_file() -> None:
    places: dict[KeyPath, Place] = {
        (): Place("x.toml"),
        ("a",): Place("x.toml", 10),
        ("b",): Place("x.toml", 9),
        ("c",): Place("environment C"),
    }
    problems = [
        Problem(("a",), "one"),
        Problem(("b", "x"), "two"),
        Problem(("c",), "three"),
        Problem(("z",), "four"),
    ]

    assert report([*problems, *problems], places) == [
        "environment C: c: three",
        "x.toml: z: four",
        "x.toml:9: b.x: two",
        "x.toml:10: a: one",
    ]


def test_the_nearest_word_is_suggested_or_all_are_listed() -> None:
    assert suggestion("base_ur", ["base_url", "proxy"]) == 'did you mean "base_url"?'
    assert suggestion("zzz", ["b", "a"]) == 'known: "a", "b"'
    assert suggestion("zzz", []) == "there are none"

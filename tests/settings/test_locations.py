"""The line finder compared with tomllib: it finds the same keys in any valid text, each with its line."""

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.settings.locations import Place, key_lines, nearest
from proxy.settings.section import KeyPath


def paths_of(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


PARSED_SCALARS = [
    *("1", "-3.5e2", "true", "nan", "1979-05-27 07:32:00Z"),
    *('"a # b"', "'c]'", '"\\"}"', '"\\\\"', '""', "''"),
    *('"""\n[not.a.table]\nkey = 1\n"""', "'''\n[x]\n'''", '""""quoted""""', "''''q''''", '"""a\\"""b"""'),
]
KEYS = ["a", "b-1", "3", '"quoted key"', "'li.teral'", '"\\u00e9"', "a.b", 'a . "x"."y z"', "3.14"]

scalars = st.sampled_from(PARSED_SCALARS)
keys = st.sampled_from(KEYS)
blanks = st.sampled_from([" ", "", "\t"])
breaks = st.sampled_from(["", "\n", " # ] } comment\n", "\r\n"])


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.tuples(breaks, values, breaks).map("".join), max_size=3)
    return st.tuples(items, breaks).map(lambda pair: f"[{','.join(pair[0])}{pair[1]}]")


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(
        st.tuples(keys, blanks, values).map(lambda pair: f"{pair[0]}{pair[1]}= {pair[2]}"), max_size=3
    )
    return pairs.map(lambda texts: "{ " + ", ".join(texts) + " }")


values = st.recursive(scalars, lambda below: arrays(below) | inline_tables(below), max_leaves=6)
statements = st.one_of(
    st.tuples(blanks, keys, blanks, st.just("="), blanks, values).map("".join),
    st.tuples(st.just("["), blanks, keys, blanks, st.just("]")).map("".join),
    st.tuples(st.just("[["), blanks, keys, blanks, st.just("]] # c")).map("".join),
    st.sampled_from(["", "# a = 1", "  # [x]"]),
)
documents = st.lists(statements, max_size=8).map("\n".join)
fragments = st.sampled_from([*"[]{}=.,#\n ab1\"'\\", "[[", "]]", '"""', "'''", "a = "])
rubble = st.lists(fragments, max_size=14).map("".join)


@given(documents | rubble)
@example('a = """"\n"""\nb = 1')
@example("[[a]]\n[a.b]\n[[a]]\n[a.b]\nc = 1\n[[a.d]]\n[[a.d]]\n")
@example('"a\\"]" = [[1, [2]], {b = {c = [{d = 1}]}}]')
def test_finds_the_keys_that_tomllib_finds(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)

    assert set(lines) == set(paths_of(tree))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@given(
    st.lists(
        st.sampled_from(["# c", "", "x{} = 1", "[t{}]", "y{} = '''\n\n'''", "z{} = [\n1,\n]"]), max_size=9
    )
)
def test_a_key_is_on_its_own_line(templates: list[str]) -> None:
    text = "\n".join(template.format(index) for index, template in enumerate(templates))
    written = text.split("\n")

    for path, line in key_lines(text).items():
        name = [part for part in path if isinstance(part, str)][-1]
        if path[-1] == name:
            assert name in written[line - 1]


TEXT = """\
# a comment

[access]
mode = "keys"
[[access.keys]]
name = "a"
[[access.keys]]
name = "b"
key = '''
x'''
[upstreams."a.b"]
timeouts.connect = 1
headers = { x = "1", "y z" = "2" }
[credentials.c]
expires = [
    { path = "a", as = "jwt" },
    { path = "b" },
]
[upstreams]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("access",), 3),
        (("access", "mode"), 4),
        (("access", "keys"), 5),
        (("access", "keys", 0), 5),
        (("access", "keys", 1, "name"), 8),
        (("access", "keys", 1, "key"), 9),
        (("upstreams", "a.b", "timeouts", "connect"), 12),
        (("upstreams", "a.b", "timeouts"), 12),
        (("upstreams", "a.b", "headers", "y z"), 13),
        (("credentials", "c", "expires", 0, "as"), 16),
        (("credentials", "c", "expires", 1), 17),
        (("credentials",), 14),  # only implied: where it first shows
        (("upstreams",), 19),  # its own header, though implied before
    ],
)
def test_lines_count_from_one(path: KeyPath, line: int) -> None:
    assert key_lines(TEXT)[path] == line


def test_a_missing_key_is_reported_at_its_nearest_ancestor() -> None:
    places: dict[KeyPath, Place] = {
        (): Place("x.toml"),
        ("a",): Place("x.toml", 3),
        ("a", "b"): Place("environment PROXY__A__B"),
    }

    assert str(nearest(places, ("a", "c", 0, "d"))) == "x.toml:3"
    assert str(nearest(places, ("a", "b", "c"))) == "environment PROXY__A__B"
    assert str(nearest(places, ("z",))) == "x.toml"

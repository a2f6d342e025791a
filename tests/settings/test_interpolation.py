"""`${env:}`, `${file:}` and `$${`: what they yield, and what they reject."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.settings.interpolation import Interpolated, Interpolation

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
anything = st.text(max_size=8)
literals = anything.filter(lambda text: "$" not in text)
defaults = anything.filter(lambda text: "}" not in text)


def expand(text: str, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
    expanded = Interpolation(environ or {}, folder or Path()).text(text)
    assert isinstance(expanded, str)
    return expanded


@given(anything.filter(lambda text: "${" not in text))
def test_text_without_references_stays_as_it_is(text: str) -> None:
    expanded = expand(text)

    assert expanded == text
    assert not isinstance(expanded, Interpolated)


@given(anything)
def test_an_escaped_text_is_restored(text: str) -> None:
    assert expand(text.replace("${", "$${")) == text or "$${" in text


@settings(max_examples=30)
@given(st.lists(st.tuples(literals, names, anything.filter(bool)), max_size=4))
def test_every_reference_is_replaced_once(parts: list[tuple[str, str, str]]) -> None:
    environ = {name: value for _, name, value in parts}
    text = "".join(f"{literal}${{env:{name}}}" for literal, name, _ in parts)

    expanded = expand(text, environ)

    assert expanded == "".join(literal + environ[name] for literal, name, _ in parts)
    assert isinstance(expanded, Interpolated) is bool(parts)


@settings(max_examples=30)
@given(names, defaults)
def test_a_default_applies_to_unset_and_empty_variables(name: str, default: str) -> None:
    text = f"${{env:{name}:-{default}}}"

    assert expand(text) == default
    assert expand(text, {name: ""}) == default
    assert expand(text, {name: "set"}) == "set"


def test_resolved_values_are_not_expanded_again() -> None:
    assert expand("${env:A}", {"A": "${env:B}", "B": "b"}) == "${env:B}"


@pytest.mark.parametrize(
    ("content", "expanded"),
    [
        (b"s3cr", "s3cr"),
        (b"s3cr\n", "s3cr"),
        (b"s3cr\r\n", "s3cr"),
        (b"s3cr\n\n", "s3cr\n"),
        (b"s3cr\r", "s3cr\r"),
        (b"\xef\xbb\xbfs3cr", "s3cr"),
        (b"", ""),
    ],
)
def test_a_file_loses_one_newline(tmp_path: Path, content: bytes, expanded: str) -> None:
    (tmp_path / "secret").write_bytes(content)

    assert expand("<${file:secret}>", folder=tmp_path) == f"<{expanded}>"
    assert expand(f"<${{file:{tmp_path}/secret}}>") == f"<{expanded}>"


@pytest.mark.parametrize(
    "text", ["${HOME}", "${env:}", "${env:A B}", "${env:A", "${", "${file:}", "${env:A:default}"]
)
def test_a_malformed_reference_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid reference: write \$\{env:NAME\}"):
        expand(text, {"A": "a"})


def test_an_unresolvable_reference_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match="environment variable KEY is not set"):
        expand("${env:KEY}")
    with pytest.raises(ValueError, match="environment variable KEY is not valid UTF-8"):
        expand("${env:KEY}", {"KEY": "\udcff"})
    with pytest.raises(ValueError, match="absent cannot be read: No such file or directory"):
        expand("${file:absent}", folder=tmp_path)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        expand("${file:.}", folder=tmp_path)
    with pytest.raises(ValueError, match="binary is not valid UTF-8"):
        expand("${file:binary}", folder=tmp_path)


def test_a_tree_keeps_its_shape_and_collects_every_problem() -> None:
    interpolation = Interpolation({"A": "a"}, Path())

    tree = interpolation.tree({"x": ["${env:A}", 1, {"y": "${env:B}"}], "z": "${env:C}", "plain": "p"})

    assert tree == {"x": ["a", 1, {"y": "${env:B}"}], "z": "${env:C}", "plain": "p"}
    assert [problem.path for problem in interpolation.problems] == [("x", 2, "y"), ("z",)]

"""Command lines are split as in bash, and nothing in them is run."""

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recipe.shell_words import CurlLineError, UnfinishedLine, split_words

TEXT = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0"))


@given(st.lists(TEXT))
def test_text_quoted_by_the_shell_module_is_read_back(argv: list[str]) -> None:
    assert split_words(shlex.join(argv)).words == argv


@given(st.text(st.sampled_from("abc $'\"\\\n{}()`|&;<>#@=-1u0x\r\t") | st.characters()))
def test_arbitrary_text_is_split_or_rejected_with_one_error(line: str) -> None:
    with contextlib.suppress(CurlLineError):
        assert all(isinstance(word, str) for word in split_words(line).words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a  'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ("a \\\n  b \\\r\n c", ["a", "b", "c"]),
        ("ab\\\ncd", ["abcd"]),
        ("a''b '' \"\"", ["ab", "", ""]),
        (r'"{\"a\": \"x\\y\", \n}"', ['{"a": "x\\y", \\n}']),
        (r"$'it\'s \u4f60\n\x41\101'", ["it's 你\nAA"]),
        (r"$'\xe4\xbd\xa0' $'caf\xe9'", ["你", "café"]),
        (r"$'\ud83d\ude00'", ["😀"]),
        ("a # a comment\nb", ["a", "b"]),
        ("http://x/#y", ["http://x/#y"]),
        ("a$ '$5'", ["a$", "$5"]),
    ],
)
def test_quotes_are_removed_as_in_bash(line: str, words: list[str]) -> None:
    assert split_words(line).words == words


def test_shell_variables_stay_references_where_the_shell_would_expand_them() -> None:
    words = split_words("""$A "b$C d${E}" '$F' \\$G""").words
    assert words == ["\ue000A\ue001", "b\ue000C\ue001 d\ue000E\ue001", "$F", "$G"]


@pytest.mark.parametrize(
    ("line", "left_out"),
    [
        ("curl x | jq .token", True),
        ("curl x > out.json", True),
        ("curl x 2>/dev/null", True),
        ("curl x >out.json 2>&1", True),
        ('curl x > "out put.json" | jq .', True),
        ("curl x 2>/dev/null\necho -n", True),
        ("curl x && echo done", True),
        ("curl x;", False),
        ("TOKEN=$(curl x)", False),
        ("export TOKEN=$(curl x | jq -r .token)", True),
    ],
)
def test_text_after_the_command_is_omitted_with_a_note(line: str, left_out: bool) -> None:  # noqa: FBT001
    assert split_words(line) == (["curl", "x"], left_out)


@pytest.mark.parametrize("line", ["'a", '"a', "$'a", "a \\", '"a\\"'])
def test_an_open_quote_waits_for_its_end(line: str) -> None:
    with pytest.raises(UnfinishedLine):
        split_words(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a $(rm -rf x)", "recipe runs nothing"),
        ('"$(id)"', "recipe runs nothing"),
        ("`id`", "recipe runs nothing"),
        ("a$[1+1]", "recipe runs nothing"),
        ('"$[1+1]"', "recipe runs nothing"),
        ('"${A:-b}"', "recipe runs nothing"),
        ("http://x?a=1&b=2", "put the URL in quotes"),
        ("a\0b", "copy it again"),
        ("curl x \\ \n -d a=b", "a space follows the backslash"),
        ("curl x \\\t\r\n -d a=b", "a space follows the backslash"),
        ("curl --cacert C:\\certs\\ca.pem x", "a backslash before a letter"),
        ("curl -u id:a$1b x", "values of the shell"),
        ('curl -u "id:a$$b" x', "values of the shell"),
        ("curl x > out -d a=b", "after a redirection"),
        ("curl 2>/dev/null x", "after a redirection"),
        ("curl x -d @- <<< a -H b", "after a redirection"),
        ("\ue000A\ue001", "copy it again"),
        ("\udcff", "copy it again"),
        (r"$'\ud800'", "an invalid escape"),
        (r"$'\x00'", "an invalid escape"),
        (r"$'\U00ffffff'", "an invalid escape"),
    ],
)
def test_shell_expansions_are_rejected(line: str, words: str) -> None:
    with pytest.raises(CurlLineError, match=words):
        split_words(line)

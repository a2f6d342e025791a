"""The options of curl: which affect the request, which are ignored, and which are rejected."""

import pytest

from proxy.recipe.curl_options import read_options
from proxy.recipe.shell_words import CurlLineError


def test_values_keep_their_order_and_the_last_one_counts() -> None:
    options = read_options(["-H", "a: 1", "https://a.example", "--header=b: 2", "-XGET", "-X", "PUT"])
    assert options.urls == ("https://a.example",)
    assert options.values["header"] == ("a: 1", "b: 2")
    assert options.last("request") == "PUT"
    assert options.last("user") is None


def test_all_kinds_of_data_are_kept_in_their_order() -> None:
    words = [
        "-d",
        "a=1",
        "--data-ascii",
        "b=2",
        "--json",
        "{}",
        "--data-urlencode=c=3",
        "--url",
        "https://a.example",
    ]
    options = read_options(words)
    assert options.data == (("data", "a=1"), ("data", "b=2"), ("json", "{}"), ("data-urlencode", "c=3"))
    assert options.urls == ("https://a.example",)


def test_letters_can_share_a_dash_and_ignored_options_take_their_values_with_them() -> None:
    options = read_options(["-sSkLo", "out.json", "--retry", "3", "https://a.example"])
    assert options.flags == {"insecure", "location"}
    assert options.urls == ("https://a.example",)
    assert dict(options.values) == {}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-F", "a=b"], "multipart"),
        (["--digest"], "digest authentication"),
        (["--no-such-option"], "unknown or unsupported"),
        (["-d"], "the value is missing"),
        (["-I"], "HEAD"),
    ],
)
def test_options_that_cannot_be_repeated_are_rejected_by_name(words: list[str], problem: str) -> None:
    with pytest.raises(CurlLineError, match=problem):
        read_options(words)


def test_values_are_not_in_the_repr() -> None:
    assert "canary" not in repr(read_options(["-u", "id:canary", "https://a.example"]))

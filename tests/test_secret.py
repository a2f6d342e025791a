"""A secret is shown only by `reveal`."""

import copy
import json
import pickle
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secret import MASK, Secret

CANARY = "canary-3f9a"

SHOWING: dict[str, Callable[[Secret], object]] = {
    "str": str,
    "repr": repr,
    "format": lambda secret: f"{secret}",
    "format_repr": lambda secret: f"{secret!r:>40}",
    "percent": lambda secret: "%s %r %a" % (secret, secret, secret),  # noqa: UP031
    "in_a_list": lambda secret: str([secret]),
    "in_a_dict": lambda secret: str({secret: secret}),
    "in_an_error": lambda secret: repr(ValueError(secret)),
    "msgspec": lambda secret: msgspec.json.encode({"a": secret}, enc_hook=repr),
    "json": lambda secret: json.dumps({"a": secret}, default=repr),
}
REFUSED: dict[str, Callable[[Secret], object]] = {
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "vars": vars,
    "format_specification": lambda secret: f"{secret:>40}",
    "json": json.dumps,
    "iteration": lambda secret: [*secret],  # type: ignore[misc]
    "concatenation": lambda secret: "Bearer " + secret,  # type: ignore[operator]
    "indexing": lambda secret: secret[0],  # type: ignore[index]
}


@pytest.mark.parametrize("show", SHOWING.values(), ids=SHOWING)
def test_every_output_is_masked(show: Callable[[Secret], object]) -> None:
    shown = str(show(Secret(CANARY)))
    assert MASK in shown
    assert CANARY not in shown


@pytest.mark.parametrize("leave", REFUSED.values(), ids=REFUSED)
def test_no_conversion_reveals_it(leave: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        leave(Secret(CANARY))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_traceback_with_local_variables_masks_it() -> None:
    def fail(secret: Secret) -> None:
        raise ValueError(f"cannot use {secret}")

    with pytest.raises(ValueError, match="cannot use") as caught:
        fail(Secret(CANARY))
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame.locals or {} for frame in told.stack if frame.name == "fail"]
    assert [frame["secret"] for frame in frames] == [f"Secret('{MASK}')"]


def test_the_mask_does_not_reveal_the_length() -> None:
    assert str(Secret("a")) == str(Secret("a" * 500)) == str(Secret(""))


def test_it_is_revealed_on_request() -> None:
    assert Secret(CANARY).reveal() == CANARY


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret(" ")


@given(st.text(), st.text())
def test_two_are_equal_when_their_texts_are(one: str, other: str) -> None:
    for left, right in ((one, one), (one, other)):
        assert (Secret(left) == Secret(right)) == (left == right)
        assert (Secret(left).digest() == Secret(right).digest()) == (left == right)
        if left == right:
            assert hash(Secret(left)) == hash(Secret(right))


def test_it_never_equals_a_plain_string() -> None:
    assert Secret(CANARY) != CANARY
    assert not {Secret(CANARY)} & {CANARY}


def test_its_hash_is_not_that_of_the_text() -> None:
    assert hash(Secret(CANARY)) != hash(CANARY)


def test_no_attribute_can_be_added() -> None:
    with pytest.raises(AttributeError):
        Secret(CANARY).note = CANARY  # type: ignore[attr-defined]

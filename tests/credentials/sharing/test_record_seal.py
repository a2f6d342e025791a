"""The seal: a sealed text opens only with the right key, in its place, and unaltered."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sharing.record import Seal, SealBroken

OLD, NEW = b"o" * 32, b"n" * 32
keys = st.binary(min_size=32, max_size=32)


@given(st.binary(max_size=4096), st.text(max_size=60), keys)
def test_an_encrypted_record_is_decrypted(plain: bytes, place: str, key: bytes) -> None:
    sealed = Seal([key]).close(plain, place)
    assert Seal([key]).open(sealed, place) == plain
    assert len(plain) < 8 or plain not in sealed + base64.b64decode(sealed)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_decrypted(raw: bytes) -> None:
    for sealed in (raw, base64.b64encode(raw)):
        with pytest.raises(SealBroken):
            Seal([OLD]).open(sealed, "place")


@given(st.data())
def test_one_changed_bit_breaks_it(data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(Seal([OLD]).close(b"token", "place")))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    with pytest.raises(SealBroken):
        Seal([OLD]).open(base64.b64encode(raw), "place")


def test_a_record_is_decrypted_only_under_its_own_name() -> None:
    sealed = Seal([OLD]).close(b"token", "one")
    with pytest.raises(SealBroken):
        Seal([OLD]).open(sealed, "two")


def test_older_keys_decrypt_and_the_first_one_encrypts() -> None:
    assert Seal([NEW, OLD]).open(Seal([OLD]).close(b"token", "p"), "p") == b"token"
    with pytest.raises(SealBroken):
        Seal([OLD]).open(Seal([NEW, OLD]).close(b"token", "p"), "p")


def test_names_with_their_own_key_survive_a_key_rotation() -> None:
    steps = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]
    assert len({Seal(keys, name_key=b"x" * 32).name(b"recipe") for keys in steps}) == 1
    assert [Seal(keys).name(b"r") == Seal([OLD]).name(b"r") for keys in steps] == [True, True, False, False]


def test_names_differ_by_recipe_and_by_key() -> None:
    assert Seal([OLD]).name(b"recipe") != Seal([OLD]).name(b"other")
    assert Seal([OLD]).name(b"recipe") != Seal([b"x" * 32]).name(b"recipe")


def test_the_same_text_is_never_encrypted_alike() -> None:
    seal = Seal([OLD])
    assert seal.close(b"token", "p") != seal.close(b"token", "p")

"""The formats in which credential helpers print a token."""

import json
import math
import time
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.exec import read_output
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import ExecCredential
from tests.credentials.sources.sections import command
from tests.credentials.sources.test_reply_lifetime import JSON, jwt

NOW = 1_700_000_000.0
FORMATS = ["auto", "exec_credential", "credential_process", "git", "json", "text"]


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")


def exec_credential(version: str = "v1", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "kind": "ExecCredential",
        "status": {"token": "s3cret", **status},
    }


def session(**more: Any) -> dict[str, Any]:
    return {"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "no", "SessionToken": "s3cret", **more}


def text_of(output: object) -> str:
    return output if isinstance(output, str) else json.dumps(output, indent=1)


def read(output: object, form: ExecCredential) -> tuple[FetchedToken, bool]:
    """Return the token, and whether its lifetime could be read."""
    fetched = read_output(text_of(output).encode(), form, NOW)
    return replace(fetched, doubt=None), fetched.doubt is None or fetched.doubt.readable


JWT = jwt({"exp": NOW + 300})
GIT = "protocol=https\nusername=me\npassword=s3cret\n"
EXPIRES = (("data.at", "epoch"),)

LIVES: list[tuple[str, object, float | None]] = [
    ("exec_credential", exec_credential(expirationTimestamp=iso(300)), 300.0),
    ("exec_credential", exec_credential("v1beta1", expirationTimestamp=iso(300)), 300.0),
    ("exec_credential", exec_credential(expirationTimestamp=None), math.inf),
    ("exec_credential", exec_credential(token=JWT), 300.0),
    ("exec_credential", exec_credential(expirationTimestamp="soon"), None),
    ("credential_process", session(Expiration=iso(300)), 300.0),
    ("credential_process", session(Expiration=iso(300).replace("Z", "+00:00")), 300.0),
    ("credential_process", session(), math.inf),
    ("credential_process", session(Expiration=17), None),
    ("git", f"{GIT}password_expiry_utc={NOW + 300:.0f}\n", 300.0),
    ("git", f"{GIT}password_expiry_utc={NOW + 300:.0f}\n\npassword=no\n", 300.0),
    ("git", f"capability[]=authtype\r\n{GIT}".replace("\n", "\r\n"), 77.0),
    ("git", f"password=no\n{GIT}", 77.0),
    ("git", f"{GIT}password_expiry_utc=soon", None),
    ("git", f"password={JWT}", 300.0),
    ("text", "s3cret", 77.0),
    ("text", " s3cret \r\n\n", 77.0),
    ("text", JWT + "\n", 300.0),
]


@pytest.mark.parametrize(("name", "output", "life"), LIVES)
@pytest.mark.parametrize("auto", [True, False])
def test_a_token_and_its_life_in_each_form(
    name: str, output: object, life: float | None, *, auto: bool
) -> None:
    fetched, readable = read(output, command(format="auto" if auto else name, default_ttl=77.0))

    assert fetched.secret == Secret(JWT if JWT in text_of(output) else "s3cret")
    assert fetched.lifetime == pytest.approx(77.0 if life is None else life)
    assert readable == (life is not None)
    assert fetched.refresh_in == (77.0 if life == math.inf else None)


@pytest.mark.parametrize("format_", ["auto", "json"])
def test_a_token_at_a_path_of_any_json(format_: str) -> None:
    form = command(format=format_, token="data.token", expires=EXPIRES, default_ttl=77.0)
    for data, life, readable in (
        ({"at": NOW + 300}, 300.0, True),
        ({"at": "soon"}, 77.0, False),
        ({}, 77.0, False),
    ):
        fetched, was_readable = read({"data": {"token": "s3cret", **data}}, form)
        assert fetched == FetchedToken(Secret("s3cret"), life, certain=not readable)
        assert was_readable == readable
    fetched, _ = read({"data": {"token": JWT}}, form)
    assert fetched.lifetime == pytest.approx(300.0)
    fetched, readable = read(["s3cret"], command(format=format_, token="0", default_ttl=77.0))
    assert (fetched, readable) == (FetchedToken(Secret("s3cret"), 77.0), True)


@pytest.mark.parametrize("format_", ["auto", "credential_process"])
def test_another_key_of_a_credential_process(format_: str) -> None:
    form = command(format=format_, token="BearerToken")
    fetched, _ = read(session(BearerToken="other", Expiration=iso(300)), form)

    assert fetched == FetchedToken(Secret("other"), 300.0, certain=False)
    with_end = command(format=format_, token="BearerToken", expires=(("Until", "epoch"),))
    assert read(session(BearerToken="other", Until=NOW + 60), with_end)[0].lifetime == 60.0


@pytest.mark.parametrize(
    ("name", "output", "told"),
    [
        ("auto", "", "the command's output is empty"),
        ("text", " \n", "the command's output is empty"),
        ("auto", '{"s3cret": ', "the command's output is not valid JSON"),
        (
            "auto",
            {"token": "s3cret"},
            "the command's output is JSON of unknown format: set token to the path of the token",
        ),
        (
            "auto",
            "s3cret\ns3cret",
            "the command's output has a token that is not one line of printable ASCII",
        ),
        ("exec_credential", "s3cret", "the command's output is not valid JSON"),
        ("exec_credential", ["s3cret"], "the command's output is not an ExecCredential"),
        ("exec_credential", session(), "the command's output is not an ExecCredential"),
        (
            "auto",
            exec_credential("v1alpha1"),
            "the command's output is an ExecCredential of an unknown apiVersion",
        ),
        (
            "exec_credential",
            {**exec_credential(), "apiVersion": ["s3cret"]},
            "the command's output is an ExecCredential of an unknown apiVersion",
        ),
        ("auto", exec_credential(token=None), "the command's output, at 'status.token', has no token"),
        (
            "auto",
            exec_credential(expirationTimestamp=iso(0)),
            "the command's output has a token that has expired",
        ),
        (
            "credential_process",
            exec_credential(),
            "the command's output is not a credential_process reply of version 1",
        ),
        ("auto", session(Version=2), "the command's output is not a credential_process reply of version 1"),
        (
            "auto",
            session(Version=True),
            "the command's output is not a credential_process reply of version 1",
        ),
        ("auto", session(SessionToken=None), "the command's output, at 'SessionToken', has no token"),
        ("auto", session(Expiration=iso(-1)), "the command's output has a token that has expired"),
        ("git", "username=s3cret\n", "the command's output, at 'password', has no token"),
        ("git", "\npassword=s3cret", "the command's output, at 'password', has no token"),
        ("git", "password=", "the command's output, at 'password', has no token"),
        ("auto", "s3cret\npassword=s3cret", "the command's output has a line that is not key=value"),
        (
            "git",
            "password=s3cret\npassword_expiry_utc=1",
            "the command's output has a token that has expired",
        ),
        ("text", jwt({"exp": NOW}), "the command's output has a token that has expired"),
    ],
)
def test_an_output_without_a_token_is_a_temporary_failure(name: str, output: object, told: str) -> None:
    with pytest.raises(TokenFetchError) as failure:
        read(output, command(format=name))
    assert failure.value.reason == told
    assert not failure.value.permanent
    assert "s3cret" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_that_are_not_text_are_a_temporary_failure(name: str) -> None:
    with pytest.raises(TokenFetchError, match="is not valid UTF-8"):
        read_output(b"s3cret\xff", command(format=name, token="t"), NOW)


PIECES = st.sampled_from(
    ["{", "}", '"', "password=", "password_expiry_utc=", "\n", "\r", "\0", "=", ".", "e30", "t", "9" * 400]
)
NAMES = ["kind", "apiVersion", "status", "token", "expirationTimestamp", "Version", "AccessKeyId", "t"]
TREES = st.recursive(
    JSON | st.sampled_from(["ExecCredential", "client.authentication.k8s.io/v1", 1, iso(60)]),
    lambda inner: st.dictionaries(st.sampled_from([*NAMES, "SessionToken", "Expiration"]), inner),
    max_leaves=8,
)


@given(
    st.binary()
    | st.lists(PIECES | st.text()).map(lambda parts: "".join(parts).encode())
    | TREES.map(json.dumps),
    st.sampled_from(FORMATS),
    st.none() | st.sampled_from(["t", "status.token", "0"]),
    st.sampled_from([(), (("t", "epoch"), ("Expiration", "iso8601")), (("t", "jwt"), ("t", "seconds"))]),
)
def test_any_output_is_a_valid_token_or_a_failure(
    output: bytes | str, name: str, token: str | None, expires: tuple[tuple[str, str], ...]
) -> None:
    raw = output.encode("utf-8", "replace") if isinstance(output, str) else output
    form = command(format=name, token=token or ("t" if name == "json" else None), expires=expires)
    try:
        fetched = read_output(raw, form, time.time())
    except TokenFetchError:
        return
    text = fetched.secret.reveal()
    assert text
    assert text.isascii()
    assert text.isprintable()
    assert fetched.lifetime > 0


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
KEYS = st.text(st.characters(exclude_characters="=\n\r\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: key not in {"password", "password_expiry_utc"}
)
VALUES = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


@given(
    st.lists(st.tuples(KEYS, VALUES)),
    PRINTABLE.filter(lambda text: text.count(".") != 2 and text.strip() == text),
    st.integers(1, 10**9),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(0, 99),
)
def test_a_password_is_found_among_any_attributes_of_git(
    others: list[tuple[str, str]], password: str, life: int, newline: str, place: int
) -> None:
    attributes = [*others]
    attributes.insert(place % (len(others) + 1), ("password", password))
    attributes.append(("password_expiry_utc", f"{NOW + life:.0f}"))
    output = "".join(f"{key}={value}{newline}" for key, value in attributes)

    fetched, readable = read(output, command(format="git"))
    assert fetched == FetchedToken(Secret(password), float(life), certain=False)
    assert readable

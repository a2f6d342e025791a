"""The rules of the client-credentials grant."""

import base64
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.tokens import FORM, Client, OAuthError, check_grant

DEMO = Client("demo", "s3cret")


def basic(client: Client) -> str:
    pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def form(**fields: str) -> bytes:
    return urlencode({"grant_type": "client_credentials", **fields}).encode()


def refusal(content_type: str, authorization: str, body: bytes) -> tuple[int, str]:
    with pytest.raises(OAuthError) as caught:
        check_grant(content_type, authorization, body, DEMO)
    return caught.value.status, caught.value.error


ANY = st.text(st.sampled_from("aZ09 +%&=:;/é你\n"))


@given(st.builds(Client, ANY, ANY))
def test_any_client_passes_by_basic_and_by_form(client: Client) -> None:
    check_grant(FORM, basic(client), form(), client)
    check_grant(f"{FORM}; charset=utf-8", "", form(client_id=client.id, client_secret=client.secret), client)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer demo", "Basic ???", "Basic é", basic(Client("demo", "wrong")), basic(Client("", "s3cret"))],
)
def test_a_client_that_is_not_known_is_401(authorization: str) -> None:
    assert refusal(FORM, authorization, form()) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", form()),
        (FORM, b""),
        (FORM, b"\xff"),
        (FORM, b"grant_type=%ff"),
        (FORM, form() + b"&scope=a&scope=b"),
        (FORM, form(client_id="demo", client_secret="s3cret")),
    ],
)
def test_an_invalid_request_is_400(content_type: str, body: bytes) -> None:
    assert refusal(content_type, basic(DEMO), body) == (400, "invalid_request")


def test_another_grant_is_400() -> None:
    assert refusal(FORM, basic(DEMO), b"grant_type=password") == (400, "unsupported_grant_type")

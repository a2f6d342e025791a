"""Valid URLs, and the URL that replaces `embedded:`."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from proxy.settings.fields import BaseUrl, EndpointUrl, ProxyUrl
from proxy.settings.sections import resolved

BASE: TypeAdapter[str] = TypeAdapter(BaseUrl)
ENDPOINT: TypeAdapter[str] = TypeAdapter(EndpointUrl)
PROXY: TypeAdapter[str] = TypeAdapter(ProxyUrl)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://llm.example/v1", "https://llm.example/v1"),
        ("https://llm.example/v1//", "https://llm.example/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("HTTPS://[::1]:1/a%2Fb", "HTTPS://[::1]:1/a%2Fb"),
        ("embedded:/v1/", "embedded:/v1"),
        ("embedded:/", "embedded:"),
    ],
)
def test_a_base_url_loses_its_last_slash(written: str, kept: str) -> None:
    assert BASE.validate_python(written) == kept


@pytest.mark.parametrize(
    "url", ["https://auth.example/token?tenant=a", "embedded:/token", "embedded:/token?a=b"]
)
def test_an_endpoint_may_have_a_query(url: str) -> None:
    assert ENDPOINT.validate_python(url) == url


def test_a_proxy_may_hold_a_password() -> None:
    assert PROXY.validate_python("http://u:p@proxy.example:3128") == "http://u:p@proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "must be an http"),
        ("llm.example/v1", "must be an http"),
        ("ftp://llm.example", "must be an http"),
        ("https:///v1", "must be an http"),
        ("https://:80/v1", "must be an http"),
        ("https://[::1/v1", "is not a valid URL"),
        ("https://llm.example:99999", "is not a valid URL"),
        ("https://llm.example:http", "is not a valid URL"),
        ("https://u:p@llm.example", "must not contain a user name or password"),
        ("https://@llm.example", "must not contain a user name or password"),
        ("https://llm.example/#x", "must not have a fragment"),
        ("https://llm.example\\@evil.example", "must not contain spaces"),
        ("https://llm.example/a b", "must not contain spaces"),
        ("https://llm.ex\nample/", "must not contain spaces"),
        ("embedded:v1", "must have a path after embedded:"),
        ("embedded:", "must have a path after embedded:"),
        ("embedded://host/v1", "must have a path after embedded:"),
        ("embedded:/v1#x", "must not have a fragment"),
    ],
)
def test_an_invalid_url_of_an_upstream_is_rejected(url: str, told: str) -> None:
    for kind in (BASE, ENDPOINT):
        with pytest.raises(ValidationError, match=told):
            kind.validate_python(url)


@pytest.mark.parametrize("url", ["https://llm.example/?a=b", "https://llm.example/v1?", "embedded:/v1?x"])
def test_a_base_url_has_no_query(url: str) -> None:
    with pytest.raises(ValidationError, match="must not have a query"):
        BASE.validate_python(url)


@settings(max_examples=50)
@given(st.text(max_size=12), st.sampled_from(["", "http://", "https://h", "embedded:/", "http://["]))
def test_any_url_is_accepted_unchanged_or_rejected(text: str, start: str) -> None:
    url = start + text
    with suppress(ValidationError):
        assert url.startswith(BASE.validate_python(url))
    with suppress(ValidationError):
        assert ENDPOINT.validate_python(url) == url
    with suppress(ValidationError):
        assert PROXY.validate_python(url) == url


def test_an_origin_replaces_embedded() -> None:
    assert resolved("embedded:/v1", "http://127.0.0.1:5003") == "http://127.0.0.1:5003/v1"
    assert resolved("embedded:/v1", "http://127.0.0.1:5003/") == "http://127.0.0.1:5003/v1"
    assert resolved("https://llm.example/v1", "http://127.0.0.1:5003") == "https://llm.example/v1"

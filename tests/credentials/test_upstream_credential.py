"""Where a token is written into a request, and the registry of all credentials."""

import asyncio
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials import UpstreamCredential
from proxy.credentials.build import CredentialRegistry
from proxy.credentials.upstream_credential import write_token
from proxy.settings import Inject
from proxy.wire.headers import Headers
from tests.credentials.fakes import FakeIssuer, build_machine, build_token, pass_time, reject, virtually


@pytest.mark.parametrize(
    ("injection", "written"),
    [
        (Inject(), (b"authorization", b"Bearer s3cret")),
        (Inject(header="X-Auth-Token", template="{token}"), (b"x-auth-token", b"s3cret")),
        (Inject(header="Cookie", template="a={token}; b={token}"), (b"cookie", b"a=s3cret; b=s3cret")),
        (Inject(template="{x} {token} {}"), (b"authorization", b"{x} s3cret {}")),
    ],
)
def test_a_header_is_made_from_the_template(injection: Inject, written: tuple[bytes, bytes]) -> None:
    before: Headers = [(b"accept", b"*/*"), (b"x-trace", b"1")]
    headers, query = write_token(injection, build_token(), before, b"a=1")
    assert headers == [*before, written]
    assert query == b"a=1"
    assert len(before) == 2  # the caller's list does not change


def test_the_value_that_the_caller_sent_in_that_header_is_removed() -> None:
    sent = [(b"x-auth", b"mine"), (b"accept", b"*/*"), (b"x-auth", b"mine too")]
    headers, _ = write_token(Inject(header="X-Auth", template="{token}"), build_token(), sent, b"")
    assert headers == [(b"accept", b"*/*"), (b"x-auth", b"s3cret")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b"access_token=s3cret"),
        (b"a=1", b"a=1&access_token=s3cret"),
        (b"access_token=mine&a=1&access_token=mine", b"a=1&access_token=s3cret"),
        (b"access%5Ftoken=mine", b"access_token=s3cret"),  # the same name in another spelling
        (b"access_token", b"access_token=s3cret"),
        (b"a=%2F+%20&b&c=", b"a=%2F+%20&b&c=&access_token=s3cret"),  # byte for byte
        (b"access_token_2=1&x=access_token=1", b"access_token_2=1&x=access_token=1&access_token=s3cret"),
        (b"%FF=%ff", b"%FF=%ff&access_token=s3cret"),
    ],
)
def test_a_query_parameter_replaces_the_callers_own(query: bytes, expected: bytes) -> None:
    injection = Inject(header=None, query="access_token", template="{token}")
    headers, written = write_token(injection, build_token(), [(b"accept", b"*/*")], query)
    assert written == expected
    assert headers == [(b"accept", b"*/*")]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1))
def test_any_token_arrives_in_the_query_unchanged(token: str) -> None:
    injection = Inject(header=None, query="key[]", template="{token}")
    _, query = write_token(injection, build_token(token), [], b"key%5B%5D=mine&a=1")
    assert parse_qsl(query.decode()) == [("a", "1"), ("key[]", token)]


@virtually
async def test_all_credentials_are_fetched_and_closed_together() -> None:
    issuers = {name: FakeIssuer(delay=1.0) for name in ("one", "two")}
    registry = CredentialRegistry()
    for name, issuer in issuers.items():
        registry.add(name, UpstreamCredential(build_machine(issuer), Inject()))
    registry.prefetch()
    await pass_time(2.0)
    assert [(await registry[name].source.get()).generation for name in issuers] == [1, 1]
    await reject(registry["one"].source)
    await asyncio.sleep(0.5)
    await registry.close()
    assert [issuer.closed for issuer in issuers.values()] == [1, 1]
    assert [issuer.flying for issuer in issuers.values()] == [0, 0]
    with pytest.raises(KeyError):
        registry["three"]

"""The address of a visitor behind trusted and untrusted proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.forwarded import UNKNOWN, TrustedProxies
from proxy.wire.headers import Headers

LOOPBACK = TrustedProxies(["127.0.0.0/8", "::1/128"])
TWO = TrustedProxies(["127.0.0.0/8", "10.0.0.0/8"])


def forwarded(*values: str) -> Headers:
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "visitor"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # An untrusted peer, whose header is ignored.
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # The caller forged the left part.
        ("127.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["6.6.6.6, 198.51.100.1, 127.0.0.1"], "198.51.100.1"),
        ("127.0.0.1", ["6.6.6.6, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["6.6.6.6, unix:"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("::1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("::1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("", ["198.51.100.1"], "198.51.100.1"),  # A Unix socket.
        (None, [], UNKNOWN),
    ],
)
def test_the_visitor_is_the_rightmost_address_that_is_not_a_trusted_proxy(
    peer: str | None, values: list[str], visitor: str
) -> None:
    assert LOOPBACK.visitor(peer, forwarded(*values)) == visitor


def test_a_chain_of_trusted_proxies_is_followed() -> None:
    assert TWO.visitor("127.0.0.1", forwarded("6.6.6.6, 198.51.100.1, 10.0.0.9")) == "198.51.100.1"
    assert LOOPBACK.visitor("127.0.0.1", forwarded("198.51.100.1, 10.0.0.9")) == "10.0.0.9"


def test_without_trusted_proxies_headers_are_ignored() -> None:
    assert TrustedProxies([]).visitor("127.0.0.1", forwarded("198.51.100.1")) == "127.0.0.1"
    assert TrustedProxies([]).visitor(None, forwarded("198.51.100.1")) == UNKNOWN


@given(forged=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")))
def test_no_forged_header_changes_the_visitor(forged: str) -> None:
    headers = [(b"x-forwarded-for", forged.encode("latin-1") + b", 198.51.100.1")]

    assert LOOPBACK.visitor("127.0.0.1", headers) == "198.51.100.1"


@pytest.mark.parametrize(
    ("scheme", "peer", "proto", "secure"),
    [
        ("http", "127.0.0.1", None, False),
        ("https", "192.0.2.7", None, True),
        ("http", "127.0.0.1", b"https", True),
        ("http", "127.0.0.1", b"https, http", False),
        ("http", "192.0.2.7", b"https", False),
    ],
)
def test_the_connection_or_a_trusted_proxy_decides_about_tls(
    scheme: str, peer: str, proto: bytes | None, *, secure: bool
) -> None:
    headers = [] if proto is None else [(b"x-forwarded-proto", proto)]

    assert LOOPBACK.is_secure(scheme, peer, headers) is secure


def test_only_a_trusted_proxy_names_another_host() -> None:
    headers = [(b"host", b"Proxy:5002"), (b"x-forwarded-host", b"chat.example")]

    assert LOOPBACK.hosts("127.0.0.1", headers) == {"proxy:5002", "chat.example"}
    assert LOOPBACK.hosts("192.0.2.7", headers) == {"proxy:5002"}

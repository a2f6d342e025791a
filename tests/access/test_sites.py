"""Web pages and host names that may use a service without a secret."""

import pytest

from proxy.access.sites import SiteRules, is_loopback
from proxy.errors import SiteForbidden
from proxy.wire.headers import Headers

LOCAL = "127.0.0.1"
FOREIGN: Headers = [(b"host", b"localhost:5002"), (b"origin", b"https://evil.example")]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("localhost", True), ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("", False), (None, False),
        ("example", False),
    ],
)  # fmt: skip
def test_loopback_addresses(address: str | None, *, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_a_loopback_connection_must_name_a_known_host() -> None:
    rules = SiteRules(["llm.corp"])
    for host in (b"localhost", b"127.0.0.1:5002", b"[::1]:5002", b"llm.corp"):
        rules.check_host([(b"host", host)], LOCAL)
    with pytest.raises(SiteForbidden, match="host name"):
        rules.check_host([(b"host", b"rebound.example")], LOCAL)
    rules.check_host([(b"host", b"rebound.example")], "10.0.0.1")  # an address that others may reach


def test_pages_of_other_sites_are_rejected_unless_their_origin_is_listed() -> None:
    with pytest.raises(SiteForbidden, match="origins"):
        SiteRules([]).check_page(FOREIGN, LOCAL)
    SiteRules([], ["https://evil.example"]).check_page(FOREIGN, LOCAL)
    SiteRules([]).check_page([(b"host", b"localhost:5002")], LOCAL)  # no browser


def test_wildcards_do_not_make_public_keys_usable() -> None:
    open_to_all = SiteRules(["*"], ["*"])
    open_to_all.check_page(FOREIGN, LOCAL)
    assert not open_to_all.accept(FOREIGN)
    assert not open_to_all.accept([(b"host", b"rebound.example")])
    assert open_to_all.accept([(b"host", b"localhost:5002")])

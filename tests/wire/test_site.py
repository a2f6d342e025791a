"""Which host a request names, and which page sent it."""

import pytest

from proxy.wire.site import (
    Site,
    is_from_foreign_page,
    is_loopback_name,
    names_own_host,
    parse_host,
    parse_origin,
)

LOOPBACK = [
    b"localhost",
    b"LOCALHOST:5002",
    b"localhost.",
    b"proxy.localhost:80",
    b"127.0.0.1",
    b"127.8.9.1:5002",
    b"[::1]",
    b"[::1]:5002",
]
FOREIGN = [
    b"evil.example",
    b"localhost.evil.example",
    b"evil.example:5002",
    b"127.0.0.1.evil.example",
    b"10.0.0.1",
    b"0.0.0.0",
    b"[::]",
    b"",
    b" ",
    b".",
    b"localhost@evil.example",
    b"evil.example@localhost",
    b"localhost/evil",
    b"localhost?x",
    b"localhost#x",
    b"localhost:port",
    b"localhost:99999",
    b"localhost, evil.example",
    b"\xff",
    b"xn--localhost-",
    b"2130706433",
    b"0x7f.1",
    b"localhost\\evil",
    b"[::1",
    b"::1",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_names_are_hosts_of_the_service(host: bytes) -> None:
    assert names_own_host([(b"host", host)], ())


@pytest.mark.parametrize("host", FOREIGN)
def test_any_other_name_is_foreign_unless_it_is_listed(host: bytes) -> None:
    assert not names_own_host([(b"host", host)], ("llm.corp",))
    assert names_own_host([(b"host", host)], ("*",))


def test_every_host_header_must_be_own_and_there_must_be_one() -> None:
    assert not names_own_host([], ())
    assert not names_own_host([(b"host", b"localhost"), (b"host", b"evil.example")], ())
    assert names_own_host([(b"host", b"LLM.corp:8080")], ("llm.corp",))
    assert not names_own_host([(b"host", b"llm.corp.evil.example")], ("llm.corp",))


def page(origin: bytes | None, host: bytes = b"127.0.0.1:5002", *, site: bytes | None = None) -> bool:
    """Whether a page with this origin is foreign to a service on a loopback address."""
    headers = [(b"host", host)]
    headers += [] if origin is None else [(b"origin", origin)]
    headers += [] if site is None else [(b"sec-fetch-site", site)]
    return is_from_foreign_page(headers, ("https://app.example",), trusts_loopback=True)


@pytest.mark.parametrize(
    "origin",
    [
        b"http://127.0.0.1:5002",
        b"http://localhost:3000",
        b"https://[::1]",
        b"https://app.example",
        b"HTTPS://App.Example",
    ],
)
def test_pages_of_this_machine_and_listed_ones_are_not_foreign(origin: bytes) -> None:
    assert not page(origin)
    assert not page(origin, site=b"cross-site")  # Origin is more precise than Sec-Fetch-Site.


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"https://evil.example",
        b"http://127.0.0.1.evil.example",
        b"http://localhost.evil.example",
        b"http://evil.example:5002",
        b"file://",
        b"chrome-extension://abc",
        b"https://app.example.evil.example",
        b"http://app.example",
        b"http://localhost@evil.example",
        b"http://evil.example/localhost",
        b"\xff",
    ],
)
def test_other_pages_are_foreign(origin: bytes) -> None:
    assert page(origin)


def test_two_origins_must_both_be_own() -> None:
    headers = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")]
    assert is_from_foreign_page(headers, (), trusts_loopback=True)


def test_without_an_origin_the_relation_of_the_sites_decides() -> None:
    assert [
        page(None, site=site) for site in (None, b"same-origin", b"none", b"same-site", b"cross-site")
    ] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_on_other_hosts_a_page_must_come_from_the_same_host() -> None:
    for origin, host, foreign in [
        (b"http://llm.corp:8080", b"llm.corp:8080", False),
        (b"https://llm.corp", b"llm.corp", False),
        (b"https://llm.corp", b"llm.corp:443", False),
        (b"http://llm.corp", b"llm.corp:443", True),
        (
            b"https://llm.corp:8443",
            b"llm.corp",
            False,
        ),  # A proxy in front forwards the name without the port.
        (b"http://llm.corp:9090", b"llm.corp:8080", True),
        (b"http://localhost", b"llm.corp", True),
        (b"http://sub.llm.corp", b"llm.corp", True),
    ]:
        headers = [(b"host", host), (b"origin", origin)]
        assert is_from_foreign_page(headers, (), trusts_loopback=False) is foreign, (origin, host)


def test_hosts_and_origins_are_parsed() -> None:
    assert parse_host(b"Example.com.:8080") == Site("example.com", 8080)
    assert parse_host(b"[2001:DB8::1]") == Site("2001:db8::1", None)
    assert parse_origin(b"https://example.com") == Site("example.com", 443)
    assert not is_loopback_name("localhostess")
